"""Where a report's numbers come from: cohort, parents, runs, settings, and the command that makes them again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

from patientdx.core.tables import Table, count, make_table, model_name, plain, word
from patientdx.reporting.groups import Group
from patientdx.reporting.runs import Run, Study, without_paths

_QUOTES = "'\""
_PLACES = ("output", "cache", "save")  # overrides that say where, not what


def cohort(group: Group) -> Table | None:
    """The attrition table."""
    rows = next((run.cohort for run in group.runs if run.cohort), [])
    if not rows:
        return None
    names = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[word(row[name]) if name == "step" else _counted(row.get(name)) for name in names] for row in rows]
    return make_table("cohort", "Who is in the cohort", names, cells, subject=group.title,
                 notes=["what is left after each step"])  # fmt: skip


def _counted(text: str | None):
    return count(int(text)) if text and text.isdigit() else word(text)


def parents(group: Group) -> Table | None:
    """The models that were merged, by content."""
    rows: dict[tuple, list] = {}
    for run in group.runs:
        for place, one in enumerate(run.provenance.get("parents", [])):
            role = ("base", "pivot")[place] if place < 2 else "further parent"
            rows[one["name"], one["sha256"]] = [
                word(one["name"]), word(role), word(one.get("licence") or "not stated"), word(one["sha256"]),
            ]  # fmt: skip
    if not rows:
        return None
    columns = ["parent", "role", "licence", "sha256 of its weights"]
    return make_table("parents", "Parents", columns, list(rows.values()), subject=group.title)


def runs(study: Study) -> Table:
    """The runs with their fingerprints."""
    rows = []
    for run in study.runs:
        own = next((row for row in study.rows if row["fingerprint"] == run.own["fingerprint"]), run.own)
        seconds = sum(run.provenance.get("seconds", {}).values())
        names = (own["task"], model_name(own), own["data"], run.metrics["fingerprint"])
        rows.append([*map(word, names), plain(seconds, 1)])
    return make_table("runs", "Runs", ["task", "model", "data", "fingerprint", "seconds"], rows)


def facts(group: Group) -> Table:
    """Data, scoring, seeds and versions: those of the group's first run, and all values where runs differ."""
    lines: dict[str, list[str]] = {}
    for run in group.runs:
        for name, value in _facts(run):
            shown = lines.setdefault(name, [])
            shown += [str(value)] if str(value) not in shown else []
    rows = [[word(name), word(" | ".join(values))] for name, values in lines.items()]
    return make_table("facts", "Data, seeds and versions", ["what", "value"], rows, subject=group.title)


def _facts(run: Run) -> Iterable[tuple[str, Any]]:
    found, task = run.provenance, run.provenance.get("task", {})
    yield "data", "open" if task.get("open_data") else "credentialed"
    yield from ((name, value) for name, value in (("source", ", ".join(task.get("source", []))),) if value)
    if "fingerprint" in task:
        yield "fingerprint of the task's examples", task["fingerprint"]
    settings = task.get("settings", {})
    for name in ("question", "template", "window_hours", "gap_hours", "split_by", "fractions", "limit", "preset"):
        if settings.get(name) is not None:
            yield name.replace("_", " "), _words(settings[name])
    scoring = found.get("scoring", {})
    for name in ("dtype", "prompts", "tokens", "records_cut", "processes"):
        if name in scoring:
            yield {"records_cut": "records cut to fit"}.get(name, name), scoring[name]
    asked = run.config.get("bootstrap", {})
    yield "seed", found.get("seed", run.config.get("seed"))
    if asked:
        yield "bootstrap", f"{asked['resamples']} resamples of patients, level {asked['level']:g}"
    for one in found.get("baselines", []):
        yield (
            one["name"],
            f"{one['features']} features, fitted on {one['fitted_on']}: n = {one['n']}, {one['events']} events",
        )
    yield from ((f"version of {name}", value) for name, value in found.get("versions", {}).items())


def _words(value: Any) -> str:
    return ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else str(value)


def command(study: Study) -> list[str]:
    """The lines that make the study's runs again, without paths; empty where the overrides were not kept.

    A sweep whose jobs are every combination of a few choices is one line, with -m; else there is a line a run.
    """
    kept = [run.command for run in study.runs]
    if not kept or None in kept:
        return []
    jobs = [_portable(one) for one in kept]
    swept = _swept(jobs)
    lines = [swept] if swept else [f"python run.py {' '.join(map(shlex.quote, job))}".rstrip() for job in jobs]
    return list(dict.fromkeys(lines))


def _swept(jobs: Sequence[Sequence[str]]) -> str | None:
    """One multirun for the jobs, where it would be exactly these."""
    given = [dict(one.split("=", 1) for one in job) for job in jobs]
    keys = list(given[0])
    if len(jobs) < 2 or any(list(one) != keys for one in given):
        return None
    values = {key: list(dict.fromkeys(one[key] for one in given)) for key in keys}
    if any("," in value or "(" in value for key in keys if len(values[key]) > 1 for value in values[key]):
        return None  # a value with a comma of its own needs quotes of Hydra's
    made = {tuple(one) for one in product(*values.values())}
    if made != {tuple(one.values()) for one in given} or len(made) != len(jobs):
        return None
    return "python run.py -m " + " ".join(shlex.quote(f"{key}={','.join(values[key])}") for key in keys)


def _portable(overrides: Iterable[str]) -> list[str]:
    """Overrides without what belongs to one machine: where results go is left out, another path is PATH."""
    kept = []
    for one in overrides:
        key, _, value = one.partition("=")
        if key.lstrip("+~") in _PLACES:
            continue
        shown = without_paths(value)
        kept.append(f"{key}={'PATH' if shown.strip(_QUOTES) == 'PATH' else shown}")
    return kept
