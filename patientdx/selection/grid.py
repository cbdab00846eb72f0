"""Every λ of a grid on every pilot row, as the paper does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from patientdx.core.functions import Call
from patientdx.selection.pilot import Choice, Pilot, candidates, point_faults, whole


def grid(pilot: Pilot, *, points: Sequence[float]) -> Choice:
    """The λ of `points` with the best pilot value, ties to the smaller (PatientDx: 0, 0.1, …, 1)."""
    found = {candidate: pilot.value(candidate) for candidate in candidates(points)}
    return Choice(pilot.best(found), whole(pilot, found), len(found))


def check(low: float, high: float, merge: Call, *, points: Any) -> list[str]:
    """What is wrong with these numbers for a method whose λ lies from `low` to `high`."""
    return point_faults(points, low, high)
