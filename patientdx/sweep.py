"""The end of a multirun: one table, `sweep.csv` and a picture of the λ curve, from what its runs left on disk.

Every run of a sweep leaves a small pointer to its result folder, `<output>/<name>/sweep/<job>.json`; the callback reads
them when all are done. It holds nothing in memory, so it does not matter which process a run was in.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from patientdx import report
from patientdx.drawing import title_of
from patientdx.refusal import Refusal
from patientdx.results import make_writable, write_json

POINTERS = "sweep"


def leads() -> bool:
    """Whether this is the one process, of those that accelerate started, that writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def refuse(fault: Exception) -> None:
    """Say on stderr, once for all processes, why a run was refused."""
    if leads():
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(str(fault))


def leave_pointer(config: DictConfig, job: int, folder: Path, seconds: dict[str, float], reused: bool) -> None:
    """Say where run number `job` of the sweep has its results, and what they took."""
    content = {"folder": folder.name, "reused": reused, "seconds": seconds}
    write_json(content, _study(config) / POINTERS / f"{job}.json")


def leave_fault(config: DictConfig, job: int, fault: Exception) -> None:
    """Say that run number `job` of the sweep was refused, and why."""
    if leads():
        write_json({"refused": str(fault)}, _study(config) / POINTERS / f"{job}.json")


class SweepSummary(Callback):
    """Hydra callback: refuse a place that cannot be written to at the start, show the sweep at the end.

    Hydra makes a warning of whatever a callback raises, so what goes wrong here ends the program.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Exit code 2 where results cannot be written: known before anything is read."""
        try:
            make_writable(_study(config))
        except Refusal as fault:
            refuse(fault)
            sys.exit(2)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """The same, and drop the pointers of an earlier sweep of this study; its results stay."""
        self.on_run_start(config)
        if leads():
            shutil.rmtree(_study(config) / POINTERS, ignore_errors=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Table, csv and picture of all runs of this sweep; exit code 2 where one of them was refused."""
        if not leads():
            return
        try:
            summarise(_study(config))
        except (Refusal, OSError) as fault:
            refuse(fault)
            sys.exit(2)
        if any("refused" in one for one in _left(_study(config)).values()):
            sys.exit(2)


def _study(config: DictConfig) -> Path:
    return Path(str(config.output)).expanduser() / str(config.name)


def _left(study: Path) -> dict[int, dict[str, Any]]:
    """What the runs of the last sweep left, by their number."""
    pointers = sorted((study / POINTERS).glob("*.json"), key=lambda path: int(path.stem))
    return {int(path.stem): json.loads(path.read_text(encoding="utf-8")) for path in pointers}


def summarise(study: Path, console: Console | None = None) -> list[dict[str, Any]]:
    """Show and write what the last sweep of a study found; returns its rows, parents once."""
    console = console or Console()
    left = _left(study)
    finished = {job: one for job, one in left.items() if "refused" not in one}
    rows: dict[tuple, dict[str, Any]] = {}
    for one in finished.values():
        for row in json.loads((study / one["folder"] / "metrics.json").read_text(encoding="utf-8"))["rows"]:
            # A base has one fingerprint whatever its pivot, and belongs to the curve of each.
            rows.setdefault((row["fingerprint"], row["role"], row["method"], row["base"], row["pivot"]), row)
    # A tabular model has no parents, and stands with the last pair.
    last = max(((row["base"], row["pivot"]) for row in rows.values() if row["base"] is not None), default=("", ""))
    found = sorted(rows.values(), key=lambda row: _place(row, last))
    if found:
        console.print(report.table(found, title=f"\n{study.name}: {len(finished)} runs"))
    lines = [*choices(found), *(_told(job, one) for job, one in left.items())]
    if found:
        report.write_csv(found, study / "sweep.csv")
        lines += ["written:", *(f"  {path}" for path in (study / "sweep.csv", *draw(found, study)))]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return found


def choices(rows: list[dict[str, Any]]) -> list[str]:
    """For each method with several λ: the one that is best on pilot, with its value on test; by the first metric.

    Test is looked at once, for the λ that pilot chose; whatever else its curve shows is exploratory.
    """
    lines = []
    for metric in report.metric_names(rows)[:1]:
        for group, these in _groups(rows).items():
            for method in dict.fromkeys(row["method"] for row in these if row["role"] == "merged"):
                own = [row for row in these if row["method"] == method]
                if chosen(own, metric) is None:
                    continue
                best = report.choose(own, metric)
                value, low, high = (best["row"][key] for key in (metric, f"{metric}_ci_low", f"{metric}_ci_high"))
                where = "" if len(_groups(rows)) == 1 else f"{' '.join(group)}: "
                lines.append(
                    f"{where}chosen on pilot: {method} λ={best['lambda']:g}, "
                    f"test {title_of(metric)} {value:.2f} [{low:.2f}, {high:.2f}]"
                )
    return [*lines, "the rest of the test curve is exploratory"] if lines else []


def _told(job: int, one: dict[str, Any]) -> str:
    if "refused" in one:
        return f"run {job} was refused: {one['refused']}"
    phases = ", ".join(f"{phase} {spent:.1f}" for phase, spent in one["seconds"].items())
    return f"run {job}: " + ("found finished" if one["reused"] else f"seconds: {phases}")


def _groups(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """The rows of each task and pair of parents; a tabular model has no parents, and stands on no curve."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in (row for row in rows if row["base"] is not None):
        groups.setdefault((row["task"], row["base"], row["pivot"]), []).append(row)
    return groups


def draw(rows: list[dict[str, Any]], folder: Path) -> list[Path]:
    """One picture of each metric against λ, for each task and pair of parents that the rows hold."""
    written = []
    groups = _groups(rows)
    for group, these in groups.items():
        if not any(row["lambda"] is not None for row in these):
            continue
        suffix = "" if len(groups) == 1 else "_" + "_".join(group)
        for metric in report.metric_names(these):
            path = folder / f"lambda_curve_{metric}{suffix}.png"
            report.lambda_curve(these, path, metric=metric, task=group[0], chosen=chosen(these, metric))
            written.append(path)
    return written


def chosen(rows: list[dict[str, Any]], metric: str) -> float | None:
    """λ with the best pilot value, or None where the rows hold no pilot or no λ to choose among."""
    merged = [row for row in rows if row["role"] == "merged" and row["lambda"] is not None]
    candidates = {(row["method"], row["lambda"]) for row in merged}
    if len(candidates) < 2 or {"pilot", "test"} - {row["split"] for row in merged}:
        return None
    try:
        return report.choose(rows, metric)["lambda"]
    except Refusal:
        return None


def _place(row: dict[str, Any], last: tuple[str, str]) -> tuple:
    order = {"base": 0, "merged": 1, "pivot": 2}
    return (
        row["task"],
        *(last if row["base"] is None else (row["base"], row["pivot"])),
        row["split"],
        order.get(row["role"], 3),
        row["method"] or "",
        row["lambda"] or 0.0,
    )
