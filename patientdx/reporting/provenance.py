"""Where a report's numbers come from: parents, runs, settings, and the command that reproduces them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

from patientdx.core.tables import Cell, Table, make_table, model_name, plain, word
from patientdx.reporting.groups import Group
from patientdx.reporting.runs import Run, Study, without_paths

_QUOTES = "'\""
_ENDINGS = "csv|tsv|parquet|jsonl?|xlsx|ya?ml|gguf"  # of files; a relative path may be a name alone
_FOLDERS = ("output", "cache", "save")  # overrides that name a folder to write to


def parents(group: Group) -> Table | None:
    """The models that were merged, by content."""
    rows: dict[tuple, list[Cell]] = {}
    for run in group.runs:
        for index, parent in enumerate(run.provenance.get("parents", [])):
            role = ("base", "pivot")[index] if index < 2 else "further parent"
            cells = (parent["name"], role, parent.get("licence") or "not stated", parent["sha256"])
            rows[parent["name"], parent["sha256"]] = list(map(word, cells))
    if not rows:
        return None
    columns = ["parent", "role", "licence", "sha256 of its weights"]
    return make_table("parents", "Parents", columns, list(rows.values()), section="provenance")


def runs(study: Study) -> Table:
    """The runs with their fingerprints."""
    rows = []
    for run in study.runs:
        fingerprint = run.rows[0]["fingerprint"]
        row = next((row for row in study.rows if row["fingerprint"] == fingerprint), run.rows[0])
        seconds = sum(run.provenance.get("seconds", {}).values())
        names = (row["task"], model_name(row), row["data"], run.metrics["fingerprint"])
        rows.append([*map(word, names), plain(seconds, 1)])
    return make_table("runs", "Runs", ["task", "model", "data", "fingerprint", "seconds"], rows)


def settings(group: Group) -> Table:
    """Data, scoring, seeds and versions: those of the group's first run, and all values where runs differ."""
    lines: dict[str, list[str]] = {}
    for run in group.runs:
        for name, value in _settings(run):
            values = lines.setdefault(name, [])
            values += [str(value)] if str(value) not in values else []
    rows = [[word(name), word(" | ".join(values))] for name, values in lines.items()]
    return make_table("settings", "Data, seeds and versions", ["what", "value"], rows, section="provenance")


def _settings(run: Run) -> Iterable[tuple[str, Any]]:
    provenance, task = run.provenance, run.provenance.get("task", {})
    yield "data", "open" if task.get("open_data") else "credentialed"
    if source := ", ".join(task.get("source", [])):
        yield "source", source
    if "fingerprint" in task:
        yield "fingerprint of the task's examples", task["fingerprint"]
    for name in ("question", "template", "window_hours", "gap_hours", "split_by", "fractions", "limit", "preset"):
        value = task.get("settings", {}).get(name)
        if value is not None:
            pairs = value.items() if isinstance(value, dict) else ()
            yield name.replace("_", " "), ", ".join(f"{key} {part}" for key, part in pairs) or value
    for name in ("dtype", "prompts", "tokens", "records_cut", "processes"):
        if name in provenance.get("scoring", {}):
            yield {"records_cut": "records cut to fit"}.get(name, name), provenance["scoring"][name]
    yield "seed", provenance.get("seed", run.config.get("seed"))
    if bootstrap := run.config.get("bootstrap", {}):
        yield "bootstrap", f"{bootstrap['resamples']} resamples of patients, level {bootstrap['level']:g}"
    for model in provenance.get("baselines", []):
        size = f"n = {model['n']}, {model['events']} events"
        yield model["name"], f"{model['features']} features, fitted on {model['fitted_on']}: {size}"
    yield from ((f"version of {name}", value) for name, value in provenance.get("versions", {}).items())


def command(study: Study) -> list[str]:
    """The commands that reproduce the study's runs, without paths; empty where the overrides were not kept.

    A sweep whose jobs are every combination of a few choices is one command with -m; otherwise each run has its own.
    """
    overrides = [run.command for run in study.runs]
    if not overrides or None in overrides:
        return []
    jobs = [_portable(job) for job in overrides if job is not None]
    sweep = _sweep_command(jobs)
    lines = [sweep] if sweep else [f"patientdx run {' '.join(map(shlex.quote, job))}".rstrip() for job in jobs]
    return list(dict.fromkeys(lines))


def _sweep_command(jobs: Sequence[Sequence[str]]) -> str | None:
    """One multirun for the jobs, where it would be exactly these."""
    choices = [dict(override.split("=", 1) for override in job) for job in jobs]
    keys = list(choices[0])
    if len(jobs) < 2 or any(list(choice) != keys for choice in choices):
        return None
    values = {key: list(dict.fromkeys(choice[key] for choice in choices)) for key in keys}
    if any("," in value or "(" in value for key in keys if len(values[key]) > 1 for value in values[key]):
        return None  # a value with a comma needs Hydra's quotes
    combinations = set(product(*values.values()))
    if combinations != {tuple(choice.values()) for choice in choices} or len(combinations) != len(jobs):
        return None
    return "patientdx run -m " + " ".join(shlex.quote(f"{key}={','.join(values[key])}") for key in keys)


def _portable(overrides: Iterable[str]) -> list[str]:
    """Overrides without what belongs to one machine: those of result folders are left out, another path is PATH."""
    kept = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key.lstrip("+~") not in _FOLDERS:
            kept.append(f"{key}={_without_path(value)}")
    return kept


def _without_path(value: str) -> str:
    """A value of an override with PATH in place of a path: all of a value that is one, blanks and commas included."""
    if re.match(r"(?:~|\.{0,2})/", value.strip(_QUOTES)) or re.search(rf"\.(?:{_ENDINGS})[{_QUOTES}]?$", value):
        return "PATH"
    value = re.sub(r"file://[^\s,\]]*", "file://PATH", value)
    quoted = rf"([{_QUOTES}])(?:~|\.{{0,2}})/.*?\1"
    return without_paths(re.sub(quoted, "PATH", value))
