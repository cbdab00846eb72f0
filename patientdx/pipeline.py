"""The story of one run: parents, curve, model at λ, scores of a task, metrics with intervals, result on disk."""

from __future__ import annotations

import logging
import platform
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from accelerate.utils import broadcast_object_list, gather_object

from patientdx import session
from patientdx.metrics import bootstrap, ranking
from patientdx.results import Store, fingerprint, hashed, read_run, write_run
from patientdx.scoring.choice import Scores, score
from patientdx.settings import Call, Settings, dotted
from patientdx.tracking import TrackingSettings, track

_log = logging.getLogger(__name__)

# Part of every fingerprint: raise it when the same inputs come to give other scores.
SCORING = 1
PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "numpy", "duckdb")


@dataclass(frozen=True)
class Point:
    """One model of a run: `method` is None for a parent; `identity` is what its answers depend on."""

    role: str
    method: str | None
    weight: float | None
    identity: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a run gave: one row a model and split (as in `report`), its folder, and whether it was there before."""

    rows: list[dict[str, Any]]
    folder: Path
    reused: bool
    seconds: dict[str, float]


def run(settings: Settings) -> Outcome:
    """Score the merged model (and its parents) on the task, and write one result folder below <output>/<name>."""
    clock = Clock()
    where = session.accelerator(settings.device)
    tracker = TrackingSettings(**{**settings.tracking, "tags": tuple(settings.tracking.get("tags") or ())})
    models = (settings.base, settings.pivot)
    opened = session.parents(models, settings.cache)
    clock.lap("parents")
    data = session.task_data(settings.task)
    tokens = session.prompts(settings.base, settings.cache, settings.task, settings.max_tokens)
    clock.lap("task")
    points = _points(settings, opened)
    store = Store(settings.output / "scores")
    rows_of = {name: [i for i, e in enumerate(data.examples) if e.split == name] for name in settings.splits}
    keys = {
        (point.role, split): fingerprint(_question(settings, point, opened, data, tokens, split))
        for point in points
        for split in settings.splits
    }
    run_key = fingerprint(
        {"keys": sorted(keys.values()), "metrics": settings.metrics, "seed": settings.seed, "method": settings.merge_name,
         "resamples": settings.resamples, "level": settings.level, "task": settings.task_name, "weight": settings.weight}
    )  # fmt: skip
    folder = settings.output / settings.name / _label(settings, run_key)
    known = _agreed(read_run(folder, run_key) if where.is_main_process else None)
    if known is not None:
        return Outcome(known["rows"], folder, True, clock.seconds)
    found = {}
    for point in points:
        for split in settings.splits:
            kept = store.load(keys[point.role, split], len(rows_of[split])) if where.is_main_process else None
            kept = _agreed(kept)
            if kept is None:
                kept = _score(settings, point, tokens, rows_of[split], f"{point.role} {split}", clock)
                if where.is_main_process:
                    store.save(keys[point.role, split], kept)
            found[point.role, split] = Scores(kept)
    outcome = None
    if where.is_main_process:
        rows, curves = _measure(settings, points, data, rows_of, found, keys)
        clock.lap("metrics")
        facts = _provenance(settings, opened, data, tokens, clock.seconds, where.num_processes)
        write_run(
            folder,
            config=settings.composed,
            metrics={"fingerprint": run_key, "rows": rows},
            predictions=_predictions(settings, data, rows_of, found),
            provenance=facts,
        )
        _track(tracker, settings, rows, curves, run_key, folder)
        clock.lap("tracking")
        outcome = Outcome(rows, folder, False, clock.seconds)
    return _agreed(outcome)


class Clock:
    """Seconds spent in each phase of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        """Count the time since the last call to `phase`."""
        now = time.monotonic()
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + now - self._last, 3)
        self._last = now


def _points(settings: Settings, opened: session.Parents) -> list[Point]:
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
    return points


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


def _score(settings: Settings, point: Point, tokens, rows: list[int], label: str, clock: Clock) -> np.ndarray:
    """(len(rows), options) float64: fill the live model with the point and score, sharing rows among processes."""
    where = session.accelerator(settings.device)
    models = (settings.base, settings.pivot)
    live = session.live(models, settings.cache, settings.dtype, settings.device, settings.device_map)
    clock.lap("load")
    linear = Call("patientdx.merge.linear.linear", "{}")
    # Parents are the two ends of the straight line, which needs no statistics.
    merge = linear if "parent" in point.identity else settings.merge
    weight = point.weight if point.weight is not None else 0.0
    shape = session.curves(models, settings.cache, merge)
    clock.lap("curve")
    model = live.fill(shape, weight, (models, merge, weight))
    clock.lap("fill")
    done, values = score(
        model,
        tokens,
        rows,
        batch_tokens=settings.batch_tokens or (1 if where.device.type == "cpu" else 16384),
        share=(where.process_index, where.num_processes),
        label=label,
    )
    scores = np.empty((len(rows), len(tokens.options)))
    for part, numbers in gather_object([(done, values)]):
        scores[part] = numbers
    clock.lap("scoring")
    return scores


def _agreed(value: Any) -> Any:
    """The main process's value, in every process."""
    box = [value]
    broadcast_object_list(box)
    return box[0]


def _measure(settings: Settings, points, data, rows_of, found, keys) -> tuple[list[dict], dict[str, list]]:
    metrics = {label: dotted(target) for label, target in settings.metrics}
    rows, curves = [], {}
    for point in points:
        for split in settings.splits:
            examples = [data.examples[i] for i in rows_of[split]]
            label = np.array([example.label for example in examples])
            scores = found[point.role, split]
            intervals = bootstrap.intervals(
                metrics, scores.probability, label, [example.subject for example in examples],
                resamples=settings.resamples, level=settings.level, seed=settings.seed,
            )  # fmt: skip
            row = {"task": settings.task_name, "split": split, "method": point.method, "lambda": point.weight,
                   "role": point.role, "base": settings.base.name, "pivot": settings.pivot.name}  # fmt: skip
            for name, one in intervals.items():
                row |= {name: one.value, f"{name}_ci_low": one.low, f"{name}_ci_high": one.high}
            one = next(iter(intervals.values()))
            row |= {"n": one.n, "events": one.events, "prevalence": one.events / one.n, "patients": one.patients,
                    "abstention_mass": float(scores.mass.mean()),
                    "distinct_scores": len(np.unique(scores.margin)), "dtype": settings.dtype,
                    "data": "open" if data.open_data else "credentialed",
                    "fingerprint": keys[point.role, split]}  # fmt: skip
            rows.append(row)
            if point.role == "merged":
                curves[f"{split}/roc"] = ranking.roc_curve(scores.probability, label)
                curves[f"{split}/pr"] = ranking.pr_curve(scores.probability, label)
    return rows, curves


def _predictions(settings: Settings, data, rows_of, found) -> pa.Table:
    """One row an example and model: hashed ids, label and scores; no text."""
    parts = []
    for (role, split), scores in found.items():
        examples = [data.examples[i] for i in rows_of[split]]
        names = {"open_data": data.open_data, "cache": settings.cache}
        parts.append(pa.table({
            "id": hashed([example.uid for example in examples], **names),
            "subject": hashed([example.subject for example in examples], **names),
            "split": [split] * len(examples),
            "role": [role] * len(examples),
            "label": [example.label for example in examples],
            "probability": scores.probability,
            "margin": scores.margin,
            "mass": scores.mass,
        }))  # fmt: skip
    return pa.concat_tables(parts)


def _provenance(settings: Settings, opened, data, tokens, seconds, processes: int) -> dict[str, Any]:
    models = (settings.base, settings.pivot)
    shape = session.curves(models, settings.cache, settings.merge)
    tensors = {name: dict(curve.facts) for name, curve in shape.items() if curve.facts}
    return {
        "parents": [
            {"name": model.name, "sha256": content, "licence": model.licence}
            for model, content in zip(models, opened.hashes, strict=True)
        ],
        "merge": {"method": settings.merge_name, "lambda": settings.weight, "arguments": settings.merge.arguments,
                  "summary": branches(tensors), "tensors": tensors},
        "task": {"fingerprint": data.fingerprint, "open_data": data.open_data, "cohort": data.cohort,
                 **data.provenance},
        "scoring": {"version": SCORING, "dtype": settings.dtype, "prompts": len(tokens.ids),
                    "tokens": sum(map(len, tokens.ids)), "common_prefix": tokens.prefix, "records_cut": tokens.cut,
                    "processes": processes, "answer_tokens": tokens.options},
        "seed": settings.seed,
        "seconds": seconds,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }  # fmt: skip


def branches(tensors: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """How far apart the parents are: tensors on a straight line instead of the sphere, and their cosines."""
    measured = [facts for facts in tensors.values() if "branch" in facts]
    if not measured:
        return {}
    cosines = sorted(facts["cosine"] for facts in measured)
    return {
        "tensors": len(measured),
        "straight_lines": sum(facts["branch"] == "line" for facts in measured),
        "cosine_min": cosines[0],
        "cosine_median": cosines[len(cosines) // 2],
        "cosine_max": cosines[-1],
    }


def _label(settings: Settings, key: str) -> str:
    weight = "" if settings.weight is None else f"_lambda={settings.weight:g}"
    return f"{settings.task_name}_{settings.merge_name}{weight}_{key[:8]}"


def _track(tracker: TrackingSettings, settings: Settings, rows, curves, key: str, folder: Path) -> None:
    merged = [row for row in rows if row["role"] == "merged"]
    summary = {}
    for row in merged:
        # The reported split goes by the task's own name; others say which they are.
        stem = row["task"] if row["split"] == settings.splits[-1] else f"{row['task']}_{row['split']}"
        plain = (str, int, float)
        skipped = (
            "task",
            "split",
            "method",
            "lambda",
            "role",
            "base",
            "pivot",
            "fingerprint",
            "dtype",
            "data",
        )
        summary |= {f"{stem}/{k}": v for k, v in row.items() if k not in skipped and isinstance(v, plain)}
    method = settings.merge_name + ("" if settings.weight is None else f" λ={settings.weight:g}")
    track(
        tracker,
        fingerprint=key,
        name=f"{settings.task_name} {method}",
        group=settings.name,
        job_type=settings.task_name,
        tags=[settings.merge_name, settings.base.name, settings.pivot.name, merged[0]["data"]],
        config=settings.composed,
        summary=summary,
        curves={f"{settings.task_name}/{name}": points for name, points in curves.items()},
        folder=folder,
    )
