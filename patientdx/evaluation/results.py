"""What a run leaves on disk: rows of metrics, predictions under hashed ids, provenance, one file for each analysis.

README.md, "What a run leaves", describes the files; `patientdx.evaluation.seal.SCHEMA` is their version.
"""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from patientdx.core.functions import dotted
from patientdx.core.tables import csv_text, few_events
from patientdx.evaluation.analyses import Analysis, read
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.kinds import Measures, Scored, TaskContext
from patientdx.evaluation.language_systems import SCORING
from patientdx.evaluation.plan import Run
from patientdx.evaluation.seal import METRICS, damages, seal_folder
from patientdx.evaluation.store import hashed, read_json, write_json, write_parquet, write_text
from patientdx.lm.chat import DATE
from patientdx.merge.schedule import label
from patientdx.metrics import bootstrap
from patientdx.records.tables import SYNTHETIC

SEARCH, PROMPT = "search.json", "prompt.txt"

log = logging.getLogger(__name__)
PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "numpy", "scikit-learn", "duckdb")
# Of a row, what names the model and the split: in W&B these are the run's name, group, tags and config.
NAMES = ("task", "split", "method", "lambda", "role", "base", "pivot", "fingerprint", "dtype", "data")


@dataclass(frozen=True)
class EvaluationResult:
    """What a run gave: one row a system and split, its folder, and whether it was there before.

    `cohort` is the attrition table; `analyses` the results of the analyses by name.
    """

    rows: list[dict[str, Any]]
    folder: Path
    reused: bool
    seconds: dict[str, float]
    cohort: list[dict[str, Any]]
    analyses: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Record:
    """A finished run as a tracker takes it: `summary` numbers by name, `curves` points (x, y) by name."""

    fingerprint: str
    name: str
    group: str
    job_type: str
    tags: list[str]
    config: dict[str, Any]
    summary: dict[str, float | int | str]
    curves: dict[str, list[tuple[float, float]]]
    folder: Path
    output: Path
    open_data: bool


def metric_rows(run: Run) -> list[dict[str, Any]]:
    """One row a system and split, as `report` takes them: every metric with its interval by cluster."""
    config, plan = run.config, run.plan
    systems = {system.role: system for system in plan.systems}
    rows = []
    for (role, split), key in plan.keys.items():
        system, measures = systems[role], run.measures(role, split)
        columns = system.columns(config)
        dtype = columns.pop("dtype")
        row = {"task": config.task_config.name, "split": split, **columns, "role": role}
        metrics = _intervals(config, plan.context, measures)
        further = plan.context.kind.describe(plan.context, measures, run.responses[role, split], system.in_words)
        row |= metrics | {name: value for name, value in further.items() if name not in metrics}
        data = "open" if plan.data.open_data else "credentialed"
        rows.append(row | {"dtype": dtype, "data": data, "fingerprint": key})
    return rows


def _intervals(config: RunConfig, context: TaskContext, measures: Measures) -> dict[str, float]:
    """The task's metrics, each with the ends of its interval. Those that take the same arrays share the resamples."""
    clusters, row = measures.clusters(context.data), {}
    sharing: dict[tuple[int, int], list[str]] = {}
    for name, (answer, right) in measures.values.items():
        sharing.setdefault((id(answer), id(right)), []).append(name)
    targets = dict(context.metrics)
    intervals: dict[str, bootstrap.Interval] = {}
    for names in sharing.values():
        metrics = {name: dotted(targets[name]) for name in names}
        intervals |= bootstrap.intervals(metrics, *measures.values[names[0]], clusters, **config.bootstrap.keywords)
    for name in targets:
        interval = intervals[name]
        row |= {name: interval.value, f"{name}_ci_low": interval.ends[0], f"{name}_ci_high": interval.ends[1]}
    return row


def predictions(run: Run) -> pa.Table:
    """One row a unit and system: hashed ids, and what the kind has of the responses; no text."""
    context, parts = run.plan.context, []
    hash_ids = partial(hashed, open_data=context.data.open_data, cache=run.config.cache)
    in_words = {system.role: system.in_words for system in run.plan.systems}
    for (role, split), responses in run.responses.items():
        measures, rows = run.measures(role, split), context.rows[split]
        count = len(measures.examples)
        columns = {
            "id": hash_ids(context.kind.unit_ids(context.data, measures)),
            "subject": hash_ids(measures.clusters(context.data).tolist()),
            "split": [split] * count,
            "role": [role] * count,
        }
        columns |= context.kind.columns(Scored(context, rows, measures, responses, hash_ids, in_words[role]))
        table = pa.table(columns)
        # In the order of the examples, who has their ids could name the rows.
        parts.append(table if context.data.open_data else table.sort_by("id"))
    return pa.concat_tables(parts)


def provenance(run: Run, search: Mapping[str, Any] | None) -> dict[str, Any]:
    """Where a run's numbers come from: parents, merge tensor by tensor, cohort, prompts, versions; no path, no id."""
    data, config, context = run.plan.data, run.config, run.plan.context
    parts: dict[str, Any] = {} if context.parents is None else _merge_provenance(run, search)
    parts["baselines"] = []
    for system in run.plan.systems:
        for name, part in system.provenance(config, context).items():
            parts[name] = [*parts[name], *part] if isinstance(part, list) else part
    return parts | {
        "task": {"fingerprint": data.fingerprint, "open_data": data.open_data, "cohort": data.cohort,
                 **data.provenance},
        "seed": config.seed,
        "seconds": dict(run.timer.seconds),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }  # fmt: skip


def _merge_provenance(run: Run, search: Mapping[str, Any] | None) -> dict[str, Any]:
    """Parents, merge and prompts."""
    config, prompts, spec = run.config, run.plan.context.prompts, run.config.merge_config.spec
    curves = run.session.curves(spec, config.cache)
    tensors = {name: dict(curve.diagnostics) for name, curve in curves.items() if curve.diagnostics}
    return {
        "parents": [
            {"name": model.name, "sha256": content, "licence": model.licence}
            for model, content in zip(spec.models, run.plan.context.opened.hashes, strict=True)
        ],
        "search": None if search is None else {key: value for key, value in search.items() if key != "candidates"},
        "finetune": None,
        "merge": {"method": config.merge_config.name, "lambda": config.weight, "seed": config.seed,
                  "ancestor": None if spec.ancestor is None else spec.ancestor.name,
                  "ancestor_sha256": run.plan.context.opened.ancestor_hash,
                  "tokenizer": spec.tokenizer, "config_from": spec.config_from,
                  "config_differences": run.plan.context.opened.differences, "arguments": spec.call.arguments,
                  "summary": cosines(tensors), "tensors": tensors},
        "scoring": {"version": SCORING, "dtype": config.inference.precision, "prompts": len(prompts.ids),
                    "tokens": sum(map(len, prompts.ids)), "common_prefix": prompts.prefix, "records_cut": prompts.cut,
                    "date": DATE.date().isoformat(), "template_args": json.loads(run.plan.context.spec.template_args),
                    "processes": run.session.accelerator(config.inference.device).num_processes,
                    "answer_tokens": getattr(prompts, "options", None)},
    }  # fmt: skip


def cosines(tensors: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """How far apart the parents are: tensors on a straight line instead of the sphere, and their cosines."""
    measured = [diagnostics for diagnostics in tensors.values() if diagnostics.get("branch") in ("line", "sphere")]
    if not measured:
        return {}
    values = sorted(diagnostics["cosine"] for diagnostics in measured)
    return {
        "tensors": len(measured),
        "straight_lines": sum(diagnostics["branch"] == "line" for diagnostics in measured),
        "cosine_min": values[0],
        "cosine_median": values[len(values) // 2],
        "cosine_max": values[-1],
    }


def write(run: Run, result: EvaluationResult, search: Mapping[str, Any] | None) -> None:
    """The result folder. `metrics.json` comes last: where it is, the run is finished."""
    folder, config, plan = result.folder, run.config, run.plan
    for name, content in result.analyses.items():
        write_json(content, folder / f"{name}.json")
    if search is not None:
        write_json(search, folder / SEARCH)
    plan.context.kind.write_texts(plan.context, plan.keys, config.output / "scores", folder)
    for system in plan.systems:
        system.write(config, folder, run.timer)
    write_text(yaml.safe_dump(config.composed, sort_keys=False, allow_unicode=True), folder / "config.yaml")
    write_parquet(predictions(run), folder / "predictions.parquet")
    write_json(provenance(run, search), folder / "provenance.json")
    if result.cohort:
        write_text(csv_text(result.cohort), folder / "cohort.csv")
    if plan.data.readings:
        write_text(csv_text(plan.data.readings), folder / "readings.csv")
    if (prompt := _synthetic_prompt(run)) is not None:
        write_text(prompt, folder / PROMPT)
    if config.overrides:
        write_json({"overrides": list(config.overrides)}, folder / "command.json")
    seal_folder(folder, {"fingerprint": plan.key, "rows": result.rows})


def _synthetic_prompt(run: Run) -> str | None:
    """What a language model is asked about one stay of the synthetic hospital; None of other data, and without a model.

    The first of the reported split, before the chat template is put around it and before a long record is cut.
    """
    plan = run.plan
    if plan.context.parents is None or plan.data.provenance.get("source") != [SYNTHETIC]:
        return None
    rows = plan.context.rows[run.config.inference.reported]
    example = plan.data.examples[rows[0]]
    return f"{example.prefix}{example.context}{example.suffix}\n"


def read_finished(
    folder: Path, key: str, analyses: tuple[Analysis, ...], cohort: list[dict[str, Any]], *, searched: bool
) -> EvaluationResult | None:
    """The result of a finished run with fingerprint `key` and all of these analyses, or None."""
    metrics = read_json(folder / METRICS)
    if metrics is None or metrics.get("fingerprint") != key:
        return None
    errors = damages(folder, metrics)
    if errors:
        log.warning("%s: %s; the result is computed again", folder.name, "; ".join(errors))
        return None
    results = {analysis.name: read(analysis, folder) for analysis in analyses}
    if None in results.values() or (searched and read_json(folder / SEARCH) is None):
        return None
    return EvaluationResult(metrics["rows"], folder, True, {}, cohort, {k: v for k, v in results.items() if v})


def record(run: Run, result: EvaluationResult, analyses: tuple[Analysis, ...]) -> Record:
    """The run for a tracker: numbers by `mortality/auroc`, ROC and PR points by `mortality/test/roc`.

    The last split is the one that is reported and goes by the task's own name; others say which they are. The other
    systems' metrics are beside those of the run's own, by `mortality/base/auroc`. A metric of few events has their
    number beside it, by `mortality/auroc_few_events`, and the run a tag.
    """
    config, plan, task = run.config, run.plan, run.config.task_config.name
    summary: dict[str, float | int | str] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    metrics = [f"{name}{end}" for name, _ in plan.context.metrics for end in ("", "_ci_low", "_ci_high")]
    for row in result.rows:
        stem = task if row["split"] == config.inference.reported else f"{task}_{row['split']}"
        if row["role"] == plan.main.role:
            summary |= {f"{stem}/{k}": v for k, v in row.items() if k not in NAMES and v is not None}
        else:
            summary |= {f"{stem}/{row['role']}/{k}": row[k] for k in metrics if row.get(k) is not None}
        few = row.get("events") if few_events(row) else None
        prefix = "" if row["role"] == plan.main.role else f"{row['role']}/"
        summary |= {f"{stem}/{prefix}{name}_few_events": few for name, _ in plan.context.metrics if few is not None}
    for role, split in plan.keys:
        if role == plan.main.role:
            points = plan.context.kind.curves(run.measures(role, split))
            curves |= {f"{task}/{split}/{name}": value for name, value in points.items()}
    for analysis in analyses:
        summary |= analysis.summary(result.analyses[analysis.name], task)
        curves |= analysis.curves(result.analyses[analysis.name], task)
    if isinstance(config.weight, float):  # several λ have no place on an axis
        summary["lambda"] = config.weight
    names = [] if plan.context.parents is None else [config.merge_config.base.name, config.merge_config.pivot.name]
    return Record(
        fingerprint=plan.key,
        name=f"{task} {config.method}" + ("" if config.weight is None else f" λ={label(config.weight)}"),
        group=config.name,
        job_type=task,
        tags=[
            config.method,
            *names,
            "open" if plan.data.open_data else "credentialed",
            *(["few events"] if any(map(few_events, result.rows)) else []),
        ],
        config=config.composed | _filtered_by(run, names),
        summary=summary,
        curves=curves if plan.data.open_data else {},  # every point of a ROC curve is a patient
        folder=result.folder,
        output=config.output,
        open_data=plan.data.open_data,
    )


def _filtered_by(run: Run, parents: list[str]) -> dict[str, Any]:
    """What a tracker filters runs by, as keys of the first level.

    data_id: of all prompts, keyed like the ids of records unless the data are open.
    """
    data, config = run.plan.data, run.config
    data_id = hashed([data.fingerprint], open_data=data.open_data, cache=config.cache)[0][:12]
    models = dict(zip(("base", "pivot"), parents, strict=False))
    computed = {"dtype": config.inference.precision} if parents else {}
    return {"method": config.method, "data_id": data_id, **models, **computed}
