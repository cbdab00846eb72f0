"""A table before it has a form: cells with what is shown and the full value behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from patientdx.reporting import numbers

DIGITS = 3


@dataclass(frozen=True)
class Cell:
    """What is shown, the value behind it with every digit (None: absent), the ends of its interval, whether bold."""

    text: str
    value: float | int | str | None = None
    low: float | None = None
    high: float | None = None
    bold: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table: `name` is what it is asked for by, `of` tells it from others of that name; columns of words are `left`.

    `intervals` are the columns whose cells may have ends.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    left: frozenset[str] = frozenset()
    intervals: frozenset[str] = frozenset()
    of: str = ""


def sheet(
    name: str,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    notes: Sequence[str] = (),
    of: str = "",
) -> Sheet:
    """A sheet that finds out by itself which columns hold words and which intervals."""
    left = {
        column
        for index, column in enumerate(columns)
        if index == 0 or any(isinstance(row[index].value, str) for row in rows)
    }
    ends = {column for index, column in enumerate(columns) if any(row[index].low is not None for row in rows)}
    fixed = tuple(tuple(row) for row in rows)
    return Sheet(name, title, tuple(columns), fixed, tuple(dict.fromkeys(notes)), frozenset(left), frozenset(ends), of)


def word(text: Any, bold: bool = False) -> Cell:
    """A cell of words."""
    return Cell(str(text), str(text), bold=bold) if text not in (None, "") else Cell("", "")


def count(value: int | None) -> Cell:
    """A cell with a whole number."""
    return Cell(numbers.text(value), value)


def plain(value: float | None, digits: int = DIGITS, form: str = "f") -> Cell:
    """A cell with a number that has no interval."""
    absent = numbers.text(value) == numbers.ABSENT
    return Cell(numbers.text(value, f".{digits}{form}"), None if absent else value)


def interval(value: float | None, low: float | None, high: float | None, *, digits=DIGITS, bold=False) -> Cell:
    """A cell with a number and its interval."""
    if numbers.text(value) == numbers.ABSENT:
        return Cell(numbers.ABSENT)
    return Cell(numbers.interval(value, low, high, digits), value, low, high, bold)


def estimate(found: Mapping[str, Any], digits: int = DIGITS) -> Cell:
    """The same of an estimate of `patientdx.metrics.intervals`."""
    return interval(*(found.get(key) for key in ("value", "low", "high")), digits=digits)


def p_value(value: float | None) -> Cell:
    """A cell with a p-value."""
    return Cell(numbers.p_value(value), value)
