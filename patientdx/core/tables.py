"""Tables as plain data: cells with the text that is shown and the full value behind it, and numbers as text.

Evaluation and its analyses return a `Table`; `patientdx.reporting` renders it for the terminal and as HTML, LaTeX,
Markdown and csv. Nothing here depends on a renderer.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from patientdx.core.atomic_io import write_atomically

ABSENT = "–"
DIGITS = 3
FEW_EVENTS = 30  # below that many the coverage of intervals was not always reached in simulation, see docs/intervals.md
FEW = "†"  # behind a number of few events
FEW_NOTE = f"{FEW} fewer than {FEW_EVENTS} events, or rows without: wide, and may not cover (docs/intervals.md)"

Row = dict[str, Any]
"""One model on one split, as metrics.json holds it; `patientdx.reporting` lists its keys."""


@dataclass(frozen=True)
class Cell:
    """The text that is shown and the value behind it with every digit (None: absent).

    low, high: ends of the value's interval. short: text for narrow tables, with fewer digits. bold: best of its column.
    """

    text: str
    value: float | int | str | None = None
    low: float | None = None
    high: float | None = None
    bold: bool = False
    short: str = ""


@dataclass(frozen=True)
class Column:
    """A column's heading, its alignment, whether its cells may have intervals, and a sentence that explains it."""

    name: str
    align: Literal["left", "right"] = "right"
    has_intervals: bool = False
    unit: str = ""
    help: str = ""

    @property
    def heading(self) -> str:
        """The name with its unit."""
        return f"{self.name}, {self.unit}" if self.unit else self.name


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns.

    name: key of the table on the command line. section: part of a report that it belongs to. subject: what tells it
    from other tables of that name. notes: lines below the table. keys: how many first columns name a row; a renderer
    that must split the columns repeats them.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    subject: str = ""
    section: str = ""
    keys: int = 1


def repeated(names: Sequence[str]) -> list[str]:
    """The names that occur more than once, each once; empty ones do not count."""
    return [name for name in dict.fromkeys(names) if name and list(names).count(name) > 1]


def make_table(
    name: str,
    title: str,
    columns: Sequence[str | Column],
    rows: Sequence[Sequence[Cell]],
    *,
    notes: Sequence[str] = (),
    subject: str = "",
    section: str = "",
    keys: int = 1,
) -> Table:
    """A table of these rows; columns that are only named are aligned by their cells, and equal notes appear once.

    A note explains the mark of few events where a cell has it.
    """
    notes = [*notes, *([FEW_NOTE] if any(cell.text.endswith(FEW) for row in rows for cell in row) else [])]
    typed = tuple(
        column if isinstance(column, Column) else _column(column, index, [row[index] for row in rows])
        for index, column in enumerate(columns)
    )
    fixed = tuple(tuple(row) for row in rows)
    return Table(name, title, typed, fixed, tuple(dict.fromkeys(notes)), subject, section, keys)


def _column(name: str, index: int, cells: Sequence[Cell]) -> Column:
    words = index == 0 or any(isinstance(cell.value, str) for cell in cells)
    return Column(name, "left" if words else "right", any(cell.low is not None for cell in cells))


def word(text: Any, bold: bool = False) -> Cell:
    """A cell of words."""
    return Cell(str(text), str(text), bold=bold) if text not in (None, "") else Cell("", "")


def count(value: int | None) -> Cell:
    """A cell with a whole number."""
    return Cell(format_value(value), value)


def plain(value: float | None, digits: int = DIGITS, form: str = "f") -> Cell:
    """A cell with a number that has no interval; `form` is a format type, as in `format(value, ".3f")`."""
    absent = format_value(value) == ABSENT
    return Cell(format_value(value, f".{digits}{form}"), None if absent else value)


def interval(
    value: float | None,
    low: float | None,
    high: float | None,
    *,
    digits: int = DIGITS,
    bold: bool = False,
    sign: bool = False,
    few: bool = False,
) -> Cell:
    """A cell with a number and its interval; `sign` writes a plus before positive numbers, `few` marks few events."""
    if format_value(value) == ABSENT:
        return Cell(ABSENT)
    texts = (format_interval(value, low, high, places, sign=sign) for places in (digits, max(digits - 1, 1)))
    text, short = (f"{text}{FEW if few else ''}" for text in texts)
    return Cell(text, value, low, high, bold, short)


def few_events(known: Mapping[str, Any]) -> bool:
    """Whether a row of results or an estimate is of few events, or of few rows without one; false without events."""
    events, n = known.get("events"), known.get("n")
    rarer = min(events, n - events) if events and n else events
    return bool(rarer) and rarer < FEW_EVENTS


def estimate(result: Mapping[str, Any] | None, digits: int = DIGITS, *, sign: bool = False) -> Cell:
    """The same of an estimate of `patientdx.metrics.intervals`, a mapping with `value`, `low` and `high`."""
    value, low, high = ((result or {}).get(key) for key in ("value", "low", "high"))
    return interval(value, low, high, digits=digits, sign=sign, few=few_events(result or {}))


def p_value(value: float | None) -> Cell:
    """A cell with a p-value."""
    return Cell(format_p_value(value), value)


def format_value(value: Any, form: str = "") -> str:
    """The value in that format; a dash for None and NaN; no minus on what rounds to 0."""
    if value is None or value != value:  # NaN differs from itself
        return ABSENT
    shown = format(value, form)
    return format(0.0, form) if shown.startswith("-") and not any(digit in shown for digit in "123456789") else shown


def format_number(value: Any, digits: int, *, sign: bool = False) -> str:
    """The value with that many decimals."""
    return format_value(value, f"{'+' if sign else ''}.{digits}f")


def format_interval(value: Any, low: Any, high: Any, digits: int = 2, *, sign: bool = False) -> str:
    """`0.71 [0.62, 0.79]`; the value alone where an end is missing; a dash without a value."""
    shown, *ends = (format_number(number, digits, sign=sign) for number in (value, low, high))
    return shown if ABSENT in (shown, *ends) else f"{shown} [{ends[0]}, {ends[1]}]"


def format_estimate(result: Mapping[str, Any], digits: int = 2) -> str:
    """The same of an estimate of `patientdx.metrics.intervals`, with the mark of few events."""
    text = format_interval(result.get("value"), result.get("low"), result.get("high"), digits)
    return f"{text}{FEW}" if few_events(result) and text != ABSENT else text


def format_p_value(value: float | None) -> str:
    """Three decimals, never 0."""
    return "<0.001" if value is not None and value < 0.001 else format_value(value, ".3f")


def as_number(value: Any) -> float | None:
    """The value as a float if it is a number that can be drawn or compared, else None."""
    if isinstance(value, bool) or not hasattr(value, "__float__") or math.isnan(float(value)):
        return None
    return float(value)


def metric_title(metric: str) -> str:
    """A metric's name as a reader writes it."""
    return {"auroc": "AUROC", "auprc": "AUPRC", "brier": "Brier"}.get(metric, metric)


def metric_names(rows: Iterable[Row]) -> list[str]:
    """The metrics that the rows hold, in the order of their first mention: keys that have a `_ci_low`."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if f"{key}_ci_low" in keys]


def metric_cell(row: Mapping[str, Any] | None, metric: str) -> Cell:
    """A row's metric with its interval; a dash without a row."""
    if row is None:
        return Cell(ABSENT)
    low, high = (row.get(f"{metric}_ci_{end}") for end in ("low", "high"))
    return interval(as_number(row.get(metric)), low, high, few=few_events(row))


def model_name(row: Row) -> str:
    """The name of the row's model: method, λ and the variant of the method for a merge, else its role.

    The name of a trained model is its role and its method (`finetuned lora(base)`); that of a tabular model its method.
    """
    role, method = row.get("role"), row.get("method")
    if role != "merged":
        return format_value(role) if method in (None, role) else f"{role} {method}"
    weight, variant = row.get("lambda"), row.get("variant")
    name = format_value(method) if weight is None else f"{format_value(method)} λ={weight:g}"
    return f"{name} {variant}" if variant else name


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as csv with every digit of their floats; None is an empty field."""
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write `csv_text` of the rows to a file, atomically."""
    write_atomically(Path(path), lambda temporary: temporary.write_text(csv_text(rows), encoding="utf-8", newline=""))
