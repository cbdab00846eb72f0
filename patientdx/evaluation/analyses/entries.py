"""What the tables of an analysis are made of: one entry a model, of one run or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from patientdx.core.tables import format_number, format_value


class Entry(NamedTuple):
    """A model of a table: the name that is shown, its role in its run, and the result of that run's analysis."""

    name: str
    role: str
    result: Mapping[str, Any]


class Comparison(NamedTuple):
    """The difference a minus b of two models by one measure; `result` has value, low, high and p-values."""

    a: str
    b: str
    measure: str
    result: Mapping[str, Any]


def missing_values(name: str, estimates: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes on estimates without a value, and on those that some resamples lack."""
    reasons = [f"{name}: {result['reason']}" for result in estimates if "reason" in result]
    dropped = max((result.get("dropped", 0) for result in estimates if "reason" not in result), default=0)
    return [*reasons, *([f"{name}: up to {dropped} resamples had no value"] if dropped else [])]


def split_size(split: str, sizes: Mapping[str, Any]) -> str:
    """One sentence: rows, patients, events and prevalence of a split, as far as they are known."""
    parts = [f"n = {format_value(sizes.get('n'))}"]
    parts += [f"{sizes[key]} {key}" for key in ("patients", "events") if sizes.get(key) is not None]
    parts += [f"prevalence {format_number(sizes['prevalence'], 3)}"] if sizes.get("prevalence") is not None else []
    return f"{split}: " + ", ".join(parts)
