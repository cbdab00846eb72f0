"""Numbers at equal distances: what a search over a continuous range chooses among."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def steps(low: float, high: float, step: float) -> int:
    """How many steps fit between the ends."""
    return math.floor((high - low) / step + 1e-9)


def rounded(value: float, low: float, high: float, step: float) -> float:
    """The number low, low + step, … up to high that is nearest to `value`."""
    return at(min(max(round((value - low) / step), 0), steps(low, high, step)), low, step)


def at(index: int, low: float, step: float) -> float:
    """The number so many steps above the low end, without the noise of binary fractions."""
    return float(round(low + index * step, 10))


def step_errors(step: float) -> list[str]:
    """The errors of a step."""
    return [] if 1e-6 <= step < math.inf else [f"search.step={step}: give a number of at least 0.000001."]


def span_errors(span: Any, where: str, low: float, high: float, step: float) -> list[str]:
    """The errors of [from, to], named `where`; both must be in [low, high], at least a `step` apart."""
    plain = isinstance(span, Sequence) and not isinstance(span, str) and len(span) == 2
    if not plain or any(isinstance(end, bool) or not isinstance(end, int | float) for end in span):
        return [f"{where}={span}: give two numbers, as in {where}=[0,1]."]
    if not span[1] - span[0] >= step:
        return [f"{where}={span}: the second number must lie at least search.step={step} above the first."]
    if not low <= span[0] <= span[1] <= high:
        ends = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
        return [f"{where}={span}: λ of this method is a number {ends}."]
    return []
