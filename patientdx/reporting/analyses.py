"""The tables of a group's analyses, and all tables of a report by their name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from patientdx.core.tables import Table
from patientdx.evaluation.analyses import clinical_tables, comparison_tables, privacy_tables, prompt_variant_tables
from patientdx.evaluation.analyses.entries import Entry
from patientdx.reporting import angles, provenance, tables
from patientdx.reporting.groups import Group
from patientdx.reporting.runs import Run, Study
from patientdx.reporting.search_tables import search_table


class Analysis(NamedTuple):
    """How a report reads the result of an analysis from a run, which roles it has, and how its tables are made.

    overview: its tables on the terminal.
    """

    result: Callable[[Run], Mapping[str, Any] | None]
    roles: Callable[[Mapping[str, Any]], Iterable[str]]
    tables: Callable[[Sequence[Entry]], list[Table]]
    overview: Callable[[Sequence[Entry]], list[Table]]


def _groups(run: Run) -> Mapping[str, Any] | None:
    result = run.groups
    return result if result and result["groups"] else None


def _group_roles(result: Mapping[str, Any]) -> Iterable[str]:
    grouping = next(iter(result["groups"].values()))
    return next(iter(grouping.values()))["models"]


ANALYSES = (
    Analysis(
        lambda run: run.clinical, lambda result: result["models"], clinical_tables.tables, clinical_tables.overview
    ),
    Analysis(_groups, _group_roles, comparison_tables.groups, comparison_tables.groups),
    Analysis(
        lambda run: run.prompt_variants, lambda result: (result["role"],),
        prompt_variant_tables.tables, prompt_variant_tables.tables,
    ),
    Analysis(
        lambda run: run.result("privacy"), lambda result: result["models"], privacy_tables.tables, privacy_tables.tables
    ),
)  # fmt: skip


def group_tables(group: Group) -> list[Table]:
    """All tables of a group, in the order of the page, with the group's title in their subject."""
    made: list[Table | None] = [
        tables.chosen(group),
        tables.comparisons(group),
        tables.models(group.rows, best=group.best, level=group.level, title="All models"),
    ]
    for analysis in ANALYSES:
        made += analysis.tables(group.entries(analysis.result, analysis.roles))
    made += [search_table(model.run.search, model.name, shown=None) for model in group.models if model.run.search]
    cohort = next((run.cohort for run in group.runs if run.cohort), [])
    made += [angles.by_kind(group), tables.cohort(cohort, every_step=True) if cohort else None]
    made += [provenance.parents(group), provenance.settings(group)]
    present = [table for table in made if table is not None]
    return [replace(table, subject=", ".join(filter(None, (group.title, table.subject)))) for table in present]


def study_tables(study: Study, groups: Iterable[Group]) -> list[Table]:
    """The tables of all groups and that of the runs."""
    return [*(table for group in groups for table in group_tables(group)), provenance.runs(study)]
