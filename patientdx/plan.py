"""What a run will ask, before anything is asked: its models, the rows of each split, a fingerprint for each answer."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from patientdx import session
from patientdx.results import fingerprint
from patientdx.scoring.prompts import Prompts
from patientdx.settings import Settings
from patientdx.tasks.example import TaskData
from patientdx.tasks.records.split import check_splits

# Part of every fingerprint: raise it when the same inputs come to give other scores.
SCORING = 2


@dataclass(frozen=True)
class Point:
    """One model of a run: `method` is None for a parent; `identity` is what its answers depend on."""

    role: str
    method: str | None
    weight: float | None
    identity: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """One run: `rows` are example numbers by split, `keys` fingerprints of scores by (role, split), `key` the run's."""

    opened: session.Parents
    data: TaskData
    tokens: Prompts
    points: tuple[Point, ...]
    rows: dict[str, list[int]]
    keys: dict[tuple[str, str], str]
    key: str


def plan(settings: Settings) -> Plan:
    """The run of these settings; Refusal where parents, task or prompts will not do. Reads no weights but hashes."""
    opened = session.parents((settings.base, settings.pivot), settings.cache)
    data = session.task_data(settings.task)
    check_splits([(example.split, example.label) for example in data.examples], settings.splits)
    tokens = session.prompts(settings.base, settings.cache, settings.task, settings.max_tokens)
    points = _points(settings, opened)
    keys = {
        (point.role, split): fingerprint(_question(settings, point, opened, data, tokens, split))
        for point in points
        for split in settings.splits
    }
    key = fingerprint(
        {"keys": sorted(keys.values()), "method": settings.merge_name, "weight": settings.weight, "seed": settings.seed,
         "task": settings.task_name, "metrics": settings.metrics, "resamples": settings.resamples,
         "level": settings.level, "parents": [settings.base.name, settings.pivot.name]}
    )  # fmt: skip
    rows = {name: [i for i, e in enumerate(data.examples) if e.split == name] for name in settings.splits}
    return Plan(opened, data, tokens, points, rows, keys, key)


def folder_name(settings: Settings, key: str) -> str:
    """Name of the result folder of the run with fingerprint `key`."""
    weight = "" if settings.weight is None else f"_lambda={settings.weight:g}"
    return f"{settings.task_name}_{settings.merge_name}{weight}_{key[:8]}"


def _points(settings: Settings, opened: session.Parents) -> tuple[Point, ...]:
    """The models to score. An end of the curve is its parent: it has the parent's identity, and its scores."""
    base, pivot = ({"parent": content} for content in opened.hashes)
    merged = {"merge": settings.merge.target, "arguments": settings.merge.arguments, "weight": settings.weight,
              "parents": list(opened.hashes)}  # fmt: skip
    ends = getattr(sys.modules[settings.merge.function.__module__], "ENDS", None)
    if ends is not None and settings.weight in (0.0, 1.0):
        merged = (base, pivot)[ends[int(settings.weight)]]
    points = [Point("merged", settings.merge_name, settings.weight, merged)]
    if settings.parents:
        points += [Point("base", None, 0.0, base), Point("pivot", None, 1.0, pivot)]
    return tuple(points)


def _question(settings: Settings, point: Point, opened, data, tokens, split: str) -> dict[str, Any]:
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
