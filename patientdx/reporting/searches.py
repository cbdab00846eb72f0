"""The table of a search for λ: its candidates, and what looking at them cost."""

from __future__ import annotations

from patientdx.core.tables import Table, count, make_table, metric_title, plain, word
from patientdx.reporting.groups import Group


def searches(group: Group) -> list[Table]:
    """The candidates that a search for λ looked at, with what it cost."""
    found = []
    for one in group.chosen:
        made = one.run.search
        if made is None:
            continue
        rows = [
            [word(candidate["label"]), plain(candidate["value"]), count(candidate["rows"]),
             word(candidate["dropped"] or ("chosen" if candidate["label"] == made["chosen"]["label"] else ""))]
            for candidate in made["candidates"]
        ]  # fmt: skip
        notes = [f"search={made['strategy']}: {made['looked_at']} candidates looked at"]
        if made.get("forwards") is not None and made.get("grid_forwards") is not None:
            notes.append(f"{made['forwards']} forwards, {made['share']:.1%} of the {made['grid_forwards']} of the grid")
        columns = ["λ", f"{metric_title(made['metric'])} on {made['split']}", "stays scored", "what became of it"]
        found.append(make_table("search", f"Candidates of {one.name}", columns, rows, notes=notes,
                           subject=f"{group.title}, {one.name}"))  # fmt: skip
    return found
