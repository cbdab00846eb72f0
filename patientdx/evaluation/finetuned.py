"""The fine-tuned comparator of a run: what it is trained on, where it starts, and what is said of it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from patientdx.checkpoints.patient_mark import mark
from patientdx.checkpoints.save import save
from patientdx.checkpoints.source import ModelSource, holds_patients
from patientdx.core.atomic_io import write_atomically
from patientdx.core.errors import UserError
from patientdx.core.functions import Call
from patientdx.evaluation import session
from patientdx.evaluation.config.finetune import FinetuneConfig
from patientdx.evaluation.config.sections import MergeSpec, RunConfig
from patientdx.evaluation.kinds.names import CHOICE, GENERATE, MULTIPLE_CHOICE, TAUGHT
from patientdx.evaluation.merge_inputs import parents_of, recipe
from patientdx.evaluation.store import write_json
from patientdx.lm.load import load_tokenizer
from patientdx.lm.multiple_choice import OptionPrompts, tokenise_options
from patientdx.lm.prompts import Prompts
from patientdx.merge.schedule import label
from patientdx.tasks.example import TaskData
from patientdx.training.build import Trained, build, draw_loss, job_folder, training_record
from patientdx.training.job import Job
from patientdx.training.texts import Text, drawn, text

log = logging.getLogger(__name__)
ROLE = "finetuned"
COST, LOSS = "finetune.json", "finetune_loss.png"
_ALONE = Call("patientdx.merge.none.none", "{}")
_LINE = Call("patientdx.merge.linear.linear", "{}")
_UNBOUNDED = 1 << 30  # tokens, where a model's configuration names no longest context


def rows(asked: FinetuneConfig, data: TaskData) -> list[int]:
    """Numbers of the examples that the comparator is trained on; UserError where they will not do."""
    found = _drawn(asked, data, asked.split, asked.examples, "examples")
    if asked.hyperparameters.patience is not None:
        _drawn(asked, data, "pilot", asked.pilot_examples, "pilot_examples")
    return found


def job(
    config: RunConfig,
    data: TaskData,
    asking: tuple[Path, bool, Call, int],
    start: Mapping[str, Any],
    *,
    members: Sequence[int] | None = None,
    extra: Sequence[Text] = (),
) -> Job:
    """The training that the settings ask for; UserError where task, rows or lengths will not do.

    asking: see `plan`; prompts are made as for scoring. start: what the model before training depends on.
    members: numbers of the examples to train on, in place of those that are asked for; extra: texts beside them.
    """
    asked = config.finetune
    found = rows(asked, data) if members is None else list(members)
    tokens = _prompts(asked, data, asking)
    looked = (
        []
        if asked.hyperparameters.patience is None
        else _drawn(asked, data, "pilot", asked.pilot_examples, "pilot_examples")
    )

    def texts(numbers: Sequence[int]) -> tuple[Text, ...]:
        taught = _taught(asked, data, asking, tokens, numbers)
        return tuple(text(*one, asked.hyperparameters.loss) for one in taught)

    device = session.accelerator(config.inference.device).device.type
    return Job(
        start=json.dumps(start, sort_keys=True),
        hyperparameters=asked.hyperparameters,
        texts=(*texts(found), *extra),
        pilot=texts(looked),
        labels=tuple(data.examples[i].label or 0 for i in looked),
        options=tokens.options if data.kind == CHOICE else (),
        open_data=data.open_data,
        device=device,
        threads=torch.get_num_threads(),
    )


def title(config: RunConfig) -> str:
    """The comparator in a few words, for the column of methods: lora(base) 64 record."""
    asked = config.finetune
    start = asked.init_from
    if asked.init_from == "merged":
        start = config.merge.name + ("" if config.weight is None else f" λ={label(config.weight)}")
    words = [f"{asked.hyperparameters.method}({start})"]
    words += [] if asked.examples is None else [str(asked.examples)]
    words += [] if asked.hyperparameters.steps is None else [f"{asked.hyperparameters.steps} steps"]
    words += ["record"] if asked.hyperparameters.loss == "record" else []
    words += [f"on {asked.split}"] if asked.split != "train" else []
    return " ".join(words)


def trained(config: RunConfig, job: Job) -> Trained:
    """The comparator, trained now unless it is in the cache."""
    return build(job, lambda: start_of(config, job), config.cache)


def merge_spec(config: RunConfig, job: Job) -> MergeSpec:
    """The comparator as a merge of itself alone: what the live model is filled with."""
    return MergeSpec((trained(config, job).source,), _ALONE)


def start_of(config: RunConfig, job: Job) -> Path:
    """The folder of the model before training: a parent's own, or a merge written to the cache."""
    opened, of = parents_of(config.merge.spec, config.cache), config.finetune.init_from
    start = json.loads(job.start)
    if config.merge.spec.tokenizer is None and "parent" in start:
        return opened.checkpoints[opened.hashes.index(start["parent"])].folder
    target = config.cache / "models" / f"start-{hashlib.sha256(job.start.encode()).hexdigest()[:16]}"
    if target.is_dir():
        return target
    merge_spec, weight = config.merge.spec, config.weight
    if of != "merged":
        pair = (config.merge.base, config.merge.pivot)
        merge_spec, weight = MergeSpec(pair, _LINE, tokenizer=config.merge.spec.tokenizer), float(of == "pivot")
    folder = save(
        recipe(merge_spec, weight, config.cache),
        target,
        cache=config.cache,
        sources=sources_of(merge_spec),
        tokenizer=merge_spec.tokenizer,
    )
    if any(holds_patients(model) for model in merge_spec.models):
        mark(folder)
    return folder


def sources_of(merge_spec: MergeSpec) -> tuple[ModelSource, ...]:
    """The parents, and their ancestor where the method has one."""
    return (*merge_spec.models, *(() if merge_spec.ancestor is None else (merge_spec.ancestor,)))


def said(config: RunConfig, job: Job, members: Sequence[int], data: TaskData) -> dict[str, Any]:
    """For the record: what was trained on what, and what that took; no id."""
    facts = training_record(job, config.cache) or {}
    return {
        **asdict(config.finetune),
        "start": json.loads(job.start),
        "fingerprint": job.key,
        "n": len(members),
        **({"events": sum(data.examples[i].label for i in members)} if data.kind == CHOICE else {}),
        "training": {
            key: value for key, value in facts.items() if key not in ("start", "hyperparameters", "fingerprint")
        }
        or None,
    }


def leave(config: RunConfig, job: Job, folder: Path, merging: float | None) -> None:
    """What training took, in a result folder and on the screen, beside the `merging` seconds of the run's own model."""
    facts = training_record(job, config.cache)
    if facts is None:  # its answers were kept, it was not
        return
    write_json(facts | {"merging_seconds": merging}, folder / COST)
    write_atomically(folder / LOSS, lambda aside: draw_loss(facts, aside))
    log.info("%s", cost(title(config), facts, merging))
    log.info("fine-tuned model: %s", job_folder(job, config.cache))


def cost(name: str, facts: Mapping[str, Any], merging: float | None) -> str:
    """What training took in one line, against merging."""
    words = f"{name}: {facts['steps']} steps, {facts['tokens']} tokens, {facts['seconds']:.1f} s"
    if merging:
        words += f" ({facts['seconds'] / merging:.0f} times the {merging:.2f} s of merging)"
    words += f", {facts['peak_memory_bytes'] / 1e9:.2f} GB of memory at its peak"
    if facts["peak_gpu_memory_bytes"] is not None:
        words += f", {facts['peak_gpu_memory_bytes'] / 1e9:.2f} GB of the GPU's"
    if facts["energy_joules"] is not None:
        words += f", {facts['energy_joules'] / 3600:.2f} Wh of the whole processor"
    return words


def _drawn(asked: FinetuneConfig, data: TaskData, split: str, wanted: int | None, key: str) -> list[int]:
    """So many examples of a split; of yes/no questions with both outcomes."""
    name = f"finetune={asked.hyperparameters.method}"
    _check_answers(name, data)
    there = [i for i, example in enumerate(data.examples) if example.split == split]
    if not there:
        hint = ", or set finetune.patience=null" if split == "pilot" else ""
        hint = " or task.train_limit" if split == "train" and data.kind != CHOICE else hint
        raise UserError(f"{name}: task={data.name} has no examples in the {split} split. Change task.fractions{hint}.")
    if wanted is not None and wanted > len(there):
        raise UserError(f"finetune.{key}={wanted}: the {split} split has {len(there)}. Give no more, or null for all.")
    labels = [data.examples[i].label or data.examples[i].gold or 0 for i in there]
    order = drawn([data.examples[i].uid for i in there], labels, asked.hyperparameters.seed)
    found = [there[place] for place in order[:wanted]]
    positives = sum(data.examples[i].label or 0 for i in found)
    if data.kind == CHOICE and positives in (0, len(found)):
        hint = "finetune.patience=null" if split == "pilot" else f"another task.fractions or a higher finetune.{key}"
        raise UserError(
            f"{name}: both outcomes are needed, but of the {len(found)} examples of the {split} split {positives} are "
            f"positive. Use more stays, {hint}."
        )
    return found


def _check_answers(name: str, data: TaskData) -> None:
    """UserError where the task has no right answer to teach: rules judge it, or it has candidates in place of answers."""
    answered = data.kind in TAUGHT and bool(data.examples)
    if answered and data.kind == GENERATE:
        answered = any(example.reference for example in data.examples)
    elif answered:
        answered = len(data.examples[0].options) > 1
    if not answered:
        raise UserError(
            f"{name}: task={data.name} has no answers to teach. Choose a task of yes/no questions, of options, or of "
            "answers that are written out (task=mortality, medqa, dialogue_to_section)."
        )


def _taught(
    asked: FinetuneConfig,
    data: TaskData,
    asking: tuple[Path, bool, Call, int],
    tokens: Prompts | OptionPrompts,
    numbers: Sequence[int],
) -> Iterator[tuple[tuple[int, ...], int | tuple[int, ...]]]:
    """Prompt and right answer of some examples as token ids.

    A task of options teaches what is scored, the right option; one of free answers the reference and the token that
    ends it, behind the very prompt that is continued in scoring, cut where the two do not fit together.
    """
    if data.kind == CHOICE:
        # Option 0 is the positive answer; the first way of writing an answer is the one that is taught.
        answers = {1: tokens.options[0][0], 0: tokens.options[1][0]}
        yield from ((tokens.ids[i], answers[data.examples[i].label]) for i in numbers)
    elif data.kind == MULTIPLE_CHOICE:
        yield from ((tokens.ids[i], tokens.continuations[i][data.examples[i].gold]) for i in numbers)
    else:
        yield from _references(asked, data, asking, tokens, numbers)


def _references(
    asked: FinetuneConfig, data: TaskData, asking, tokens: Prompts, numbers: Sequence[int]
) -> Iterator[tuple]:
    folder, chat, _, _ = asking
    tokenizer, chat = load_tokenizer(folder), chat if data.chat is None else data.chat
    longest = json.loads((folder / "config.json").read_text()).get("max_position_embeddings") or _UNBOUNDED
    longest = min(longest, asked.max_tokens or longest)
    end = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    examples = [data.examples[i] for i in numbers]
    if silent := sum(not example.reference for example in examples):
        raise UserError(
            f"finetune={asked.hyperparameters.method}: {silent} of {len(examples)} examples of task={data.name} have no "
            "reference to teach. Leave them out of its files."
        )
    parts = [(example.prefix, example.context, example.suffix) for example in examples]
    try:
        # Its limit leaves out the last token of an option, which is read by nobody; here the end comes behind it.
        own = tokenise_options(
            tokenizer, parts, [[example.reference] for example in examples], chat=chat, limit=longest - 2
        )
    except UserError as fault:
        most = max(len(ids) for ids in tokenizer([example.reference for example in examples])["input_ids"])
        raise _too_short(asked, longest, fault, f"; the longest answer has {most}") from None
    for i, ids, (answer,) in zip(numbers, own.ids, own.continuations, strict=True):
        fits = len(tokens.ids[i]) + len(answer) + len(end) <= longest
        yield tokens.ids[i] if fits else ids, (*answer, *end)


def _too_short(asked: FinetuneConfig, longest: int, fault: UserError, more: str = "") -> UserError:
    """What to say where a prompt and its answer do not fit, whatever is cut of the record."""
    found = str(fault).partition(". ")[0] + more
    if asked.max_tokens is None:
        return UserError(
            f"finetune={asked.hyperparameters.method}: a question and its reference are longer than the model's "
            f"context of {longest} tokens ({found}). Leave such examples out, or use a model with a longer context."
        )
    return UserError(
        f"finetune.max_tokens={asked.max_tokens} is too small for the question, its answer and something of a "
        f"record ({found}). Set it higher, or leave it out: prompts are then as long as in scoring."
    )


def _prompts(asked: FinetuneConfig, data: TaskData, asking: tuple[Path, bool, Call, int]) -> Prompts | OptionPrompts:
    """The prompts as scoring has them, but no longer than asked for with their answer."""
    folder, chat, task, longest = asking
    if asked.max_tokens is None or data.kind == GENERATE:  # there `_references` sees to it
        return session.prompts(*asking)
    try:
        return session.prompts(folder, chat, task, min(longest, asked.max_tokens - 1))
    except UserError as fault:
        raise _too_short(asked, asked.max_tokens, fault) from None
