"""Numbers at equal distances: what a search over a continuous range chooses among."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeGuard


def steps(low: float, high: float, step: float) -> int:
    """How many steps fit between the ends."""
    return math.floor((high - low) / step + 1e-9)


def rounded(value: float, low: float, high: float, step: float) -> float:
    """The number low, low + step, … up to high that is nearest to `value`."""
    return at(min(max(round((value - low) / step), 0), steps(low, high, step)), low, step)


def at(index: int, low: float, step: float) -> float:
    """The number so many steps above the low end, without the noise of binary fractions."""
    return float(round(low + index * step, 10))


def is_numbers(value: Any) -> TypeGuard[Sequence[float]]:
    """Whether the value is a list of numbers."""
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return is_list and not any(isinstance(item, bool) or not isinstance(item, int | float) for item in value)


def step_errors(step: float) -> list[str]:
    """The errors of a step."""
    return [] if 1e-6 <= step < math.inf else [f"search.step={step}: give a number of at least 0.000001."]


def span_errors(span: Any, where: str, low: float, high: float, step: float) -> list[str]:
    """The errors of [from, to], named `where`; both must be in [low, high], at least a `step` apart."""
    if not is_numbers(span) or len(span) != 2:
        return [f"{where}={span}: give two numbers, as in {where}=[0,1]."]
    if not span[1] - span[0] >= step:
        return [f"{where}={span}: the second number must lie at least search.step={step} above the first."]
    if not low <= span[0] <= span[1] <= high:
        ends = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
        return [f"{where}={span}: λ of this method is a number {ends}."]
    return []
