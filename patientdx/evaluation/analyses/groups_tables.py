"""Tables of groups of questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from patientdx.core.tables import Table, count, estimate, make_table, metric_title, word
from patientdx.evaluation.analyses.entries import Entry


def roles(result: Mapping[str, Any]) -> Iterable[str]:
    """The roles of the systems in the result."""
    groups = next(iter(result["groups"].values()))
    return next(iter(groups.values()))["models"]


def tables(entries: Sequence[Entry]) -> list[Table]:
    """A table a grouping of questions: every metric of each model in each group."""
    made = []
    parts = [
        part["models"] for entry in entries for group in entry.result["groups"].values() for part in group.values()
    ]
    metrics = list(dict.fromkeys(metric for models in parts for estimates in models.values() for metric in estimates))
    for grouping in dict.fromkeys(name for entry in entries for name in entry.result["groups"]):
        rows = []
        for entry in entries:
            for group, part in entry.result["groups"].get(grouping, {}).items():
                cells = [word(group.replace("_", " ")), word(entry.name), count(part["n"])]
                rows.append([*cells, *(estimate(part["models"][entry.role].get(metric)) for metric in metrics)])
        columns = [grouping, "model", "n", *map(metric_title, metrics)]
        title = f"By {grouping}, {entries[0].result['split']}"
        made.append(make_table("groups", title, columns, rows, section="subgroups", keys=2))
    return made
