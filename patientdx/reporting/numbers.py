"""Numbers as a reader sees them. Every table, page and export of a report takes them from here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ABSENT = "–"


def text(value: Any, form: str = "") -> str:
    """The value in that form; a dash for None and NaN; no minus on what rounds to 0."""
    if value is None or value != value:  # NaN differs from itself
        return ABSENT
    shown = format(value, form)
    return format(0.0, form) if shown.startswith("-") and not any(digit in shown for digit in "123456789") else shown


def number(value: Any, digits: int) -> str:
    """The value with so many digits behind the point."""
    return text(value, f".{digits}f")


def interval(value: Any, low: Any, high: Any, digits: int = 2) -> str:
    """`0.71 [0.62, 0.79]`; the value alone where an end is missing; a dash without a value."""
    form = f".{digits}f"
    shown = text(value, form)
    return shown if ABSENT in (shown, text(low), text(high)) else f"{shown} [{text(low, form)}, {text(high, form)}]"


def estimate(found: Mapping[str, Any], digits: int = 2) -> str:
    """The same of an estimate of `patientdx.metrics.intervals`."""
    return interval(*(found.get(key) for key in ("value", "low", "high")), digits)


def p_value(value: float | None) -> str:
    """Three digits, never 0."""
    return "<0.001" if value is not None and value < 0.001 else text(value, ".3f")
