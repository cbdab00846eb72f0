"""All tables of a report by their name: those of rows, of the analyses, of the search and of the provenance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from patientdx.core.tables import Table
from patientdx.evaluation.analyses import all_tables
from patientdx.reporting import angles, provenance, tables
from patientdx.reporting.groups import Group
from patientdx.reporting.runs import Study
from patientdx.reporting.search_tables import search_table
from patientdx.reporting.seeds import over_seeds


def group_tables(group: Group) -> list[Table]:
    """All tables of a group, in the order of the page, with the group's title in their subject."""
    made: list[Table | None] = [
        tables.chosen(group),
        tables.comparisons(group),
        tables.models(group.rows, best=group.best, level=group.level, title="All models"),
    ]
    for analysis in all_tables():
        made += analysis.tables(group.entries(analysis.name, analysis.roles))
    made += [search_table(model.run.search, model.name, shown=None) for model in group.models if model.run.search]
    cohort = next((run.cohort for run in group.runs if run.cohort), [])
    made += [angles.by_kind(group), tables.cohort(cohort, every_step=True) if cohort else None]
    readings = next((run.readings for run in group.runs if run.readings), [])
    made += [tables.readings(readings)] if readings else []
    made += [provenance.parents(group), provenance.settings(group)]
    present = [table for table in made if table is not None]
    return [replace(table, subject=", ".join(filter(None, (group.title, table.subject)))) for table in present]


def study_tables(study: Study, groups: Iterable[Group]) -> list[Table]:
    """The tables of all groups and that of the runs."""
    seeds = over_seeds(study)
    return [*(table for group in groups for table in group_tables(group)), *([seeds] if seeds else []),
            provenance.runs(study)]  # fmt: skip
