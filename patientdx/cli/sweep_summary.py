"""The summary of a sweep: tables, csv, pictures of the λ curve and the page, from what the jobs wrote."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console

from patientdx import reporting
from patientdx.cli.messages import print_error
from patientdx.core import redaction
from patientdx.core.errors import UserError
from patientdx.core.paths import short_name
from patientdx.core.tables import metric_title
from patientdx.evaluation.store import write_json
from patientdx.reporting.tables import models

Row = dict[str, Any]
Jobs = Mapping[int, Mapping[str, Any]]  # what each job wrote, by its number: see `sweep_state.read_jobs`
_DEFAULT: Mapping[str, bool | None] = MappingProxyType({})
_PICTURES = 4  # metrics of a task that are drawn, the first ones; all of them are in the tables


def write_page(study: Path) -> None:
    """Write the page of the sweep; an error is only printed, as the tables are there."""
    try:
        path = reporting.write_report(study)
    except Exception as error:
        print_error(f"no report was made: {redaction.describe(error, open_data=True)}")  # it reads no text
    else:
        _print(Console(), f"  {path}")


def summarise(study: Path, jobs: Jobs, console: Console | None = None) -> list[Row]:
    """Show and write the results of a sweep of a study; returns its rows, parents once."""
    console = console or Console()
    folders = [study / job["folder"] for job in jobs.values() if "folder" in job]
    runs = tuple(reporting.Run(folder) for folder in folders if (folder / "metrics.json").exists())
    rows = reporting.Study(study, runs).rows
    better = {name: _better(run, name) for run in runs for name in reporting.metric_names(run.rows)}
    best = _best(rows, folders) if rows else None
    for task in dict.fromkeys(row["task"] for row in rows):
        of_task = [row for row in rows if row["task"] == task]
        reporting.show(models(of_task, title=f"{study.name}: {len(folders)} runs", best=best), console=console)
    if seeds := reporting.over_seeds(reporting.Study(study, runs)):
        reporting.show(seeds, console=console)
    lines = [*choices(rows, better), *_headlines(study, runs), *_job_lines(jobs)]
    if rows:
        reporting.write_csv(rows, study / "sweep.csv")
        if candidates := pilot_candidates(rows):
            content = {"split": "pilot", "candidates": candidates, "bits": math.log2(candidates)}
            write_json(content, study / "candidates.json")
        lines += ["written:", *(f"  {path}" for path in (study / "sweep.csv", *_redraw(rows, study, better)))]
    for line in lines:
        _print(console, line)
    return rows


def _better(run: reporting.Run, metric: str) -> bool | None:
    """Whether more of it is better; None, so that nothing is chosen, where neither is or the metric does not say."""
    try:
        return run.higher_is_better(metric)
    except UserError:
        return None


def _best(rows: list[Row], folders: Sequence[Path]) -> Any:
    """What the paired tests say is best; None where they cannot be made, for the table's sake."""
    try:
        return reporting.best(rows, folders)
    except Exception as error:
        print_error(f"nothing is marked as best: {redaction.describe(error, open_data=True)}")
        return None


def _headlines(study: Path, runs: tuple[reporting.Run, ...]) -> list[str]:
    """The sentences on what was chosen; an error is only printed, as the tables are there."""
    try:
        return reporting.headlines(reporting.Study(study, runs)) if runs else []
    except Exception as error:
        print_error(f"nothing was compared with the parents: {redaction.describe(error, open_data=True)}")
        return []


def _print(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def choices(rows: list[Row], better: Mapping[str, bool | None] = _DEFAULT) -> list[str]:
    """For each method with several λ: the one that is best on pilot, with its value on test; by the first metric.

    Of runs that differ in numbers of the method as well, the best of them all. `better`: whether more of a metric is
    better, true by default; None where neither is, and nothing is chosen. Test is used once, for the λ chosen on pilot.
    """
    lines = []
    for metric in reporting.metric_names(rows)[:1]:
        for group, these in _groups(rows).items():
            for method in dict.fromkeys(row["method"] for row in these if row["role"] == "merged"):
                of_method = [row for row in these if row["method"] == method]
                best = chosen(of_method, metric, better.get(metric, True))
                if best is None:
                    continue
                value, low, high = (best["row"][key] for key in (metric, f"{metric}_ci_low", f"{metric}_ci_high"))
                where = "" if len(_groups(rows)) == 1 else f"{' '.join(filter(None, group))}: "
                lines.append(
                    f"{where}chosen on pilot: {reporting.model_name(best['row'])}, "
                    f"test {metric_title(metric)} {value:.2f} [{low:.2f}, {high:.2f}]"
                )
    if not lines:
        return []
    candidates = pilot_candidates(rows)
    bits = f"at most {math.log2(candidates):.2f} bits of its patients are in that choice"
    return [*lines, f"chosen from {candidates} models on pilot: {bits}", "the rest of the test curve is exploratory"]


def pilot_candidates(rows: list[Row]) -> int:
    """How many merged models were scored on pilot: its log2 bounds what the choice can say of pilot patients."""
    return len({row["fingerprint"] for row in rows if (row["role"], row["split"]) == ("merged", "pilot")})


def _job_lines(jobs: Jobs) -> Iterator[str]:
    """The seconds that all jobs took, and each job that was refused or failed."""
    finished = [job for job in jobs.values() if "folder" in job]
    new = [job for job in finished if not job["reused"]]
    if len(new) < len(finished):
        yield f"{len(finished) - len(new)} of {len(finished)} runs were already finished"
    if new:
        phases = dict.fromkeys(phase for job in new for phase in job["seconds"])
        spent = (f"{phase} {sum(job['seconds'].get(phase, 0.0) for job in new):.1f}" for phase in phases)
        yield f"seconds: {', '.join(spent)}"
    words = [set(job["overrides"]) for job in jobs.values() if "overrides" in job]
    common = set.intersection(*words) if words else set()
    for number, job in sorted(jobs.items()):
        differing = [word for word in job.get("overrides", ()) if word not in common]
        name = f"run {number}" + (f" ({' '.join(differing)})" if differing else "")
        if "refused" in job:
            yield f"{name} was refused: {job['refused']}"
        elif "failed" in job:
            yield f"{name} failed: {job['failed']}"


def _groups(rows: list[Row]) -> dict[tuple[str, str, str, str], list[Row]]:
    """The rows of each task, pair of parents and setting; a tabular model has no parents, and stands on no curve."""
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in (row for row in rows if row["base"] is not None):
        groups.setdefault((row["task"], row["base"], row["pivot"], row.get("setting", "")), []).append(row)
    return groups


def _redraw(rows: list[Row], study: Path, better: Mapping[str, bool | None]) -> list[Path]:
    """The pictures of a study's last sweep; those of an earlier one under other names are deleted."""
    written = draw(rows, study, better)
    for path in set(study.glob("lambda_curve_*.png")) - set(written):
        path.unlink()
    return written


def draw(rows: list[Row], folder: Path, better: Mapping[str, bool | None] = _DEFAULT) -> list[Path]:
    """One picture of each of the first metrics against λ, for each task, pair of parents and setting of the rows."""
    written = []
    groups = _groups(rows)
    settings = list(dict.fromkeys(setting for *_, setting in groups))
    for (task, base, pivot, setting), these in groups.items():
        # Several λ in one model have no place on the axis, and parents alone are no curve.
        if not any(row["role"] == "merged" and row["lambda"] is not None for row in these):
            continue
        # Settings may be long and hold what no name of a file can: the title says them.
        number = [str(settings.index(setting) + 1)] if len(settings) > 1 else []
        suffix = "" if len(groups) == 1 else "_" + "_".join((task, base, pivot, *number))
        lines = [_titled(row) for row in these]
        for metric in reporting.metric_names(these)[:_PICTURES]:
            path = folder / f"{short_name(f'lambda_curve_{metric}{suffix}')}.png"
            best = chosen(these, metric, better.get(metric, True))
            reporting.lambda_curve(lines, path, metric=metric, chosen=None if best is None else best["lambda"])
            written.append(path)
    return written


def _titled(row: dict[str, Any]) -> dict[str, Any]:
    """The row for a picture: a line a method and variant, and the setting in the title."""
    task, method = ((row["task"], row.get("setting")), (row["method"], row.get("variant")))
    return row | {"task": ", ".join(filter(None, task)), "method": " ".join(filter(None, method)) or None}


def chosen(rows: list[Row], metric: str, higher: bool | None = True) -> dict[str, Any] | None:
    """`reporting.choose` on pilot; None where the rows hold no pilot or no λ to choose among, or no value is better."""
    merged = [row for row in rows if row["role"] == "merged" and row["lambda"] is not None]
    candidates = {(row["method"], row.get("variant"), row["lambda"]) for row in merged}
    if higher is None or len(candidates) < 2 or {"pilot", "test"} - {row["split"] for row in merged}:
        return None
    try:
        return reporting.choose(rows, metric, higher_is_better=higher)
    except UserError:
        return None
