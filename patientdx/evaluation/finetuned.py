"""The fine-tuned comparator of a run: what it is trained on, where it starts, and what is recorded of it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from patientdx.core.errors import UserError
from patientdx.core.functions import Call
from patientdx.evaluation.config.finetune import FinetuneConfig
from patientdx.evaluation.config.merge import MergeSpec
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.config.section import MERGED
from patientdx.evaluation.inference import save_marked
from patientdx.evaluation.kinds import TaskContext, TrainingPrompts, too_long
from patientdx.evaluation.leakage.canaries import planted_texts
from patientdx.evaluation.prompting import prompts_of
from patientdx.evaluation.session import Session
from patientdx.evaluation.store import write_json
from patientdx.merge.schedule import label
from patientdx.training.build import Trained, build, job_folder, training_record
from patientdx.training.job import Job
from patientdx.training.texts import Text, drawn, text

log = logging.getLogger(__name__)
COST = "finetune.json"
_ALONE = Call("patientdx.merge.none.none", "{}")


def rows(finetune: FinetuneConfig, context: TaskContext) -> list[int]:
    """Numbers of the examples that the comparator is trained on; UserError where they do not suffice."""
    numbers = _draw_rows(finetune, context, finetune.split, finetune.examples, "examples")
    _pilot_rows(finetune, context)
    return numbers


def job(
    session: Session,
    config: RunConfig,
    context: TaskContext,
    start: Mapping[str, Any],
    *,
    rows: Sequence[int],
    with_canaries: bool = False,
) -> Job:
    """The training on some examples; UserError where lengths do not suffice.

    start: what the model before training depends on. with_canaries: train on the run's canaries too.
    """
    finetune, spec = config.finetune_config, context.spec
    training = TrainingPrompts(finetune, context.data, spec, _prompts(session, finetune, context))
    pilot = _pilot_rows(finetune, context)
    loss = finetune.hyperparameters.loss

    def texts(numbers: Sequence[int]) -> tuple[Text, ...]:
        return tuple(text(*pair, loss) for pair in context.kind.targets(training, numbers))

    options = training.prompts.options if context.kind.gives_probability else ()
    return Job(
        start=json.dumps(start, sort_keys=True),
        hyperparameters=finetune.hyperparameters,
        texts=(*texts(rows), *(planted_texts(config, context) if with_canaries else ())),
        pilot=texts(pilot),
        labels=tuple(_class_of(context.data.examples[i]) for i in pilot),
        options=options,
        open_data=context.data.open_data,
        device=session.accelerator(config.inference.device).device.type,
        threads=torch.get_num_threads(),
    )


def title(config: RunConfig) -> str:
    """The comparator in a few words, for the column of methods: lora(base) 64 record."""
    finetune = config.finetune_config
    start = finetune.init_from
    if start == MERGED:
        start = config.merge_config.name + ("" if config.weight is None else f" λ={label(config.weight)}")
    hyperparameters = finetune.hyperparameters
    words = [f"{hyperparameters.method}({start})"]
    words += [] if finetune.examples is None else [str(finetune.examples)]
    words += [] if hyperparameters.steps is None else [f"{hyperparameters.steps} steps"]
    words += ["record"] if hyperparameters.loss == "record" else []
    words += [f"on {finetune.split}"] if finetune.split != "train" else []
    return " ".join(words)


def trained(session: Session, config: RunConfig, job: Job) -> Trained:
    """The comparator, trained now unless it is in the cache."""
    return build(job, lambda: start_folder(session, config, job), config.cache)


def merge_spec(session: Session, config: RunConfig, job: Job) -> MergeSpec:
    """The comparator as a merge of itself alone: what the live model is filled with."""
    return MergeSpec((trained(session, config, job).source,), _ALONE)


def start_folder(session: Session, config: RunConfig, job: Job) -> Path:
    """The folder of the model before training: a parent's own, or a merge written to the cache."""
    spec, weight, start = config.merge_config.spec, config.weight, json.loads(job.start)
    if config.merge_config.spec.tokenizer is None and "parent" in start:
        parents = session.parents(spec, config.cache)
        return parents.checkpoints[parents.hashes.index(start["parent"])].folder
    target = config.cache / "models" / f"start-{hashlib.sha256(job.start.encode()).hexdigest()[:16]}"
    if target.is_dir():
        return target
    if config.finetune_config.init_from != MERGED:
        spec = session.parents(spec, config.cache).spec_of(config.finetune_config.init_from, spec)
        weight = float(config.finetune_config.init_from == "pivot")
    return save_marked(session.recipe(spec, weight, config.cache), spec, target, config.cache)


def provenance(config: RunConfig, job: Job, members: Sequence[int], context: TaskContext) -> dict[str, Any]:
    """What was trained on what, and what that took; no id."""
    training = training_record(job, config.cache) or {}
    events = (
        {"events": sum(context.data.examples[i].label or 0 for i in members)} if context.kind.gives_probability else {}
    )
    return {
        **config.finetune_config.model_dump(),
        "start": json.loads(job.start),
        "fingerprint": job.key,
        "n": len(members),
        **events,
        "training": {
            key: value for key, value in training.items() if key not in ("start", "hyperparameters", "fingerprint")
        }
        or None,
    }


def write_cost(config: RunConfig, job: Job, folder: Path, merging: float | None) -> None:
    """What training took, as finetune.json and in the log, beside the `merging` seconds of the run's own model."""
    training = training_record(job, config.cache)
    if training is None:  # its responses were kept, it was not
        return
    write_json(training | {"merging_seconds": merging}, folder / COST)
    log.info("%s", cost(title(config), training, merging))
    log.info("fine-tuned model: %s", job_folder(job, config.cache))


def cost(name: str, training: Mapping[str, Any], merging: float | None) -> str:
    """What training took in one line, against merging."""
    words = f"{name}: {training['steps']} steps, {training['tokens']} tokens, {training['seconds']:.1f} s"
    if merging:
        words += f" ({training['seconds'] / merging:.0f} times the {merging:.2f} s of merging)"
    words += f", {training['peak_memory_bytes'] / 1e9:.2f} GB of memory at its peak"
    if training["peak_gpu_memory_bytes"] is not None:
        words += f", {training['peak_gpu_memory_bytes'] / 1e9:.2f} GB of the GPU's"
    if training["energy_joules"] is not None:
        words += f", {training['energy_joules'] / 3600:.2f} Wh of the whole processor"
    return words


def _pilot_rows(finetune: FinetuneConfig, context: TaskContext) -> list[int]:
    """The examples that training is stopped by; none without patience."""
    if finetune.hyperparameters.patience is None:
        return []
    return _draw_rows(finetune, context, "pilot", finetune.pilot_examples, "pilot_examples")


def _draw_rows(finetune: FinetuneConfig, context: TaskContext, split: str, count: int | None, key: str) -> list[int]:
    """So many examples of a split; of an outcome with two values with both of them."""
    name, data, kind = f"finetune={finetune.hyperparameters.method}", context.data, context.kind
    if not kind.has_targets(data):
        raise UserError(
            f"{name}: task={data.name} has no answers to teach. Choose a task of yes/no questions, of options, or of "
            "answers that are written out (task=mortality, medqa, dialogue_to_section)."
        )
    there = [i for i, example in enumerate(data.examples) if example.split == split]
    if not there:
        hint = ", or set finetune.patience=null" if split == "pilot" else ""
        hint = " or task.train_limit" if split == "train" and not kind.gives_probability else hint
        raise UserError(f"{name}: task={data.name} has no examples in the {split} split. Change task.fractions{hint}.")
    if count is not None and count > len(there):
        raise UserError(f"finetune.{key}={count}: the {split} split has {len(there)}. Give no more, or null for all.")
    labels = [_class_of(data.examples[i]) for i in there]
    order = drawn([data.examples[i].uid for i in there], labels, finetune.hyperparameters.seed)
    numbers = [there[position] for position in order[:count]]
    positives = sum(labels[position] for position in order[:count])
    if kind.gives_probability and positives in (0, len(numbers)):
        hint = "finetune.patience=null" if split == "pilot" else f"another task.fractions or a higher finetune.{key}"
        raise UserError(
            f"{name}: both outcomes are needed, but of the {len(numbers)} examples of the {split} split {positives} "
            f"are positive. Use more stays, {hint}."
        )
    return numbers


def _class_of(example: Any) -> int:
    """What a draw is stratified by: the label, or the number of the right option."""
    return example.label if example.label is not None else example.gold or 0


def _prompts(session: Session, finetune: FinetuneConfig, context: TaskContext) -> Any:
    """The prompts of scoring, but with their answers no longer than configured."""
    spec, longest = context.spec, finetune.max_tokens
    if longest is None:
        return prompts_of(session, context.kind, spec)
    limit = context.kind.training_limit(longest, spec.max_tokens)
    try:
        return prompts_of(session, context.kind, replace(spec, max_tokens=limit, context=None))
    except UserError as error:
        raise too_long(finetune, longest, error) from None
