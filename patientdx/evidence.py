"""What a run leaves as evidence: rows of metrics, predictions under hashed ids, and where the numbers come from."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from patientdx.merge.schedule import label
from patientdx.metrics import bootstrap, ranking
from patientdx.opening import curves
from patientdx.plan import SCORING, Plan, Point
from patientdx.results import hashed
from patientdx.scoring.choice import Scores
from patientdx.settings import Settings, dotted

PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "numpy", "duckdb")
# Of a row, what names the model and the split: in W&B these are the run's name, group, tags and config.
NAMES = ("task", "split", "method", "lambda", "role", "base", "pivot", "fingerprint", "dtype", "data")
Found = Mapping[tuple[str, str], Scores]


def measure(settings: Settings, asked: Plan, found: Found) -> list[dict[str, Any]]:
    """One row a model and split, as `report` takes them: every metric with its interval by patient bootstrap."""
    metrics = {label: dotted(target) for label, target in settings.metrics}
    rows = []
    for point in asked.points:
        for split in settings.splits:
            labels, subjects = _labels(asked, split), _subjects(asked, split)
            scores = found[point.role, split]
            intervals = bootstrap.intervals(
                metrics, scores.probability, labels, subjects,
                resamples=settings.resamples, level=settings.level, seed=settings.seed,
            )  # fmt: skip
            row = {"task": settings.task_name, "split": split, **_place(point),
                   "role": point.role, "base": settings.base.name, "pivot": settings.pivot.name}  # fmt: skip
            for name, one in intervals.items():
                row |= {name: one.value, f"{name}_ci_low": one.low, f"{name}_ci_high": one.high}
            row |= {"n": len(labels), "events": int(labels.sum()), "prevalence": float(labels.mean()),
                    "patients": len(set(subjects)),
                    "abstention_mass": float(scores.mass.mean()),
                    "distinct_scores": len(np.unique(scores.margin)), "dtype": settings.dtype,
                    "data": "open" if asked.data.open_data else "credentialed",
                    "fingerprint": asked.keys[point.role, split]}  # fmt: skip
            rows.append(row)
    return rows


def _place(point: Point) -> dict[str, Any]:
    """Method and λ of a model. Several λ in one model are no place on an axis: they go with the method's name."""
    if point.weight is None or isinstance(point.weight, float):
        return {"method": point.method, "lambda": point.weight}
    return {"method": f"{point.method} {label(point.weight)}", "lambda": None}


def headline(settings: Settings, asked: Plan, found: Found, rows: list[dict]) -> tuple[dict, dict[str, list]]:
    """For a tracker, of the merged model: numbers by `mortality/auroc`, and ROC and PR points by `mortality/test/roc`.

    The last split is the one that is reported and goes by the task's own name; others say which they are.
    """
    summary: dict[str, float | int | str] = {}
    for row in rows:
        if row["role"] == "merged":
            stem = row["task"] if row["split"] == settings.splits[-1] else f"{row['task']}_{row['split']}"
            summary |= {f"{stem}/{k}": v for k, v in row.items() if k not in NAMES and v is not None}
    points = {}
    for split in settings.splits:
        probability, labels = found["merged", split].probability, _labels(asked, split)
        points[f"{settings.task_name}/{split}/roc"] = ranking.roc_curve(probability, labels)
        points[f"{settings.task_name}/{split}/pr"] = ranking.pr_curve(probability, labels)
    return summary, points


def predictions(settings: Settings, asked: Plan, found: Found) -> pa.Table:
    """One row an example and model: hashed ids, label and scores; no text."""
    parts = []
    for (role, split), scores in found.items():
        names = {"open_data": asked.data.open_data, "cache": settings.cache}
        uids = [asked.data.examples[i].uid for i in asked.rows[split]]
        parts.append(pa.table({
            "id": hashed(uids, **names),
            "subject": hashed(_subjects(asked, split), **names),
            "split": [split] * len(uids),
            "role": [role] * len(uids),
            "label": _labels(asked, split),
            "probability": scores.probability,
            "margin": scores.margin,
            "mass": scores.mass,
        }))  # fmt: skip
    return pa.concat_tables(parts)


def provenance(settings: Settings, asked: Plan, seconds: Mapping[str, float], processes: int) -> dict[str, Any]:
    """Where a run's numbers come from: parents, merge tensor by tensor, cohort, prompts, versions; no path, no id."""
    models = settings.ingredients.models
    shape = curves(settings.ingredients, settings.cache)
    tensors = {name: dict(curve.facts) for name, curve in shape.items() if curve.facts}
    data, tokens = asked.data, asked.tokens
    return {
        "parents": [
            {"name": model.name, "sha256": content, "licence": model.licence}
            for model, content in zip(models, asked.opened.hashes, strict=True)
        ],
        "merge": {"method": settings.merge_name, "lambda": settings.weight, "seed": settings.seed,
                  "ancestor": None if settings.ancestor is None else settings.ancestor.name,
                  "tokenizer": settings.tokenizer, "arguments": settings.merge.arguments,
                  "summary": branches(tensors), "tensors": tensors},
        "task": {"fingerprint": data.fingerprint, "open_data": data.open_data, "cohort": data.cohort,
                 **data.provenance},
        "scoring": {"version": SCORING, "dtype": settings.dtype, "prompts": len(tokens.ids),
                    "tokens": sum(map(len, tokens.ids)), "common_prefix": tokens.prefix, "records_cut": tokens.cut,
                    "processes": processes, "answer_tokens": tokens.options},
        "seed": settings.seed,
        "seconds": dict(seconds),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }  # fmt: skip


def branches(tensors: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
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


def _labels(asked: Plan, split: str) -> np.ndarray:
    return np.array([asked.data.examples[i].label for i in asked.rows[split]])


def _subjects(asked: Plan, split: str) -> list[str]:
    return [asked.data.examples[i].subject for i in asked.rows[split]]
