"""The records on which leakage is measured: train, test and reference, members and non-members, in tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from patientdx.core.errors import UserError
from patientdx.core.functions import Call
from patientdx.evaluation import session
from patientdx.evaluation.config.sections import RunConfig
from patientdx.evaluation.plan import Plan
from patientdx.lm.load import load_tokenizer
from patientdx.lm.logprobs import check_lengths
from patientdx.lm.prompts import tokenise
from patientdx.privacy.blind import check_patients
from patientdx.privacy.neighbours import neighbours, vocabulary
from patientdx.privacy.resample import resampled
from patientdx.privacy.sides import Sides, sides
from patientdx.tasks.example import Example

_ANOTHER = 1_000_003  # from the seed of a synthetic hospital to that of the one that lends the reference


@dataclass(frozen=True)
class Records:
    """Records with their answers, row by row: examples, and token ids as a model is trained on them.

    `numbers` are those of the task's examples, for train and test alone.

    `sets` are the rows of train (what a model was trained on, or would be), test and reference; `kind` says what the
    reference is. `sides` are members and non-members, None where no attack is asked for.
    """

    examples: tuple[Example, ...]
    numbers: tuple[int, ...]
    ids: tuple[tuple[int, ...], ...]
    sets: Mapping[str, range]
    kind: str
    sides: Sides | None

    @property
    def texts(self) -> list[str]:
        """What a model reads, with the right answer, without chat markup."""
        return [e.prefix + e.context + e.suffix + " " + e.options[0 if e.label else 1][0] for e in self.examples]


def gathered_records(config: RunConfig, asked: Plan) -> Records:
    """The records of train, test and reference, in tokens; UserError where they will not do."""
    data, tokens, wanted = asked.data, asked.tokens, config.analyses.privacy
    if tokens.cut:
        raise UserError(
            f"privacy={wanted.name}: {tokens.cut} of {len(tokens.ids)} records are longer than {tokens.limit} tokens, "
            "and the loss of a record that is cut is not the record's. Shorten the text (task.template=compact, "
            "task.sections), set scoring.max_tokens higher, or use a model with a longer context."
        )
    seen, rows, trained = _numbers(config, asked)
    numbers = (*seen, *rows)
    examples = [data.examples[i] for i in numbers]
    if not seen or seen == rows:
        raise UserError(
            f"privacy={wanted.name}: the {config.inference.reported} split is set against train, and "
            + ("no record is in train." if not seen else "they are the same records.")
            + " Give train a share in task.fractions, and report another split: splits=[test]."
        )
    both = None
    if wanted.mia:
        members = [place for place, number in enumerate(numbers) if number in trained]
        elsewhere = range(len(seen)) if trained <= set(rows) else range(len(seen), len(numbers))
        texts, subjects = [e.context for e in examples], [e.subject for e in examples]
        both = sides(texts, subjects, members, elsewhere)
        check_patients(both.member, [subjects[i] for i in both.rows])
    kind, fresh, ids = _reference(config, asked, seen, len(rows))
    ends = np.cumsum([len(seen), len(rows), len(fresh)]).tolist()
    places = dict(zip(("train", "test", "reference"), map(range, [0, *ends[:2]], ends), strict=True))
    ids = (*(_answered(tokens.ids[i], data.examples[i], tokens.options) for i in numbers), *ids)
    check_lengths(ids, context(asked))
    return Records((*examples, *fresh), numbers, ids, places, kind, both)


def _numbers(config: RunConfig, asked: Plan) -> tuple[list[int], list[int], set[int]]:
    """Numbers of the examples of train and of test, and of those that a model was trained on or would be.

    Of train only what the fine-tuned model was shown, where there is one.
    """
    seen = [i for i, example in enumerate(asked.data.examples) if example.split == "train"]
    rows = asked.rows[config.inference.reported]
    shown = next((point.trained_on for point in asked.points if point.job is not None), None)
    if shown is None:
        return seen, rows, set(seen)
    if set(shown) <= set(seen):
        return sorted(shown), rows, set(shown)
    if not set(shown) <= set(rows):
        raise UserError(
            f"privacy={config.analyses.privacy.name}: finetune.split={config.finetune.split} trains on a split that is not "
            f"the reported one, {config.inference.reported}. Report it: splits=[{config.finetune.split}]."
        )
    return seen, rows, set(shown)


def _answered(ids: Sequence[int], example: Example, options: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """A prompt and the token of its right answer."""
    return (*ids, options[0 if example.label else 1][0])


def context(asked: Plan) -> int | None:
    """How many tokens the models take; None where their configuration does not say."""
    folder = asked.opened.checkpoints[0].folder
    return json.loads((folder / "config.json").read_text()).get("max_position_embeddings")


def _reference(config: RunConfig, asked: Plan, seen: Sequence[int], count: int):
    """What the reference is, its examples and their token ids: as many as are reported on."""
    given, kind = config.task.call.keywords, config.analyses.privacy.reference
    generated = given.get("mimic_root") is None and "synthetic" in given
    if kind == "fresh" and not generated:
        raise UserError(
            "privacy.reference=fresh: only the synthetic hospital can admit new patients, and this source is none. Use "
            "privacy.reference=resampled."
        )
    if (kind or ("fresh" if generated else "resampled")) == "resampled":
        examples = _resampled(config, [asked.data.examples[i] for i in seen], count)
        return "resampled", examples, tokens_of(config, asked, examples)
    synthetic = given["synthetic"] | {"seed": given["synthetic"]["seed"] + _ANOTHER}
    fresh = session.task_data(
        Call(config.task.call.target, json.dumps(given | {"synthetic": synthetic}, sort_keys=False))
    )
    examples = [example for example in fresh.examples if example.split == config.inference.reported][:count]
    return "fresh", examples, tokens_of(config, asked, examples)


def _resampled(config: RunConfig, donors: Sequence[Example], count: int) -> list[Example]:
    """Examples with new records in the donors' words, each a patient of its own, with an answer drawn from theirs."""
    records = resampled([donor.context for donor in donors], count, seed=config.seed)
    labels = np.random.default_rng([config.seed, 1]).choice([donor.label for donor in donors], count)
    return [
        replace(donors[0], uid=f"new {i}", subject=f"new {i}", split="reference", context=record, label=int(label))
        for i, (record, label) in enumerate(zip(records, labels, strict=True))
    ]


def tokens_of(config: RunConfig, asked: Plan, examples: Sequence[Example]) -> list[tuple[int, ...]]:
    """The examples as tokens with their answers, written as the run's own prompts are."""
    speaker = config.merge.pivot if config.merge.spec.tokenizer == "pivot" else config.merge.base
    found = tokenise(
        load_tokenizer(asked.opened.checkpoints[0].folder),
        [(example.prefix, example.context, example.suffix) for example in examples],
        examples[0].options,
        chat=speaker.chat_template,
        limit=asked.tokens.limit,
    )
    if found.cut:
        raise UserError(
            f"privacy={config.analyses.privacy.name}: {found.cut} of {len(examples)} records made for comparison are longer "
            f"than {asked.tokens.limit} tokens. Set scoring.max_tokens higher, or shorten the text (task.sections)."
        )
    return [_answered(row, example, found.options) for row, example in zip(found.ids, examples, strict=True)]


def neighbours_of(config: RunConfig, asked: Plan, records: Records) -> list[tuple[int, ...]]:
    """The neighbours of members and non-members, record after record, in tokens."""
    own = [records.examples[i] for i in records.sides.rows]
    words = vocabulary([example.context for example in own])
    examples = [
        replace(example, context=other)
        for example in own
        for other in neighbours(example.context, words, config.analyses.privacy.neighbours, seed=config.seed)
    ]
    return tokens_of(config, asked, examples)
