"""What a reader sees of a sweep: a terminal table, a csv file and the λ curve; and the λ chosen on pilot.

All take rows, one dict a model and split: `task`, `split`, `method`, `lambda` (float or None), `role` (base |
merged | pivot), for each metric its value and its interval (`auroc`, `auroc_ci_low`, `auroc_ci_high`), `n`,
`events`, `prevalence`, `patients`, `abstention_mass` (probability on yes and no together), `distinct_scores`,
`fingerprint`. A key that is absent or None is shown as absent.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from patientdx.drawing import Row, lambda_curve, number, title_of
from patientdx.refusal import Refusal
from patientdx.whole import write_whole

__all__ = ["choose", "lambda_curve", "metric_names", "table", "write_csv"]


def table(rows: Sequence[Row], *, title: str | None = None) -> Table:
    """The rows as a rich table, one line each, metrics as `0.71 [0.62, 0.79]`; it fits a terminal of 80 characters.

    What is the same in every row of a split (n, events, prevalence) moves to the caption, and so does a task that
    is the same everywhere.
    """
    columns = {
        "task": [_text(row.get("task")) for row in rows],
        "model": [_model(row) for row in rows],
        "split": [_text(row.get("split")) for row in rows],
    }
    for metric in metric_names(rows):
        columns[title_of(metric)] = [_with_interval(row, metric) for row in rows]
    columns |= {
        "yes+no mass": [_text(row.get("abstention_mass"), ".3f") for row in rows],
        "distinct scores": [_text(row.get("distinct_scores")) for row in rows],
    }
    shared = [name for name in ("task",) if len(set(columns[name])) == 1]
    caption = [f"{name} {columns.pop(name)[0]}" for name in shared] + _cohorts(rows)
    shown = Table(
        title=title, caption="\n".join(caption), title_justify="left", caption_justify="left", box=SIMPLE_HEAD
    )
    for name in columns:
        justify = "left" if name in ("task", "model", "split") else "right"
        shown.add_column(name, justify=justify, no_wrap=name not in ("yes+no mass", "distinct scores"))
    for cells in zip(*columns.values(), strict=True):
        shown.add_row(*cells)
    return shown


def _cohorts(rows: Sequence[Row]) -> list[str]:
    """One line a task and split: how many rows, patients and events it has."""
    lines = {}
    for row in rows:
        parts = [f"n {_text(row.get('n'))}"]
        parts += [f"{row['patients']} patients"] if row.get("patients") is not None else []
        parts += [f"{_text(row.get('events'))} events", f"prevalence {_text(row.get('prevalence'), '.3f')}"]
        lines[f"{_text(row.get('split'))}: " + ", ".join(parts)] = None
    return list(lines)


def metric_names(rows: Iterable[Row]) -> list[str]:
    """The metrics that the rows hold, in the order of their first mention: keys that have a `_ci_low`."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if f"{key}_ci_low" in keys]


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """The rows with every digit of their floats; None is an empty field. Whole or not at all."""
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def write(aside: Path) -> None:
        with aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    write_whole(Path(path), write)


def choose(
    rows: Sequence[Row],
    metric: str = "auroc",
    *,
    chosen_on: str = "pilot",
    reported_on: str = "test",
    higher_is_better: bool = True,
) -> dict[str, Any]:
    """The merged model that is best on the pilot split, with its row on the test split.

    Ties go to the smaller λ, then to the method first by name. Returns `lambda`, `method`, `metric`,
    `chosen_on`, `value` (on that split), `reported_on` and `row` (of the same model on that other split).
    Raises Refusal where the choice would be made on the split that is reported, or where rows are missing.
    """
    if chosen_on == reported_on:
        raise Refusal(
            f"λ cannot be chosen on the {chosen_on} split and reported on it, since the best of several "
            f"noisy numbers is too good: choose on pilot and report on test"
        )
    tasks = sorted({str(row.get("task")) for row in rows})
    if len(tasks) > 1:
        raise Refusal(f"λ is chosen for one task at a time; these rows hold {', '.join(tasks)}")
    merged = [row for row in rows if row.get("role") == "merged" and number(row.get("lambda")) is not None]
    sign = -1 if higher_is_better else 1
    ranked = sorted(
        (row for row in merged if row.get("split") == chosen_on and number(row.get(metric)) is not None),
        key=lambda row: (sign * row[metric], row["lambda"], str(row.get("method"))),
    )
    if not ranked:
        raise Refusal(f"no merged model with a λ has a value of {metric} on the {chosen_on} split to choose by")
    best = ranked[0]
    reported = [
        row
        for row in merged
        if row.get("split") == reported_on
        and (row["lambda"], row.get("method")) == (best["lambda"], best.get("method"))
    ]
    if not reported:
        raise Refusal(f"λ={best['lambda']:g} was chosen on {chosen_on} but has no result on the {reported_on} split")
    return {
        "lambda": best["lambda"],
        "method": best.get("method"),
        "metric": metric,
        "chosen_on": chosen_on,
        "value": best[metric],
        "reported_on": reported_on,
        "row": reported[-1],
    }


def _model(row: Row) -> str:
    if row.get("role") != "merged":
        return _text(row.get("role"))
    method, place = _text(row.get("method")), row.get("lambda")
    return method if place is None else f"{method} λ={place:g}"


def _with_interval(row: Row, metric: str) -> str:
    value, low, high = (row.get(key) for key in (metric, f"{metric}_ci_low", f"{metric}_ci_high"))
    if low is None or high is None:
        return _text(value, ".2f")
    return f"{_text(value, '.2f')} [{_text(low, '.2f')}, {_text(high, '.2f')}]"


def _text(value: Any, form: str = "") -> str:
    absent = value is None or value != value  # NaN differs from itself
    return "–" if absent else format(value, form)
