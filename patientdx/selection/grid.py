"""Every λ of a grid on every pilot unit, as the paper does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from patientdx.core.functions import Call
from patientdx.selection.pilot import Choice, Pilot, candidates, complete, point_errors


def grid(pilot: Pilot, *, points: Sequence[float]) -> Choice:
    """The λ of `points` with the best pilot value, ties to the smaller (PatientDx: 0, 0.1, …, 1)."""
    values = {candidate: pilot.value(candidate) for candidate in candidates(points)}
    return Choice(pilot.best(values), complete(pilot, values), len(values))


def check(low: float, high: float, merge: Call, *, points: Any) -> list[str]:
    """The errors of these numbers for a method whose λ is in [low, high]."""
    return point_errors(points, low, high)
