"""The end of a multirun: one table, `sweep.csv` and a picture of the λ curve, from what its runs left on disk.

Every run of a sweep leaves a small pointer to its result folder, `<output>/<name>/sweep/<job>.json`; the callback reads
them when all are done. It holds nothing in memory, so it does not matter which process a run was in.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from patientdx import report
from patientdx.refusal import Refusal
from patientdx.results import write_json

POINTERS = "sweep"


def leave_pointer(study: Path, job: int, folder: Path, seconds: dict[str, float], reused: bool) -> None:
    """Say where run number `job` of the sweep has its results, and what they took."""
    content = {"folder": folder.name, "reused": reused, "seconds": seconds}
    write_json(content, study / POINTERS / f"{job}.json")


class SweepSummary(Callback):
    """Hydra callback: forget the last sweep's pointers at the start, show the sweep at the end."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Drop the pointers of an earlier sweep of this study; its results stay."""
        if PartialState().is_main_process:
            shutil.rmtree(_study(config) / POINTERS, ignore_errors=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Table, csv and picture of all runs of this sweep."""
        if PartialState().is_main_process:
            summarise(_study(config))


def _study(config: DictConfig) -> Path:
    return Path(config.output).expanduser() / config.name


def summarise(study: Path, console: Console | None = None) -> list[dict[str, Any]]:
    """Show and write what the last sweep of a study found; returns its rows, parents once."""
    console = console or Console()
    pointers = sorted((study / POINTERS).glob("*.json"), key=lambda path: int(path.stem))
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in pointers]
    rows: dict[tuple, dict[str, Any]] = {}
    for one in runs:
        for row in json.loads((study / one["folder"] / "metrics.json").read_text(encoding="utf-8"))["rows"]:
            rows.setdefault((row["fingerprint"], row["role"], row["method"]), row)
    found = sorted(rows.values(), key=_place)
    if not found:
        return found
    console.print(report.table(found, title=f"\n{study.name}: {len(runs)} runs"))
    for job, one in enumerate(runs):
        phases = ", ".join(f"{phase} {spent:.1f}" for phase, spent in one["seconds"].items())
        console.print(
            f"run {job}: {'found finished' if one['reused'] else f'seconds: {phases}'}", highlight=False
        )
    report.write_csv(found, study / "sweep.csv")
    written = [study / "sweep.csv", *draw(found, study)]
    console.print("written:", *(str(path) for path in written), sep="\n  ", highlight=False, soft_wrap=True)
    return found


def draw(rows: list[dict[str, Any]], folder: Path) -> list[Path]:
    """One picture of each metric against λ, for each task and pair of parents that the rows hold."""
    written = []
    groups = list(dict.fromkeys((row["task"], row["base"], row["pivot"]) for row in rows))
    for group in groups:
        these = [row for row in rows if (row["task"], row["base"], row["pivot"]) == group]
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
    if len(merged) < 2 or {"pilot", "test"} - {row["split"] for row in merged}:
        return None
    try:
        return report.choose(rows, metric)["lambda"]
    except Refusal:
        return None


def _place(row: dict[str, Any]) -> tuple:
    order = {"base": 0, "merged": 1, "pivot": 2}
    return (
        row["task"],
        row["base"],
        row["pivot"],
        row["split"],
        order[row["role"]],
        row["method"] or "",
        row["lambda"] or 0.0,
    )
