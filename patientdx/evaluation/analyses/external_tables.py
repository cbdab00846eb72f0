"""The tables of an external validation: inside and outside side by side, and the losses compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from patientdx.core.tables import Table, estimate, make_table, metric_title, p_value, word
from patientdx.evaluation.analyses.entries import Entry, missing_values, split_size

_TITLES = {"log_loss": "log loss", "observed_minus_expected": "observed − expected", "ppv": "PPV",
           "alerts_per_100": "alerts per 100"}  # fmt: skip
_OVERVIEW = ("auroc", "brier")


def roles(result: Mapping[str, Any]) -> Iterable[str]:
    """The roles of the systems in the result."""
    return result["models"]


def tables(entries: Sequence[Entry]) -> list[Table]:
    """All measures on both sides, and the losses of each run's own system minus those of the others."""
    if not entries:
        return []
    measures = dict.fromkeys(name for entry in entries for name in entry.result["models"][entry.role]["measures"])
    return [_sides(entries, list(measures)), *_paired(entries)]


def overview(entries: Sequence[Entry]) -> list[Table]:
    """Discrimination and error on both sides, and the losses compared, for the terminal."""
    return [_sides(entries, _OVERVIEW), *_paired(entries, ("auroc",))] if entries else []


def _title(name: str) -> str:
    head, _, last = name.rpartition(" ")
    return f"{head} {_TITLES.get(last, metric_title(last))}".strip()


def _sides(entries: Sequence[Entry], measures: Sequence[str]) -> Table:
    result, rows, notes = entries[0].result, [], []
    for entry in entries:
        for name in measures:
            measure = entry.result["models"][entry.role]["measures"].get(name)
            if measure is None:
                continue
            rows.append([word(entry.name), word(_title(name)), *(estimate(measure.get(side)) for side in
                                                                 ("inside", "outside", "loss"))])  # fmt: skip
            notes += missing_values(f"{entry.name}, {_title(name)}", [part for part in measure.values() if part])
    sizes = [split_size(result[side], result["cohorts"][side]) for side in ("inside", "outside")]
    frozen = result["frozen_on"]
    notes = [
        *sizes,
        "loss: how much worse outside, by the measure's direction; patients of both sides are drawn independently",
        f"λ, fits, recalibration and threshold come from inside ({frozen}) and are frozen outside"
        if frozen
        else "no recalibration and no threshold: pilot is not scored",
        *dict.fromkeys(notes),
    ]
    columns = ["model", "measure", f"inside ({result['inside']})", "outside", "loss"]
    return make_table("external", "Inside and outside", columns, rows, notes=notes, section="discrimination", keys=2)


def _paired(entries: Sequence[Entry], measures: Sequence[str] | None = None) -> list[Table]:
    rows = []
    shown = {entry.role: entry.name for entry in entries}
    for result in {id(entry.result): entry.result for entry in entries}.values():
        for pair in result["paired"]:
            for name in (name for name in pair if name not in ("a", "b") and (measures is None or name in measures)):
                cells = [word(shown.get(pair[side], pair[side])) for side in ("a", "b")]
                rows.append([*cells, word(_title(name)), estimate(pair[name]), p_value(pair[name].get("p_value"))])
    if not rows:
        return []
    notes = ["below 0: the first model loses less outside than the second; both on the same draws of patients"]
    columns = ["loss of", "minus that of", "measure", "difference", "p"]
    return [make_table("external_losses", "Losses compared", columns, rows, notes=notes, section="methods", keys=3)]
