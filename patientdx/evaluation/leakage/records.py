"""The records on which leakage is measured: train, test and reference, members and non-members, in tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from patientdx.core.errors import UserError, present
from patientdx.core.functions import Call
from patientdx.evaluation.language_systems import Finetuned
from patientdx.evaluation.plan import Run
from patientdx.lm.logprobs import check_lengths
from patientdx.privacy.blind import check_patients
from patientdx.privacy.neighbours import neighbours, vocabulary
from patientdx.privacy.resample import resampled
from patientdx.privacy.sides import Sides, sides
from patientdx.tasks.example import Example

_SEED_STEP = 1_000_003  # from the seed of a synthetic hospital to that of the one that gives the reference

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Records:
    """Records with their answers, row by row: examples, and token ids as a model is trained on them.

    `numbers` are those of the task's examples, for train and test alone.

    `sets` are the rows of train (what a model was trained on, or would be), test and reference; `kind` says what the
    reference is. `sides` are members and non-members, None where no attack is configured.
    """

    examples: tuple[Example, ...]
    numbers: tuple[int, ...]
    ids: tuple[Tokens, ...]
    sets: Mapping[str, range]
    kind: str
    sides: Sides | None

    @property
    def attacked(self) -> Sides:
        """The two sides of the attacks; ValueError where no attack is configured."""
        return present(self.sides, "no attack is configured")

    @property
    def texts(self) -> list[str]:
        """What a model reads, with the right answer, without chat markup."""
        return [e.prefix + e.context + e.suffix + " " + e.options[0 if e.label else 1][0] for e in self.examples]

    @property
    def subjects(self) -> list[str]:
        """The patient of each record."""
        return [example.subject for example in self.examples]


def measured_records(run: Run) -> Records:
    """The records of train, test and reference, in tokens; UserError where they do not suffice."""
    data, prompts, privacy = run.plan.data, run.plan.context.prompts, run.config.analyses.privacy
    if prompts.cut:
        raise UserError(
            f"privacy={privacy.name}: {prompts.cut} of {len(prompts.ids)} records are longer than {prompts.limit} "
            "tokens, and the loss of a record that is cut is not the record's. Shorten the text "
            "(task.template=compact, task.sections), set scoring.max_tokens higher, or use a model with a longer "
            "context."
        )
    train, rows, trained = _numbers(run)
    numbers = (*train, *rows)
    examples = [data.examples[i] for i in numbers]
    if not train or train == rows:
        raise UserError(
            f"privacy={privacy.name}: the {run.config.inference.reported} split is set against train, and "
            + ("no record is in train." if not train else "they are the same records.")
            + " Give train a share in task.fractions, and report another split: splits=[test]."
        )
    both = None
    if privacy.mia:
        members = [index for index, number in enumerate(numbers) if number in trained]
        elsewhere = range(len(train)) if trained <= set(rows) else range(len(train), len(numbers))
        texts, subjects = [e.context for e in examples], [e.subject for e in examples]
        both = sides(texts, subjects, members, elsewhere)
        check_patients(both.member, [subjects[i] for i in both.rows])
    kind, fresh, reference = _reference(run, train, len(rows))
    ends = np.cumsum([len(train), len(rows), len(fresh)]).tolist()
    sets: dict[str, range] = dict(zip(("train", "test", "reference"), map(range, [0, *ends[:2]], ends), strict=True))
    ids = (*(_answered(prompts.ids[i], data.examples[i], prompts.options) for i in numbers), *reference)
    check_lengths(ids, run.plan.context.spec.context)
    return Records((*examples, *fresh), numbers, ids, sets, kind, both)


def neighbour_ids(run: Run, records: Records) -> list[Tokens]:
    """The neighbours of members and non-members, record after record, in tokens."""
    originals = [records.examples[i] for i in records.attacked.rows]
    words = vocabulary([example.context for example in originals])
    examples = [
        replace(example, context=text)
        for example in originals
        for text in neighbours(example.context, words, run.config.analyses.privacy.neighbours, seed=run.config.seed)
    ]
    return _tokens(run, examples)


def _numbers(run: Run) -> tuple[list[int], list[int], set[int]]:
    """Numbers of the examples of train and of test, and of those that a model was trained on or would be.

    Of train only what the fine-tuned model was trained on, where there is one.
    """
    config, plan = run.config, run.plan
    train = [i for i, example in enumerate(plan.data.examples) if example.split == "train"]
    rows = plan.context.rows[config.inference.reported]
    trained = next((system.trained_on for system in plan.systems if isinstance(system, Finetuned)), None)
    if trained is None:
        return train, rows, set(train)
    if set(trained) <= set(train):
        return sorted(trained), rows, set(trained)
    if not set(trained) <= set(rows):
        split, reported = config.finetune_config.split, config.inference.reported
        raise UserError(
            f"privacy={config.analyses.privacy.name}: finetune.split={split} trains on a split that is not the "
            f"reported one, {reported}. Report it: splits=[{split}]."
        )
    return train, rows, set(trained)


def _answered(ids: Sequence[int], example: Example, options: Sequence[Sequence[int]]) -> Tokens:
    """A prompt and the token of its right answer."""
    return (*ids, options[0 if example.label else 1][0])


def _reference(run: Run, train: Sequence[int], count: int) -> tuple[str, list[Example], list[Tokens]]:
    """What the reference is, its examples and their token ids: as many as are reported on."""
    config = run.config
    keywords, kind = config.task_config.call.keywords, config.analyses.privacy.reference
    is_synthetic = keywords.get("mimic_root") is None and "synthetic" in keywords
    if kind == "fresh" and not is_synthetic:
        raise UserError(
            "privacy.reference=fresh: only the synthetic hospital can admit new patients, and this source is none. Use "
            "privacy.reference=resampled."
        )
    if (kind or ("fresh" if is_synthetic else "resampled")) == "resampled":
        examples = _resampled(run, [run.plan.data.examples[i] for i in train], count)
        return "resampled", examples, _tokens(run, examples)
    synthetic = keywords["synthetic"] | {"seed": keywords["synthetic"]["seed"] + _SEED_STEP}
    call = Call(config.task_config.call.target, json.dumps(keywords | {"synthetic": synthetic}, sort_keys=False))
    fresh = run.session.task_data(call)
    examples = [example for example in fresh.examples if example.split == config.inference.reported][:count]
    return "fresh", examples, _tokens(run, examples)


def _resampled(run: Run, donors: Sequence[Example], count: int) -> list[Example]:
    """Examples with new records in the donors' words, each a patient of its own, with an answer drawn from theirs."""
    seed = run.config.seed
    records = resampled([donor.context for donor in donors], count, seed=seed)
    labels = np.random.default_rng([seed, 1]).choice([donor.label or 0 for donor in donors], count)
    return [
        replace(donors[0], uid=f"new {i}", subject=f"new {i}", split="reference", context=record, label=int(label))
        for i, (record, label) in enumerate(zip(records, labels, strict=True))
    ]


def _tokens(run: Run, examples: Sequence[Example]) -> list[Tokens]:
    """The examples as tokens with their answers, written as the run's own prompts are."""
    context = run.plan.context
    spec, limit = context.spec, context.prompts.limit
    data = replace(run.plan.data, examples=tuple(examples))
    prompts = context.kind.encode(data, spec.load_tokenizer(), chat=spec.chat, max_tokens=limit, context=None)
    if prompts.cut:
        raise UserError(
            f"privacy={run.config.analyses.privacy.name}: {prompts.cut} of {len(examples)} records made for comparison "
            f"are longer than {limit} tokens. Set scoring.max_tokens higher, or shorten the text (task.sections)."
        )
    return [_answered(row, example, prompts.options) for row, example in zip(prompts.ids, examples, strict=True)]
