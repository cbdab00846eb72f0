"""What follows from the responses of a run. Each analysis is one file of this folder with an `ANALYSIS`,
and `<name>_tables.py` with the tables of its result.

The runner and the trackers go through `all_analyses()`, the terminal, the page and the exporter through
`all_tables()`; none knows a member.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from patientdx.core import plugins
from patientdx.core.errors import UserError
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

    def summary(self, result: dict[str, Any], task: str) -> dict[str, float]:
        """Numbers for a tracker, of the system that the run is about."""
        return {}

    def curves(self, result: dict[str, Any], task: str) -> Curves:
        """Small curves for a tracker, of the same system."""
        return {}


def all_analyses() -> tuple[Analysis, ...]:
    """All analyses, ordered by name; those that other packages declare come last."""
    return tuple(cast(Analysis, member(ANALYSES, name)) for name in members(ANALYSES)) + tuple(
        cast(Analysis, module.ANALYSIS) for _, module in _plugins()
    )


def _plugins() -> list[tuple[str, ModuleType]]:
    """Name and module of each analysis of another package. UserError for one that is no analysis, or named as ours."""
    modules = []
    for point in plugins.declared("patientdx.analyses"):
        module = import_module(point.module)
        if point.name != getattr(getattr(module, "ANALYSIS", None), "name", None) or point.name in members(ANALYSES):
            raise UserError(
                f"{point.value} is declared as the analysis {point.name}: its module needs an ANALYSIS of that name, "
                f"which is none of {', '.join(members(ANALYSES))}."
            )
        modules.append((point.name, module))
    return modules


class AnalysisTables(NamedTuple):
    """The tables of an analysis: functions of its result, from `<name>_tables.py`.

    roles: the roles of the systems in a result. tables: all its tables, from an entry for each system of one run or of
    more. overview: those that the terminal shows.
    """

    name: str
    roles: Callable[[Mapping[str, Any]], Iterable[str]]
    tables: Callable[[Sequence[Entry]], list[Table]]
    overview: Callable[[Sequence[Entry]], list[Table]]


def all_tables() -> tuple[AnalysisTables, ...]:
    """The tables of all analyses that have some, ordered by name; the libraries that run a model are not imported.

    A plug-in's functions stand in the module of its analysis.
    """
    names = sorted(name for _, name, _ in pkgutil.iter_modules(__path__) if name.endswith("_tables"))
    modules = {name.removesuffix("_tables"): import_module(f"{__name__}.{name}") for name in names} | dict(_plugins())
    return tuple(
        AnalysisTables(name, module.roles, module.tables, getattr(module, "overview", module.tables))
        for name, module in modules.items() if hasattr(module, "roles")
    )  # fmt: skip


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
