"""What a run leaves as evidence: rows of metrics, predictions under hashed ids, and where the numbers come from."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from patientdx.core.functions import dotted
from patientdx.evaluation import clinical, finetuned
from patientdx.evaluation.config.sections import RunConfig
from patientdx.evaluation.merge_inputs import curves
from patientdx.evaluation.plan import SCORING, TABULAR, Plan, System
from patientdx.evaluation.store import hashed
from patientdx.lm.binary import Scores
from patientdx.merge.schedule import label
from patientdx.metrics import bootstrap, prompt_variants, ranking
from patientdx.selection.trials import summary

PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "numpy", "scikit-learn", "duckdb")
# Of a row, what names the model and the split: in W&B these are the run's name, group, tags and config.
NAMES = ("task", "split", "method", "lambda", "role", "base", "pivot", "fingerprint", "dtype", "data")
Found = Mapping[tuple[str, str], Scores]


def measure(config: RunConfig, asked: Plan, found: Found) -> list[dict[str, Any]]:
    """One row a model and split, as `report` takes them: every metric with its interval by patient bootstrap."""
    rows = []
    points = {point.role: point for point in asked.points}
    for role, split in asked.keys:
        labels, subjects, scores = _labels(asked, split), subjects_of(asked, split), found[role, split]
        row = {"task": config.task.name, "split": split, **placed(points[role]), "role": role}
        tabular = points[role].tabular is not None
        names = {"base": None, "pivot": None} if tabular else parent_names(config)
        row |= names | _metrics(config, scores.probability, labels, subjects)
        row |= {"n": len(labels), "events": int(labels.sum()), "prevalence": float(labels.mean()),
                "patients": len(set(subjects)),
                "abstention_mass": None if tabular else float(scores.mass.mean()),
                "distinct_scores": len(np.unique(scores.margin)),
                "dtype": "float64" if tabular else config.inference.dtype,
                "data": "open" if asked.data.open_data else "credentialed",
                "fingerprint": asked.keys[role, split]}  # fmt: skip
        rows.append(row)
    return rows


def parent_names(config: RunConfig) -> dict[str, str]:
    """Base and pivot, as rows name them."""
    return {} if config.merge is None else {"base": config.merge.base.name, "pivot": config.merge.pivot.name}


def _metrics(config: RunConfig, score: np.ndarray, labels: np.ndarray, subjects: list[str]) -> dict[str, float]:
    """The task's metrics, each with the ends of its interval."""
    intervals = bootstrap.intervals(
        {label: dotted(target) for label, target in config.task.metrics}, score, labels, subjects, **config.bootstrap.keywords,
    )  # fmt: skip
    row = {}
    for name, one in intervals.items():
        row |= {name: one.value, f"{name}_ci_low": one.low, f"{name}_ci_high": one.high}
    return row


def placed(point: System) -> dict[str, Any]:
    """Method and λ of a model. Several λ in one model are no place on an axis: they go with the method's name."""
    if point.weight is None or isinstance(point.weight, float):
        return {"method": point.method, "lambda": point.weight}
    return {"method": f"{point.method} {label(point.weight)}", "lambda": None}


def probed(config: RunConfig, asked: Plan, found: Found, reworded: Mapping[str, Scores]) -> dict[str, Any] | None:
    """How much of the run's own model hangs on the question's wording, on the reported split; None where not asked.

    As `metrics.prompt_variants.variant_spread` has it, and of each wording the fingerprint of its scores.
    """
    if not asked.wordings:
        return None
    split, role = config.inference.reported, asked.points[0].role
    other = {one.probe.name: one for one in asked.wordings}
    spread = prompt_variants.variant_spread(
        found[role, split].probability,
        {
            name: prompt_variants.VariantScores(reworded[name].probability, one.probe.inverted)
            for name, one in other.items()
        },
        _labels(asked, split),
        subjects_of(asked, split),
        **config.bootstrap.keywords,
    )
    for name, one in spread["wordings"].items():
        one |= {"fingerprint": other[name].key, "abstention_mass": float(reworded[name].mass.mean())}
    return {"role": role, "split": split} | spread


def evaluation(config: RunConfig, asked: Plan, found: Found) -> dict[str, Any]:
    """What a clinic asks of the run's models, on the reported split; see `patientdx.evaluation.clinical`."""
    split = config.inference.reported
    tabular = {point.role for point in asked.points if point.tabular is not None}
    scored = {
        (role, one): clinical.Scored(
            scores.probability,
            _labels(asked, one),
            subjects_of(asked, one),
            None if role in tabular else scores.mass,
        )
        for (role, one), scores in found.items()
        if (role, split) in found  # a tabular model says nothing about train
    }
    return clinical.evaluate(
        scored,
        reported=split,
        pilot="pilot" if "pilot" in config.inference.splits and split != "pilot" else None,
        groups={name: [values[i] for i in asked.rows[split]] for name, values in asked.data.groups.items()},
        **config.bootstrap.keywords,
    )


def headline(
    config: RunConfig, asked: Plan, found: Found, rows: list[dict], evaluated: Mapping[str, Any] | None
) -> tuple[dict, dict[str, list]]:
    """For a tracker: numbers by `mortality/auroc`, ROC and PR points by `mortality/test/roc`, of the run's own model.

    The last split is the one that is reported and goes by the task's own name; others say which they are. The other
    models' metrics are beside it, by `mortality/base/auroc`. Of the reported split there are also calibration and net
    benefit, where they were `evaluated`.
    """
    summary: dict[str, float | int | str] = {}
    points, own = {}, asked.points[0].role
    metrics = [f"{label}{end}" for label, _ in config.task.metrics for end in ("", "_ci_low", "_ci_high")]
    for row in rows:
        stem = row["task"] if row["split"] == config.inference.reported else f"{row['task']}_{row['split']}"
        if row["role"] == own:
            summary |= {f"{stem}/{k}": v for k, v in row.items() if k not in NAMES and v is not None}
        else:
            summary |= {f"{stem}/{row['role']}/{k}": row[k] for k in metrics if row.get(k) is not None}
    for role, split in asked.keys:
        if role == own:
            probability, labels = found[role, split].probability, _labels(asked, split)
            points[f"{config.task.name}/{split}/roc"] = ranking.roc_curve(probability, labels)
            points[f"{config.task.name}/{split}/pr"] = ranking.pr_curve(probability, labels)
    if evaluated is not None:
        stem, one = f"{config.task.name}/{config.inference.reported}", evaluated["models"][own]
        bins, benefit = one["calibration"]["raw"]["curve"], one["decision_curve"]["raw"]
        summary |= _calibration(f"{config.task.name}/calibration", one["calibration"]["raw"])
        points[f"{stem}/calibration"] = [(bin_["probability"], bin_["observed"]) for bin_ in bins]
        points[f"{stem}/decision"] = list(zip(benefit["threshold"], benefit["model"], strict=True))
    return summary, points


def _calibration(stem: str, raw: Mapping[str, Any]) -> dict[str, float]:
    """What of the raw calibration is one number, with the ends of its interval."""
    found = {}
    for name in ("brier", "ece", "intercept", "slope", "observed_minus_expected"):
        ends = {"": "value", "_ci_low": "low", "_ci_high": "high"}
        found |= {f"{stem}/{name}{end}": raw[name].get(key) for end, key in ends.items()}
    return {key: value for key, value in found.items() if value is not None}


def predictions(config: RunConfig, asked: Plan, found: Found) -> pa.Table:
    """One row an example and model: hashed ids, label and scores; no text."""
    parts = []
    tabular = {point.role for point in asked.points if point.tabular is not None}
    for (role, split), scores in found.items():
        names = {"open_data": asked.data.open_data, "cache": config.cache}
        uids = [asked.data.examples[i].uid for i in asked.rows[split]]
        parts.append(pa.table({
            "id": hashed(uids, **names),
            "subject": hashed(subjects_of(asked, split), **names),
            "split": [split] * len(uids),
            "role": [role] * len(uids),
            "label": _labels(asked, split),
            "probability": scores.probability,
            "margin": scores.margin,
            "mass": pa.nulls(len(uids), pa.float64()) if role in tabular else scores.mass,
        }))  # fmt: skip
    return pa.concat_tables(parts)


def provenance(config: RunConfig, asked: Plan, seconds: Mapping[str, float], processes: int) -> dict[str, Any]:
    """Where a run's numbers come from: parents, merge tensor by tensor, cohort, prompts, versions; no path, no id."""
    data = asked.data
    language = {} if asked.opened is None else _merged_from(config, asked, processes)
    return language | {
        "baselines": _baselines(config, asked),
        "task": {"fingerprint": data.fingerprint, "open_data": data.open_data, "cohort": data.cohort,
                 **data.provenance},
        "seed": config.seed,
        "seconds": dict(seconds),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }  # fmt: skip


def _merged_from(config: RunConfig, asked: Plan, processes: int) -> dict[str, Any]:
    """Parents, merge and prompts."""
    models, tokens = config.merge.spec.models, asked.tokens
    shape = curves(config.merge.spec, config.cache)
    tensors = {name: dict(curve.diagnostics) for name, curve in shape.items() if curve.diagnostics}
    return {
        "parents": [
            {"name": model.name, "sha256": content, "licence": model.licence}
            for model, content in zip(models, asked.opened.hashes, strict=True)
        ],
        "search": None if config.search is None else summary(config.search.record),
        "finetune": _finetuned(config, asked),
        "merge": {"method": config.merge.name, "lambda": config.weight, "seed": config.seed,
                  "ancestor": None if config.merge.spec.ancestor is None else config.merge.spec.ancestor.name,
                  "tokenizer": config.merge.spec.tokenizer, "arguments": config.merge.spec.call.arguments,
                  "summary": branches(tensors), "tensors": tensors},
        "scoring": {"version": SCORING, "dtype": config.inference.dtype, "prompts": len(tokens.ids),
                    "tokens": sum(map(len, tokens.ids)), "common_prefix": tokens.prefix, "records_cut": tokens.cut,
                    "processes": processes, "answer_tokens": getattr(tokens, "options", None)},
    }  # fmt: skip


def _finetuned(config: RunConfig, asked: Plan) -> dict[str, Any] | None:
    """What was trained, on what, and what that took; None where nothing was."""
    for point in asked.points:
        if point.job is not None:
            return finetuned.said(config, point.job, point.trained_on, asked.data)
    return None


def _baselines(config: RunConfig, asked: Plan) -> list[dict[str, Any]]:
    """The tabular models: what made them, and how much they were fitted on."""
    train = [example.label for example in asked.data.examples if example.split == "train"]
    return [
        {"name": point.role, "version": TABULAR, "function": point.tabular.target, "arguments": point.tabular.keywords,
         "seed": config.seed, "features": len(asked.data.features.names), "fitted_on": "train", "n": len(train),
         "events": sum(train)}
        for point in asked.points if point.tabular is not None
    ]  # fmt: skip


def branches(tensors: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """How far apart the parents are: tensors on a straight line instead of the sphere, and their cosines."""
    measured = [facts for facts in tensors.values() if facts.get("branch") in ("line", "sphere")]
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


def subjects_of(asked: Plan, split: str) -> list[str]:
    """The patient (or question) of each row of a split, which a bootstrap draws."""
    return [asked.data.examples[i].subject for i in asked.rows[split]]
