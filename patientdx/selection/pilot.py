"""What a search works on: the pilot patients, and scores of any candidate on any of their units, counted in forwards.

A strategy is one function of one file of this package. It takes a `Pilot` and its own numbers, and returns a `Choice`;
where it has a parameter `seed` it gets the run's. Its module's `check` lists the errors of its numbers before anything
is read. With `RELEASES_SCORES = False` nothing of the pilot split leaves the machine but the chosen candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.merge.schedule import Schedule, values
from patientdx.metrics.specification import Metric, higher_is_better
from patientdx.selection.lattice import is_numbers

Score = Callable[["Candidate", NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Candidate:
    """One model that a search may choose: λ, and numbers of the merge method that differ from its yaml."""

    weight: Schedule
    parameters: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Trial:
    """One candidate: its `value` on the units scored, how many those are (`rows`), why and when it was dropped.

    `dropped` and `round` (from 1) are None for a candidate that stayed to the end.
    """

    candidate: Candidate
    value: float | None
    rows: int
    dropped: str | None = None
    round: int | None = None


@dataclass(frozen=True)
class Choice:
    """What a search found: `trials` in the order of the first.

    outcomes: how many models it could have chosen, whatever the scores; log2 of it bounds the bits that the pilot
    patients can have put into the weights. numbers: plain numbers of the strategy's own, for the record. single: for a
    choice of several λ in one model, the single λ that it is to be compared with.
    """

    chosen: Candidate
    trials: tuple[Trial, ...]
    outcomes: int
    numbers: dict[str, Any] = field(default_factory=dict)
    single: Candidate | None = None


class Pilot:
    """The pilot split of n units (stays, questions or queries), and a model behind it.

    label: (n,) what is right, as the metric takes it. subject: (n,) ids of a type that can be sorted. metric: see
    `patientdx.metrics.ranking`. score: gives what the metric takes of a candidate, (k,) or (k, m), on k units by
    number, ascending. It is called once for each pair of candidate and unit; `forwards` counts these pairs, also where
    responses were on disk. events: (n,) whether a unit has the event; the labels by default, all false for tasks
    without an event. low, high: the range of λ of the merge method; high may be infinite. Origin of the units, for
    a strategy that keeps account of it: cache, a folder; data, the fingerprint of the task's examples; key, that of all
    that the scores depend on but λ; task, the provenance of the examples.
    """

    def __init__(
        self,
        label: ArrayLike,
        subject: ArrayLike,
        metric: Metric,
        score: Score,
        *,
        events: ArrayLike | None = None,
        low: float = 0.0,
        high: float = 1.0,
        cache: Path | None = None,
        data: str = "",
        key: str = "",
        task: Mapping[str, Any] | None = None,
    ) -> None:
        self.events = np.asarray(label if events is None else events).astype(bool)
        self.label = self.events if events is None else np.asarray(label)
        _, self.patient = np.unique(np.asarray(subject), return_inverse=True)
        self.n, self.patients = self.label.size, int(self.patient.max(initial=-1)) + 1
        self.metric, self.higher_is_better = metric, higher_is_better(metric)
        self.low, self.high = low, high
        self.cache, self.data, self.key, self.task = cache, data, key, task or {}
        self.forwards = 0
        self._score = score
        self._scores: dict[Candidate, NDArray[np.float64]] = {}
        self._scored: dict[Candidate, NDArray[np.bool_]] = {}

    def scores(self, candidate: Candidate, units: ArrayLike | None = None) -> NDArray[np.float64]:
        """(k,) or (k, m) scores of the candidate on k units by number, None for all; computes missing ones."""
        units = np.arange(self.n) if units is None else np.asarray(units, dtype=np.int64)
        scored = self._scored.setdefault(candidate, np.zeros(self.n, dtype=bool))
        missing = np.unique(units[~scored[units]])
        if missing.size:
            values = self._score(candidate, missing)
            known = self._scores.setdefault(candidate, np.full((self.n, *values.shape[1:]), np.nan))
            known[missing], scored[missing] = values, True
            self.forwards += int(missing.size)
        return self._scores[candidate][units]

    def known(self, candidate: Candidate) -> NDArray[np.float64]:
        """(n,) or (n, m) what is known of the candidate, NaN where it is not scored."""
        return self._scores.get(candidate, np.full(self.n, np.nan)).copy()

    def count(self, candidate: Candidate) -> int:
        """On how many units the candidate is scored."""
        return int(self._scored.get(candidate, np.zeros(0, dtype=bool)).sum())

    def value(self, candidate: Candidate) -> float:
        """The metric of the candidate on all units."""
        return float(self.metric(self.scores(candidate), self.label))

    def better(self, value: Any) -> Any:
        """The value with its sign changed where needed so that more is better."""
        return value if self.higher_is_better else -value

    def best(self, values: Mapping[Candidate, float]) -> Candidate:
        """The candidate with the best value; ties go to the smaller λ, then to the smaller parameters."""
        return min(values, key=lambda candidate: (-self.better(values[candidate]), order_key(candidate)))


def order_key(candidate: Candidate) -> tuple:
    """Orders candidates: λ ascending, one number before several, then parameters."""
    numbers = values(candidate.weight)
    return (len(numbers), numbers, candidate.parameters)


def candidates(points: Sequence[float]) -> tuple[Candidate, ...]:
    """One candidate for each λ of a grid, ascending."""
    return tuple(Candidate(float(point)) for point in sorted(points))


def complete(pilot: Pilot, values: Mapping[Candidate, float]) -> tuple[Trial, ...]:
    """The record of candidates that were scored on every unit."""
    return tuple(Trial(candidate, value, pilot.n) for candidate, value in values.items())


def point_errors(points: Any, low: float, high: float) -> list[str]:
    """The errors of a grid of λ."""
    if not is_numbers(points):
        return [f"search.points={points}: give a list of numbers, as in search.points=[0,0.5,1]."]
    if len(set(points)) < max(2, len(points)):
        return [f"search.points={points}: give at least two different λ, each once."]
    outside = [point for point in points if not low <= point <= high]
    if outside:
        ends = f"from {low:g} to {high:g}" if np.isfinite(high) else f"of at least {low:g}"
        return [f"search.points={points}: λ of this method is a number {ends}; {outside[0]:g} is not."]
    return []
