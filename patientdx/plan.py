"""What a run will ask, before anything is asked: its models, the rows of each split, a fingerprint for each answer."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from typing import Any

from patientdx import session
from patientdx.call import Call
from patientdx.checkpoint.hashes import content_hash
from patientdx.merge.schedule import Schedule, label
from patientdx.opening import Parents, parents
from patientdx.results import fingerprint
from patientdx.scoring.prompts import Prompts
from patientdx.settings import Ingredients, Settings
from patientdx.tasks.example import TaskData
from patientdx.tasks.records.split import check_splits

# Part of every fingerprint: raise it when the same inputs come to give other scores.
SCORING = 2


# A parent is an end of the straight line, which needs no statistics.
_LINE = Call("patientdx.merge.linear.linear", "{}")


@dataclass(frozen=True)
class Point:
    """One model of a run: `method` is None for a parent; `identity` is what its answers depend on.

    made_of: what its weights are made of; `weight` the λ.
    """

    role: str
    method: str | None
    weight: Schedule | None
    identity: dict[str, Any]
    made_of: Ingredients


@dataclass(frozen=True)
class Plan:
    """One run: `rows` are example numbers by split, `keys` fingerprints of scores by (role, split), `key` the run's."""

    opened: Parents
    data: TaskData
    tokens: Prompts
    points: tuple[Point, ...]
    rows: dict[str, list[int]]
    keys: dict[tuple[str, str], str]
    key: str


def plan(settings: Settings) -> Plan:
    """The run of these settings; Refusal where parents, task or prompts will not do. Reads no weights but hashes."""
    made_of = settings.ingredients
    opened = parents(made_of.models, settings.cache, made_of.ancestor, made_of.tokenizer)
    data = session.task_data(settings.task)
    check_splits([(example.split, example.label) for example in data.examples], settings.splits)
    speaker = settings.pivot if settings.tokenizer == "pivot" else settings.base
    tokens = session.prompts(opened.checkpoints[0].folder, speaker.chat_template, settings.task, settings.max_tokens)
    points = _points(settings, opened)
    keys = {
        (point.role, split): fingerprint(_question(settings, point, opened, data, tokens, split))
        for point in points
        for split in settings.splits
    }
    key = fingerprint(
        {"keys": sorted(keys.values()), "method": settings.merge_name, "weight": settings.weight, "seed": settings.seed,
         "task": settings.task_name, "metrics": settings.metrics, "resamples": settings.resamples,
         "level": settings.level, "parents": [model.name for model in made_of.models]}
    )  # fmt: skip
    rows = {name: [i for i, e in enumerate(data.examples) if e.split == name] for name in settings.splits}
    return Plan(opened, data, tokens, points, rows, keys, key)


def folder_name(settings: Settings, key: str) -> str:
    """Name of the result folder of the run with fingerprint `key`."""
    weight = "" if settings.weight is None else f"_lambda={label(settings.weight)}"
    return f"{settings.task_name}_{settings.merge_name}{weight}_{key[:8]}"


def _points(settings: Settings, opened: Parents) -> tuple[Point, ...]:
    """The models to score. An end of the curve is its parent: it has the parent's identity, and its scores."""
    made_of = settings.ingredients
    base, pivot = ({"parent": content} for content in opened.hashes[:2])
    points = [Point("merged", settings.merge_name, settings.weight, _identity(settings, opened), made_of)]
    if settings.parents:
        pair = Ingredients((settings.base, settings.pivot), _LINE, tokenizer=made_of.tokenizer)
        points += [Point("base", None, 0.0, base, pair), Point("pivot", None, 1.0, pivot, pair)]
    return tuple(points)


def _identity(settings: Settings, opened: Parents) -> dict[str, Any]:
    """What the merged model's answers depend on: the parent's where it is one, else all that it is made of."""
    merge = settings.merge
    ends = getattr(sys.modules[merge.function.__module__], "ENDS", None)
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


def _question(settings: Settings, point: Point, opened: Parents, data, tokens, split: str) -> dict[str, Any]:
    """All that the scores of one model on one split depend on. The base lends architecture and tokenizer to all."""
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
    }
