"""What a search sees: the pilot patients, and scores of any candidate on any of their rows, paid for in forwards.

A strategy is one function of one file of this package. It takes a `Pilot` and its own numbers, and returns a `Choice`;
where it names `seed` it is given the run's. Its module says in `check` what is wrong with its numbers before anything
is read. With `DISCLOSES = False` nothing of the pilot split leaves the machine but the chosen candidate.
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

Score = Callable[["Candidate", NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Candidate:
    """One model that a search may choose: λ, and numbers of the merge method that differ from its yaml."""

    weight: Schedule
    parameters: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Trial:
    """What was seen of one candidate: its `value` on the rows scored, how many those are, why and when it was dropped.

    `dropped` and `round` (from 1) are None for a candidate that stayed to the end.
    """

    candidate: Candidate
    value: float | None
    rows: int
    dropped: str | None = None
    round: int | None = None


@dataclass(frozen=True)
class Choice:
    """What a search found: `looked` in the order of the first look.

    outcomes: how many models it could have chosen, whatever the scores; log2 of it bounds the bits that the pilot
    patients can have put into the weights. facts: plain numbers of the strategy's own, for the record. single: for a
    choice of several λ in one model, the single λ that it is to be compared with.
    """

    chosen: Candidate
    looked: tuple[Trial, ...]
    outcomes: int
    facts: dict[str, Any] = field(default_factory=dict)
    single: Candidate | None = None


class Pilot:
    """The pilot split of n rows, and a model behind it.

    label: (n,) of 0 and 1. subject: (n,) ids of a type that can be sorted. metric: as in `patientdx.metrics.ranking`.
    score: gives a candidate's probabilities (k,) on k rows by number, ascending. It is asked once for each pair of
    candidate and row; `forwards` counts these pairs, whether or not the scores were on disk.
    low, high: where λ of the merge method may lie; high may be infinite. Where the rows come from, for a strategy that
    keeps account of it: cache, a folder; data, the fingerprint of the task's examples; key, that of all that the scores
    depend on but λ; task, the provenance of the examples.
    """

    def __init__(
        self,
        label: ArrayLike,
        subject: ArrayLike,
        metric: Metric,
        score: Score,
        *,
        low: float = 0.0,
        high: float = 1.0,
        cache: Path | None = None,
        data: str = "",
        key: str = "",
        task: Mapping[str, Any] | None = None,
    ) -> None:
        self.label = np.asarray(label).astype(bool)
        _, self.patient = np.unique(np.asarray(subject), return_inverse=True)
        self.n, self.patients = self.label.size, int(self.patient.max()) + 1
        self.metric, self.higher_is_better = metric, higher_is_better(metric)
        self.low, self.high = low, high
        self.cache, self.data, self.key, self.task = cache, data, key, task or {}
        self.forwards = 0
        self._score = score
        self._scores: dict[Candidate, NDArray[np.float64]] = {}

    def probability(self, candidate: Candidate, rows: ArrayLike | None = None) -> NDArray[np.float64]:
        """(k,) probabilities of the candidate on k rows by number, None for all; scores those that are missing."""
        rows = np.arange(self.n) if rows is None else np.asarray(rows, dtype=np.int64)
        known = self._scores.setdefault(candidate, np.full(self.n, np.nan))
        missing = np.unique(rows[np.isnan(known[rows])])
        if missing.size:
            known[missing] = self._score(candidate, missing)
            self.forwards += int(missing.size)
        return known[rows]

    def scored(self, candidate: Candidate) -> NDArray[np.float64]:
        """(n,) what is known of the candidate, NaN where it is not scored."""
        return self._scores.get(candidate, np.full(self.n, np.nan)).copy()

    def value(self, candidate: Candidate) -> float:
        """The metric of the candidate on all rows."""
        return float(self.metric(self.probability(candidate), self.label))

    def better(self, value: float) -> float:
        """The value turned so that more is better."""
        return value if self.higher_is_better else -value

    def best(self, found: Mapping[Candidate, float]) -> Candidate:
        """The candidate with the best value; ties go to the smaller λ, then to the smaller parameters."""
        return min(found, key=lambda one: (-self.better(found[one]), place(one)))


def place(candidate: Candidate) -> tuple:
    """Where a candidate stands among others: λ ascending, one number before several, then parameters."""
    numbers = values(candidate.weight)
    return (len(numbers), numbers, candidate.parameters)


def candidates(points: Sequence[float]) -> tuple[Candidate, ...]:
    """One candidate for each λ of a grid, ascending."""
    return tuple(Candidate(float(point)) for point in sorted(points))


def whole(pilot: Pilot, found: Mapping[Candidate, float]) -> tuple[Trial, ...]:
    """The record of candidates that were scored on every row."""
    return tuple(Trial(candidate, value, pilot.n) for candidate, value in found.items())


def point_faults(points: Any, low: float, high: float) -> list[str]:
    """What is wrong with a grid of λ."""
    plain = isinstance(points, Sequence) and not isinstance(points, str)
    if not plain or any(isinstance(one, bool) or not isinstance(one, int | float) for one in points):
        return [f"search.points={points}: give a list of numbers, as in search.points=[0,0.5,1]."]
    if len(set(points)) < max(2, len(points)):
        return [f"search.points={points}: give at least two different λ, each once."]
    outside = [point for point in points if not low <= point <= high]
    if outside:
        ends = f"from {low:g} to {high:g}" if np.isfinite(high) else f"of at least {low:g}"
        return [f"search.points={points}: λ of this method is a number {ends}; {outside[0]:g} is not."]
    return []
