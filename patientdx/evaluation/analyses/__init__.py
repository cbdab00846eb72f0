"""What follows from the responses of a run. Each analysis is one file of this folder with an `ANALYSIS`.

The runner, the terminal, the page, the exporter and the trackers go through `all_analyses()` and know no member.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from patientdx.core.tables import Table
from patientdx.evaluation.analyses.entries import Entry
from patientdx.evaluation.registry import ANALYSES, member, members

if TYPE_CHECKING:  # a reader of results starts without the libraries that run a model
    from patientdx.evaluation.config.run_config import RunConfig
    from patientdx.evaluation.kinds import Kind
    from patientdx.evaluation.plan import Run
    from patientdx.tasks.example import TaskData

Curves = dict[str, list[tuple[float, float]]]


class Analysis(Protocol):
    """One analysis. Its result is a dict of plain values that JSON can hold, without text and ids, in `<name>.json`."""

    name: str

    def not_applicable(self, config: RunConfig, data: TaskData, kind: Kind) -> str | None:
        """Why a run of this task leaves it out, None where it does not; before anything else is read.

        UserError where the user asked for it by name and the task does not have what it needs.
        """
        ...

    def fingerprint(self, run: Run) -> Any:
        """Plain values that its result depends on, beside the responses, the metrics and the bootstrap."""
        return None

    def collect(self, run: Run) -> Any:
        """What it needs of the models beside the responses; before these are computed, in all processes.

        UserError, before any model is loaded, where something is missing.
        """
        return None

    def compute(self, run: Run, collected: Any) -> dict[str, Any]:
        """The result, in the first process alone; `run.responses` are complete."""
        ...

    def roles(self, result: Mapping[str, Any]) -> Iterable[str]:
        """The roles of the systems that the result is about."""
        return ()

    def tables(self, entries: Sequence[Entry]) -> list[Table]:
        """Its tables in full, one entry a system of one run or of several."""
        return []

    def overview(self, entries: Sequence[Entry]) -> list[Table]:
        """Its tables on the terminal."""
        return self.tables(entries)

    def summary(self, result: dict[str, Any], task: str) -> dict[str, float]:
        """Numbers for a tracker, of the system that the run is about."""
        return {}

    def curves(self, result: dict[str, Any], task: str) -> Curves:
        """Small curves for a tracker, of the same system."""
        return {}


def all_analyses() -> tuple[Analysis, ...]:
    """All analyses, ordered by name."""
    return tuple(cast(Analysis, member(ANALYSES, name)) for name in members(ANALYSES))


def applicable(config: RunConfig, data: TaskData, kind: Kind) -> tuple[Analysis, ...]:
    """The analyses that follow a run of this task. UserError as `Analysis.not_applicable` raises it."""
    return tuple(analysis for analysis in all_analyses() if analysis.not_applicable(config, data, kind) is None)


def path_of(analysis: Analysis, folder: Path) -> Path:
    """Its file in a result folder."""
    return folder / f"{analysis.name}.json"


def read(analysis: Analysis, folder: Path) -> dict[str, Any] | None:
    """Its result in a result folder; None where there is none."""
    from patientdx.evaluation.store import read_json

    return read_json(path_of(analysis, folder))
