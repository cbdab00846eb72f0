"""What a run will ask, before anything is asked: its models, the rows of each split, a fingerprint for each answer."""

from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patientdx.checkpoints.identity import content_hash
from patientdx.core.errors import UserError
from patientdx.core.functions import Call
from patientdx.evaluation import contamination, finetuned, session
from patientdx.evaluation.config.sections import MergeSpec, RunConfig
from patientdx.evaluation.kinds.names import CHOICE, GENERATE, RANK
from patientdx.evaluation.leakage.planted import planted_texts
from patientdx.evaluation.merge_inputs import Parents, parents_of
from patientdx.evaluation.store import fingerprint
from patientdx.lm.prompts import Prompts
from patientdx.merge.method import method_spec
from patientdx.merge.schedule import Schedule, label
from patientdx.metrics.retrieval import check_names
from patientdx.records.splits import SPLITS, check_splits
from patientdx.tasks.example import PromptVariant, TaskData
from patientdx.training.job import Job

# Part of every fingerprint: raise it when the same inputs come to give other scores.
SCORING = 2

# The same for the answers to questions that are not yes/no, and for those that are written out.
ANSWERS = 1
GENERATION_VERSION = 2

# The same for tabular models, and for what clinical.json holds.
TABULAR = 1
EVALUATION = 1

# A parent is an end of the straight line, which needs no statistics.
_LINE = Call("patientdx.merge.linear.linear", "{}")


@dataclass(frozen=True)
class System:
    """One model of a run: `method` is None for a parent; `identity` is what its answers depend on.

    made_of: what its weights are made of; `weight` the λ. tabular: what makes a tabular model, which has neither.
    job: what makes a fine-tuned model, which has neither; trained_on: the numbers of the examples that it was shown.
    """

    role: str
    method: str | None
    weight: Schedule | None
    identity: dict[str, Any]
    merge_spec: MergeSpec | None
    tabular: Call | None = None
    job: Job | None = None
    trained_on: tuple[int, ...] = ()


@dataclass(frozen=True)
class Wording:
    """The reported split's prompts with the question put another way, and the fingerprint of the run's answers."""

    probe: PromptVariant
    tokens: Prompts
    key: str


@dataclass(frozen=True)
class Plan:
    """One run: `rows` are example numbers by split, `keys` fingerprints of scores by (role, split), `key` the run's.

    The first of `points` is the model that the run is about. `opened` and `tokens` are None without a language model.
    """

    opened: Parents | None
    data: TaskData
    tokens: Prompts | None
    points: tuple[System, ...]
    rows: dict[str, list[int]]
    keys: dict[tuple[str, str], str]
    key: str
    wordings: tuple[Wording, ...] = ()


def plan(config: RunConfig) -> Plan:
    """The run of these settings; UserError where parents, task or prompts will not do. Reads no weights but hashes."""
    opened = parents_of(config.merge.spec, config.cache) if config.merge is not None else None
    data = session.task_data(config.task.call)
    _check_rows(config, data)
    rows = {name: [i for i, e in enumerate(data.examples) if e.split == name] for name in config.inference.splits}
    tokens, points, keys, wordings = None, (), {}, ()
    if opened is not None:
        names = [model.name for model in config.merge.spec.models]
        folders = [one.folder for one in opened.checkpoints]
        contamination.refuse(zip(names, folders, strict=True), data, config.inference.splits)
        tokens = session.prompts(*asking_of(config, opened))
        points = (*_points(config, opened), *_finetuned(config, opened, data))
        for point in points:
            for split in config.inference.splits:
                keys[point.role, split] = fingerprint(_question(config, point, opened, data, tokens, split))
        wordings = tuple(_wordings(config, points[0], opened, data))
    for point in _baselines(config, data):
        points += (point,)
        keys |= {
            (point.role, split): fingerprint(point.identity | {"scored": _digest(data, rows[split])})
            for split in _unseen(config)
        }
    clinical = {"version": EVALUATION, "groups": dict(data.groups)} if config.analyses.clinical else None
    key = fingerprint(
        {"keys": sorted(keys.values()), "method": config.method, "weight": config.weight, "seed": config.seed,
         "task": config.task.name, "data": data.fingerprint, "metrics": config.task.metrics,
         "resamples": config.bootstrap.resamples, "level": config.bootstrap.level, "clinical": clinical,
         "wordings": [wording.key for wording in wordings],
         "parents": [] if opened is None else [model.name for model in config.merge.spec.models]}
        | _searched(config)
        # Which split is reported is the order's last word; in their own order it says nothing new.
        | ({} if list(config.inference.splits) == sorted(config.inference.splits, key=SPLITS.index) else {"splits": config.inference.splits})
    )  # fmt: skip
    return Plan(opened, data, tokens, points, rows, keys, key, wordings)


def _check_rows(config: RunConfig, data: TaskData) -> None:
    """UserError where a split to score lacks an outcome; of other tasks than yes/no ones, where it lacks rows."""
    if data.kind != config.task.kind:
        raise UserError(
            f"task.kind={config.task.kind}, but {config.task.call.target} makes a task of kind {data.kind}."
        )
    if data.kind == CHOICE:
        check_splits([(example.split, example.label) for example in data.examples], config.inference.splits)
        return
    if data.kind == RANK:
        check_names([name for name, _ in config.task.metrics], data.ranking.depth)
        # What the intervals draw: queries, or the patients that they are about.
        count = Counter(split for split, _ in {(example.split, example.subject) for example in data.examples})
    else:
        count = Counter(example.split for example in data.examples)
    few = [split for split in config.inference.splits if count[split] < 2]
    if few:
        there = ", ".join(f"{split} {n}" for split, n in count.items()) or "none"
        raise UserError(
            f"task={config.task.name} has fewer than 2 questions in {', '.join(few)}; it has {there}. Give files of "
            "that split, a share for it in task.fractions, or other splits, as in splits=[test]."
        )


def _searched(config: RunConfig) -> dict[str, Any]:
    """How λ was found, in a run's fingerprint; nothing where it was given."""
    if config.search is None:
        return {}
    return {"search": [config.search.call.target, config.search.call.arguments]}


def folder_name(config: RunConfig, key: str) -> str:
    """Name of the result folder of the run with fingerprint `key`."""
    weight = "" if config.weight is None else f"_lambda={label(config.weight)}"
    return f"{config.task.name}_{config.method}{weight}_{key[:8]}"


def asking_of(config: RunConfig, opened: Parents) -> tuple[Path, bool, Call, int]:
    """Whose tokenizer, whether it is a chat, of what, how long: what prompts are made by."""
    speaker = config.merge.pivot if config.merge.spec.tokenizer == "pivot" else config.merge.base
    return opened.checkpoints[0].folder, speaker.chat_template, config.task.call, config.inference.max_tokens


def _wordings(config: RunConfig, point: System, opened: Parents, data: TaskData) -> Iterator[Wording]:
    """The reported split in every other wording of the task, where they are wanted."""
    if config.analyses.prompt_variants and not data.prompt_variants:
        raise UserError(
            f"probes=true asks the question of task={config.task.name} in other words, and it has none. Leave probes "
            "out, or use a task that has."
        )
    for probe in data.prompt_variants if config.analyses.prompt_variants else ():
        tokens = session.reworded(*asking_of(config, opened), probe.name, config.inference.reported)
        asked = _question(config, point, opened, data, tokens, config.inference.reported)
        yield Wording(probe, tokens, fingerprint(asked))


def _baselines(config: RunConfig, data: TaskData) -> Iterator[System]:
    """The tabular models to fit. Where nobody asked for them they are left out if there is nothing to fit them on."""
    names = ", ".join(name for name, _ in config.systems.baselines)
    if not names or (not config.systems.needs_features and (data.features is None or not _unseen(config))):
        return
    if data.features is None:
        raise UserError(
            f"{names}: a tabular model is fitted on numbers, and task={config.task.name} gives none. Leave model and "
            "baselines out, or use a task that has features."
        )
    if not _unseen(config):
        raise UserError(
            f"{names}: a tabular model is fitted on train, so its scores there say nothing about it. Give another "
            "split, as in splits=[test]."
        )
    train = session.train_rows(data)
    positives = sum(data.examples[i].label for i in train)
    if positives in (0, len(train)):
        raise UserError(
            f"{names}: a tabular model needs both outcomes in the train split, which has {positives} positives and "
            f"{len(train) - positives} negatives. Use more stays, another seed or other task.fractions, or do without: "
            "baselines=[]."
        )
    infinite = np.isinf(data.features.values).any(axis=0)
    if infinite.any():
        found = ", ".join(np.array(data.features.names)[infinite])
        raise UserError(f"{names}: these features of task={config.task.name} hold infinite values: {found}.")
    contamination = _digest(data, train)
    for name, call in config.systems.baselines:
        identity = {"tabular": TABULAR, "model": call.target, "arguments": call.arguments, "train": contamination}
        if "seed" in inspect.signature(call.function).parameters:
            identity["seed"] = config.seed
        yield System(name, name, None, identity, None, call)


def _unseen(config: RunConfig) -> tuple[str, ...]:
    """The splits to score that no tabular model was fitted on."""
    return tuple(split for split in config.inference.splits if split != "train")


def _digest(data: TaskData, rows: Sequence[int]) -> str:
    """sha256 of features and labels of some rows, in their order."""
    values = np.ascontiguousarray(data.features.values[rows], dtype=np.float64)
    values[np.isnan(values)] = np.nan  # NaN has many bit patterns
    digest = hashlib.sha256(repr((data.features.names, values.shape, [data.examples[i].label for i in rows])).encode())
    digest.update(values.tobytes())
    return digest.hexdigest()


def _points(config: RunConfig, opened: Parents) -> tuple[System, ...]:
    """The models to score. An end of the curve is its parent: it has the parent's identity, and its scores."""
    merge_spec = config.merge.spec
    base, pivot = ({"parent": content} for content in opened.hashes[:2])
    points = [System("merged", config.merge.name, config.weight, _identity(config, opened), merge_spec)]
    if config.systems.parents:
        pair = MergeSpec((config.merge.base, config.merge.pivot), _LINE, tokenizer=merge_spec.tokenizer)
        points += [System("base", None, 0.0, base, pair), System("pivot", None, 1.0, pivot, pair)]
    return tuple(points)


def _finetuned(config: RunConfig, opened: Parents, data: TaskData) -> Iterator[System]:
    """The fine-tuned model, where one is asked for. λ is among what it depends on if it starts from the merge."""
    if config.finetune is None:
        return
    parents = {"base": {"parent": opened.hashes[0]}, "pivot": {"parent": opened.hashes[1]}}
    start = parents.get(config.finetune.init_from) or _identity(config, opened)
    asking = asking_of(config, opened)
    job = finetuned.job(config, data, asking, start, extra=planted_texts(config, data, asking))
    members = tuple(finetuned.rows(config.finetune, data))
    title = finetuned.title(config)
    yield System(finetuned.ROLE, title, None, {"finetuned": job.key}, None, job=job, trained_on=members)


def _identity(config: RunConfig, opened: Parents) -> dict[str, Any]:
    """What the merged model's answers depend on: the parent's where it is one, else all that it is made of."""
    merge = config.merge.spec.call
    ends = method_spec(merge.function).exact_ends
    # With further parents only the base is an end.
    if ends is not None and (config.weight == 0.0 or (config.weight == 1.0 and not config.merge.spec.models[2:])):
        return {"parent": opened.hashes[ends[int(config.weight)]]}
    found = {"merge": merge.target, "arguments": merge.arguments, "weight": config.weight,
             "parents": list(opened.hashes)}  # fmt: skip
    if opened.ancestor is not None:
        found["ancestor"] = content_hash(opened.ancestor, config.cache)
    if "seed" in inspect.signature(merge.function).parameters:
        found["seed"] = config.seed
    if config.merge.spec.tokenizer is not None:
        found["tokenizer"] = config.merge.spec.tokenizer
    return found


def _question(config: RunConfig, point: System, opened: Parents, data, tokens, split: str) -> dict[str, Any]:
    """All that the scores of one model on one split depend on. The base lends architecture and tokenizer to all."""
    version = GENERATION_VERSION if data.kind == GENERATE else ANSWERS
    return {
        "scoring": SCORING,
        "model": point.identity,
        "base": opened.hashes[0],
        "dtype": config.inference.dtype,
        "device": session.accelerator(config.inference.device).device.type,
        "batch_tokens": config.inference.batch_tokens,
        "task": data.fingerprint,
        "split": split,
        "tokens": tokens.fingerprint,
    } | ({} if data.kind == CHOICE else {"kind": [data.kind, version]} | _said_by(config))


def _said_by(config: RunConfig) -> dict[str, Any]:
    """What generates answers, where it is not transformers."""
    return {} if config.inference.generator == "transformers" else {"generator": config.inference.generator}
