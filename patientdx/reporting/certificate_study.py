"""The results of a study on a merged model, for its certificate: the choice of λ, and measured leakage."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from patientdx.core.errors import UserError
from patientdx.core.tables import metric_names
from patientdx.evaluation.seal import METRICS, read_sealed
from patientdx.evaluation.store import read_json
from patientdx.merge.schedule import Schedule, schedule
from patientdx.privacy.ledger import account_of_entry
from patientdx.reporting.runs import Run

PRIVACY, SEARCH, MERGED = "privacy.json", "search.json", "merged"
NO_STUDY = "no study was given (--study)"
# By kind of a task what the hub calls it.
_TASK_TYPES = {"multiple_choice": "multiple-choice", "generation": "text-generation", "ranking": "text-ranking"}
# Keys of a private search that a certificate repeats.
STATED = ("mechanism", "utility", "epsilon", "delta", "neighbours", "max_stays", "sensitivity", "draw", "guaranteed",
          "hospital", "epsilon_spent", "draws", "draws_by_seed", "loss_bound")  # fmt: skip


@dataclass(frozen=True)
class Findings:
    """Sections of a certificate. Each is a result, or {"absent": why}; `choice` is how λ was chosen."""

    study: dict[str, Any]
    choice: dict[str, Any]
    leakage: dict[str, Any]
    membership: dict[str, Any]


def findings(study: Path | None, record: Mapping[str, Any]) -> Findings:
    """The results that the folder `study` has on the merge of `record`.

    Raises UserError where the folder holds no finished run, or one of another model: a certificate mixes no two models.
    """
    if study is None:
        absent = {"absent": NO_STUDY}
        return Findings(absent, absent, absent, absent)
    metrics, _ = _finished(study, record)
    rows = [row for row in metrics["rows"] if row["role"] == MERGED]
    privacy = _sealed(study, PRIVACY, metrics)
    return Findings(
        study=_setting(rows),
        choice=_choice(study, metrics, record),
        leakage=_measured(privacy, "dlt", "privacy=dlt"),
        membership=_measured(privacy, "mia", "privacy=mia"),
    )


def _finished(study: Path, record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """metrics.json and provenance.json of a finished run of the merge of `record`."""
    provenance = read_json(study / "provenance.json")
    if not (study / METRICS).is_file() or provenance is None:
        raise UserError(f"--study {study} holds no finished run: give the folder that has its metrics.json.")
    metrics = read_sealed(study)
    _same_model(study, provenance, record)
    return metrics, provenance


def scores(study: Path, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a study measured of the merge of `record`, a mapping for each split and metric; not on the pilot.

    Keys: task_type (the hub's word), task, dataset, split, metric, name (of the metric, with the precision that weights
    were quantised to), value, uncertainty (low, high, level, n, events).
    Raises UserError where the folder holds no finished run, or one of another model.
    """
    metrics, provenance = _finished(study, record)
    config = Run(study).config
    task = provenance["task"]
    source = task.get("source") or {}  # a list of data sets, or the files by name: those of data that are not open stay
    shown = isinstance(source, list) or task["open_data"]
    dataset = ", ".join(source) if source and shown else "open data" if task["open_data"] else "data that are not open"
    made, quantised = [], f" ({config['load']} weights)" if config.get("load") else ""
    for row in metrics["rows"]:
        for metric in metric_names([row]) if (row["role"], row["split"] == "pilot") == (MERGED, False) else ():
            ends = {end: row[f"{metric}_ci_{end}"] for end in ("low", "high")}
            counts = {key: row[key] for key in ("n", "events", "patients") if row.get(key) is not None}
            made.append({
                "task_type": _TASK_TYPES.get(config["task"]["kind"], "text-classification"), "task": row["task"],
                "dataset": dataset, "split": row["split"], "metric": metric, "name": metric + quantised,
                "value": row[metric], "uncertainty": ends | {"level": config["bootstrap"]["level"]} | counts,
            })  # fmt: skip
    return [result for result in made if result["value"] is not None]


def _same_model(study: Path, provenance: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Refuse a study whose merged model is not the one of the record."""
    merge = provenance.get("merge")
    if merge is None:
        raise UserError(f"--study {study} scored no merged model: give the result folder of one that did.")
    parents = [model["sha256"] for model in record["models"] if model["role"] != "ancestor"]
    method = record["method"].rpartition(".")[2]
    arguments = merge["arguments"]
    pairs = {
        "parents": (parents, [parent["sha256"] for parent in provenance["parents"]]),
        "method": (method, merge.get("function", merge["method"])),
        "λ": (_weight(record["lambda"]), _weight(merge["lambda"])),
        "arguments": (record["arguments"], json.loads(arguments) if isinstance(arguments, str) else arguments),
        "tokenizer": (record["tokenizer"], merge["tokenizer"]),
        "ancestor": (_ancestor(record), merge.get("ancestor_sha256")),
        "seed": (record["seed"], merge["seed"]),
    }
    other = [name for name, (mine, theirs) in pairs.items() if mine != theirs]
    if other:
        raise UserError(
            f"--study {study} is about another model than the folder: {', '.join(other)} differ. Give the result "
            "folder of the run that scored this merge, or leave --study out."
        )


def _ancestor(record: Mapping[str, Any]) -> str | None:
    """The content hash of the ancestor; None without one."""
    return next((model["sha256"] for model in record["models"] if model["role"] == "ancestor"), None)


def _weight(value: Any) -> Schedule | None:
    """λ as either record has it."""
    if value is None:
        return None
    pairs = isinstance(value, list) and all(isinstance(item, list) for item in value)
    return schedule(dict(value) if pairs else value)


def _setting(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Task, data and the value on the reported split, the last; not that of pilot, and no fingerprint.

    A hash of all records tells whoever knows the others whether one patient is among them.
    """
    row = rows[-1]
    metric = next(name.removesuffix("_ci_low") for name in row if name.endswith("_ci_low"))
    shown = {"task": row["task"], "data": row["data"], "split": row["split"], "dtype": row["dtype"]}
    value = {"metric": metric, "value": row[metric], "low": row[f"{metric}_ci_low"], "high": row[f"{metric}_ci_high"]}
    if row["split"] == "pilot":
        value = {"absent": "only the pilot was scored"}
    return shown | {"result": value}


def _sealed(study: Path, name: str, metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """A file that the run left in its folder; None where it left none, whatever lies there now."""
    return read_json(study / name) if name in metrics["files"] else None


def _choice(study: Path, metrics: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """How λ was chosen, from how many models: those of the search, and those that other runs of the study scored.

    Each model that was scored on the pilot beside a search could have been chosen instead.
    """
    by_split = _scored(study.parent)
    scored = len(by_split.get("pilot", ()))
    count, splits = max(map(len, by_split.values())), sorted(by_split, key=lambda split: split != "pilot")
    record = _sealed(study, SEARCH, metrics)
    if record is None and count == 1 and not scored:
        return {"how": "given", "absent": "it is the only merged model that was scored, and not on a pilot split"}
    if record is None:
        how = "given" if count == 1 else "sweep"
        return {"how": how, "splits": splits, "candidates": count, "log2_candidates": math.log2(count)}
    chosen = (record.get("chosen") or {}).get("lambda")
    if chosen is not None and _weight(chosen) != _weight(manifest["lambda"]):
        raise UserError(
            f"--study {study}: the search chose λ={chosen}, and the folder holds λ={manifest['lambda']}. Give the "
            "result folder of the run that scored this merge."
        )
    return {
        "how": "search", "strategy": record["strategy"], "split": record["split"], "candidates": record["outcomes"],
        "log2_candidates": record["bits"], "looked_at": record["looked_at"], "scored_beside": scored,
        "private": _private(record["facts"]) if record["strategy"] == "private" else None,
    }  # fmt: skip


def _private(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """What the search says of its draw, and what the ledger says now, after other draws (None: it lacks this one)."""
    entry = numbers.get("ledger_entry")
    now = None if entry is None else account_of_entry(entry)
    return {key: numbers[key] for key in STATED if key in numbers} | {"ledger": None if now is None else asdict(now)}


def _scored(folder: Path) -> dict[str, set[str]]:
    """By split the fingerprints of the merged models that any run of a study scored on it.

    Each could have been chosen by that number, whatever the split is called.
    """
    runs = [read_json(path) or {} for path in folder.glob("*/metrics.json")]
    scored: dict[str, set[str]] = {}
    for row in (row for run in runs for row in run.get("rows", ()) if row["role"] == MERGED):
        scored.setdefault(row["split"], set()).add(row["fingerprint"])
    return scored


def _measured(privacy: Mapping[str, Any] | None, measure: str, how: str) -> dict[str, Any]:
    """The part of privacy.json (no text, no id) on the run's merged model. `reading`: the sentences on it."""
    privacy = privacy or {}
    model = (privacy.get("models") or {}).get(MERGED) or {}
    if measure not in model:
        return {"absent": f"the study was run without {how}"}
    lines = [line for line in privacy.get("reading", ()) if line.startswith(MERGED)]
    reading = [line for line in lines if ("Δ" in line) == (measure == "dlt")]
    blind = {"blind": privacy["blind"]} if measure == "mia" and privacy.get("blind") else {}
    measures = model[measure]
    if measure == "dlt" and privacy.get("reference") == "resampled":  # for a clean model too another number than 0
        measures = {name: value for name, value in measures.items() if name != "delta1"}
    if measure == "mia" and "parent" in privacy:
        reading.append(privacy["parent"]["reading"])
    return {"found": measures, "reading": reading, **blind}
