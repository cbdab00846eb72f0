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
from patientdx.evaluation.config.settings import MERGED, MergeSpec, Settings
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
from patientdx.training.build import Job

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


def plan(settings: Settings) -> Plan:
    """The run of these settings; UserError where parents, task or prompts will not do. Reads no weights but hashes."""
    opened = parents_of(settings.merge_spec, settings.cache) if settings.model == MERGED else None
    data = session.task_data(settings.task)
    _check_rows(settings, data)
    rows = {name: [i for i, e in enumerate(data.examples) if e.split == name] for name in settings.splits}
    tokens, points, keys, wordings = None, (), {}, ()
    if opened is not None:
        names = [model.name for model in settings.merge_spec.models]
        folders = [one.folder for one in opened.checkpoints]
        contamination.refuse(zip(names, folders, strict=True), data, settings.splits)
        tokens = session.prompts(*asking_of(settings, opened))
        points = (*_points(settings, opened), *_finetuned(settings, opened, data))
        for point in points:
            for split in settings.splits:
                keys[point.role, split] = fingerprint(_question(settings, point, opened, data, tokens, split))
        wordings = tuple(_wordings(settings, points[0], opened, data))
    for point in _baselines(settings, data):
        points += (point,)
        keys |= {
            (point.role, split): fingerprint(point.identity | {"scored": _digest(data, rows[split])})
            for split in _unseen(settings)
        }
    clinical = {"version": EVALUATION, "groups": dict(data.groups)} if settings.clinical else None
    key = fingerprint(
        {"keys": sorted(keys.values()), "method": settings.method, "weight": settings.weight, "seed": settings.seed,
         "task": settings.task_name, "data": data.fingerprint, "metrics": settings.metrics,
         "resamples": settings.resamples, "level": settings.level, "clinical": clinical,
         "wordings": [wording.key for wording in wordings],
         "parents": [] if opened is None else [model.name for model in settings.merge_spec.models]}
        | _searched(settings)
        # Which split is reported is the order's last word; in their own order it says nothing new.
        | ({} if list(settings.splits) == sorted(settings.splits, key=SPLITS.index) else {"splits": settings.splits})
    )  # fmt: skip
    return Plan(opened, data, tokens, points, rows, keys, key, wordings)


def _check_rows(settings: Settings, data: TaskData) -> None:
    """UserError where a split to score lacks an outcome; of other tasks than yes/no ones, where it lacks rows."""
    if data.kind != settings.kind:
        raise UserError(f"task.kind={settings.kind}, but {settings.task.target} makes a task of kind {data.kind}.")
    if data.kind == CHOICE:
        check_splits([(example.split, example.label) for example in data.examples], settings.splits)
        return
    if data.kind == RANK:
        check_names([name for name, _ in settings.metrics], data.ranking.depth)
        # What the intervals draw: queries, or the patients that they are about.
        count = Counter(split for split, _ in {(example.split, example.subject) for example in data.examples})
    else:
        count = Counter(example.split for example in data.examples)
    few = [split for split in settings.splits if count[split] < 2]
    if few:
        there = ", ".join(f"{split} {n}" for split, n in count.items()) or "none"
        raise UserError(
            f"task={settings.task_name} has fewer than 2 questions in {', '.join(few)}; it has {there}. Give files of "
            "that split, a share for it in task.fractions, or other splits, as in splits=[test]."
        )


def _searched(settings: Settings) -> dict[str, Any]:
    """How λ was found, in a run's fingerprint; nothing where it was given."""
    if settings.search is None:
        return {}
    return {"search": [settings.search.call.target, settings.search.call.arguments]}


def folder_name(settings: Settings, key: str) -> str:
    """Name of the result folder of the run with fingerprint `key`."""
    weight = "" if settings.weight is None else f"_lambda={label(settings.weight)}"
    return f"{settings.task_name}_{settings.method}{weight}_{key[:8]}"


def asking_of(settings: Settings, opened: Parents) -> tuple[Path, bool, Call, int]:
    """Whose tokenizer, whether it is a chat, of what, how long: what prompts are made by."""
    speaker = settings.pivot if settings.tokenizer == "pivot" else settings.base
    return opened.checkpoints[0].folder, speaker.chat_template, settings.task, settings.max_tokens


def _wordings(settings: Settings, point: System, opened: Parents, data: TaskData) -> Iterator[Wording]:
    """The reported split in every other wording of the task, where they are wanted."""
    if settings.probes and not data.prompt_variants:
        raise UserError(
            f"probes=true asks the question of task={settings.task_name} in other words, and it has none. Leave probes "
            "out, or use a task that has."
        )
    for probe in data.prompt_variants if settings.probes else ():
        tokens = session.reworded(*asking_of(settings, opened), probe.name, settings.reported)
        asked = _question(settings, point, opened, data, tokens, settings.reported)
        yield Wording(probe, tokens, fingerprint(asked))


def _baselines(settings: Settings, data: TaskData) -> Iterator[System]:
    """The tabular models to fit. Where nobody asked for them they are left out if there is nothing to fit them on."""
    names = ", ".join(name for name, _ in settings.baselines)
    if not names or (not settings.needs_features and (data.features is None or not _unseen(settings))):
        return
    if data.features is None:
        raise UserError(
            f"{names}: a tabular model is fitted on numbers, and task={settings.task_name} gives none. Leave model and "
            "baselines out, or use a task that has features."
        )
    if not _unseen(settings):
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
        raise UserError(f"{names}: these features of task={settings.task_name} hold infinite values: {found}.")
    contamination = _digest(data, train)
    for name, call in settings.baselines:
        identity = {"tabular": TABULAR, "model": call.target, "arguments": call.arguments, "train": contamination}
        if "seed" in inspect.signature(call.function).parameters:
            identity["seed"] = settings.seed
        yield System(name, name, None, identity, None, call)


def _unseen(settings: Settings) -> tuple[str, ...]:
    """The splits to score that no tabular model was fitted on."""
    return tuple(split for split in settings.splits if split != "train")


def _digest(data: TaskData, rows: Sequence[int]) -> str:
    """sha256 of features and labels of some rows, in their order."""
    values = np.ascontiguousarray(data.features.values[rows], dtype=np.float64)
    values[np.isnan(values)] = np.nan  # NaN has many bit patterns
    digest = hashlib.sha256(repr((data.features.names, values.shape, [data.examples[i].label for i in rows])).encode())
    digest.update(values.tobytes())
    return digest.hexdigest()


def _points(settings: Settings, opened: Parents) -> tuple[System, ...]:
    """The models to score. An end of the curve is its parent: it has the parent's identity, and its scores."""
    merge_spec = settings.merge_spec
    base, pivot = ({"parent": content} for content in opened.hashes[:2])
    points = [System("merged", settings.merge_name, settings.weight, _identity(settings, opened), merge_spec)]
    if settings.parents:
        pair = MergeSpec((settings.base, settings.pivot), _LINE, tokenizer=merge_spec.tokenizer)
        points += [System("base", None, 0.0, base, pair), System("pivot", None, 1.0, pivot, pair)]
    return tuple(points)


def _finetuned(settings: Settings, opened: Parents, data: TaskData) -> Iterator[System]:
    """The fine-tuned model, where one is asked for. λ is among what it depends on if it starts from the merge."""
    if settings.finetune is None:
        return
    parents = {"base": {"parent": opened.hashes[0]}, "pivot": {"parent": opened.hashes[1]}}
    start = parents.get(settings.finetune.init_from) or _identity(settings, opened)
    asking = asking_of(settings, opened)
    job = finetuned.job(settings, data, asking, start, extra=planted_texts(settings, data, asking))
    members = tuple(finetuned.rows(settings.finetune, data))
    title = finetuned.title(settings)
    yield System(finetuned.ROLE, title, None, {"finetuned": job.key}, None, job=job, trained_on=members)


def _identity(settings: Settings, opened: Parents) -> dict[str, Any]:
    """What the merged model's answers depend on: the parent's where it is one, else all that it is made of."""
    merge = settings.merge
    ends = method_spec(merge.function).exact_ends
    # With further parents only the base is an end.
    if ends is not None and (settings.weight == 0.0 or (settings.weight == 1.0 and not settings.extra)):
        return {"parent": opened.hashes[ends[int(settings.weight)]]}
    found = {"merge": merge.target, "arguments": merge.arguments, "weight": settings.weight,
             "parents": list(opened.hashes)}  # fmt: skip
    if opened.ancestor is not None:
        found["ancestor"] = content_hash(opened.ancestor, settings.cache)
    if "seed" in inspect.signature(merge.function).parameters:
        found["seed"] = settings.seed
    if settings.tokenizer is not None:
        found["tokenizer"] = settings.tokenizer
    return found


def _question(settings: Settings, point: System, opened: Parents, data, tokens, split: str) -> dict[str, Any]:
    """All that the scores of one model on one split depend on. The base lends architecture and tokenizer to all."""
    version = GENERATION_VERSION if data.kind == GENERATE else ANSWERS
    return {
        "scoring": SCORING,
        "model": point.identity,
        "base": opened.hashes[0],
        "dtype": settings.dtype,
        "device": session.accelerator(settings.device).device.type,
        "batch_tokens": settings.batch_tokens,
        "task": data.fingerprint,
        "split": split,
        "tokens": tokens.fingerprint,
    } | ({} if data.kind == CHOICE else {"kind": [data.kind, version]} | _said_by(settings))


def _said_by(settings: Settings) -> dict[str, Any]:
    """What generates answers, where it is not transformers."""
    return {} if settings.generator == "transformers" else {"generator": settings.generator}
