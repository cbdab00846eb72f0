"""Result folders of a sweep made by hand, and what the end of the sweep says of them."""

import io
from pathlib import Path

import pytest
from result_folders import reseal
from rich.console import Console

from patientdx.cli import sweep_state, sweep_summary
from patientdx.cli.sweep_summary import summarise
from patientdx.reporting import pictures

SECONDS = {"parents": 0.0, "task": 1.66, "load": 1.24, "curve": 0.01, "fill": 0.0, "scoring": 21.9, "metrics": 0.03}


def row(
    role: str, weight: float | None, value: float, *, split: str = "test", method: str | None = None, **more
) -> dict:
    method = method or ("slerp" if role == "merged" else None)
    return {
        "task": "mortality", "split": split, "method": method, "lambda": weight, "role": role,
        "base": "instruct", "pivot": "numeric",
        "auroc": value, "auroc_ci_low": value - 0.1, "auroc_ci_high": value + 0.1,
        "n": 68, "events": 9, "prevalence": 9 / 68, "patients": 60, "abstention_mass": 0.9, "distinct_scores": 60,
        "dtype": "float32", "data": "open", "fingerprint": f"{role} {method} {weight} {split} {value}",
    } | more  # fmt: skip


PARENTS = [row(role, weight, value, split=split) for split in ("pilot", "test")
           for role, weight, value in (("base", 0.0, 0.6), ("pivot", 1.0, 0.65))]  # fmt: skip


def point(weight: float, pilot: float, test: float, **more) -> list[dict]:
    return [row("merged", weight, pilot, split="pilot", **more), row("merged", weight, test, **more)]


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    """The study's folder. Page and pictures have tests of their own; what the page draws is not in these results."""
    monkeypatch.setattr(sweep_summary.reporting, "write_report", lambda study: study / "report.html")
    monkeypatch.setattr(sweep_summary.reporting, "best", lambda rows, folders: None)
    monkeypatch.setattr(pictures, "write_chart", lambda chart, path: path.write_bytes(b""))
    return tmp_path / "study"


def finish(
    study: Path, job: int, rows: list[dict], *, reused: bool = False, folder: Path | None = None, words=()
) -> None:
    """What run number `job` leaves, where a sweep that has ended has it or in the folder of one that runs."""
    reseal(study / f"result_{job}", {"fingerprint": str(job), "rows": rows})
    left = {"folder": f"result_{job}", "reused": reused, "seconds": SECONDS, "overrides": list(words)}
    sweep_state.write_job(folder or study / "sweep", job, left)


def shown(study: Path) -> list[dict]:
    return summarise(study, sweep_state.read_jobs(study / "sweep"), Console(file=io.StringIO()))


def said(study: Path) -> str:
    console = Console(file=io.StringIO(), width=80)
    summarise(study, sweep_state.read_jobs(study / "sweep"), console)
    return console.file.getvalue()
