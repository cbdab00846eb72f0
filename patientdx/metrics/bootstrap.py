"""Uncertainty of a metric, by drawing patients.

Rows of one patient are not independent, so whole patients are drawn with replacement (the cluster bootstrap;
Field and Welsh, J. R. Stat. Soc. B 2007) and a row's weight is how often its patient was drawn. Metrics take
all resamples of a block at once as weights (resamples, n), see `patientdx.metrics.ranking`: scores are sorted
once a block and never copied.

The draws depend on nothing but the seed and the patients: metrics and models that are given the same seed and
the same rows see the same resamples, which is what makes a difference between two models paired.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.core.errors import UserError

Metric = Callable[..., "float | NDArray[np.float64]"]

# Weights held at once, in numbers: small enough for the cache, and the bound on memory however many rows.
_BLOCK = 1 << 18


@dataclass(frozen=True)
class Interval:
    """A value with its percentile interval.

    `n` rows, `events` of them positive, of `patients`; `resamples` were used, `dropped` had only one class.
    """

    value: float
    low: float
    high: float
    n: int
    events: int
    patients: int
    resamples: int
    dropped: int
    level: float


def interval(
    metric: Metric,
    score: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The metric and its percentile interval under the patient bootstrap.

    `score` (n,), or (n, k) for a metric that takes k numbers a row, and `label` (n,) as in `patientdx.metrics.ranking`;
    `subject` (n,) is one id per row, of a type that can be sorted. A resample that lacks a class has no value: it is
    dropped and counted. Raises ValueError as the metric does, and UserError for settings or sizes that give no interval.
    """
    return intervals({"": metric}, score, label, subject, resamples=resamples, level=level, seed=seed)[""]


def intervals(
    metrics: Mapping[str, Metric],
    score: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """`interval` for several metrics, which share the resamples. Same arguments, same errors."""
    check_level(level)
    label = np.asarray(label)
    values = {name: metric(score, label) for name, metric in metrics.items()}
    drawn = replicates(metrics, score, label, subject, resamples=resamples, seed=seed)
    return {name: _percentiles(values[name], drawn[name], label, subject, level) for name in metrics}


def paired_difference(
    metric: Metric,
    score_a: ArrayLike,
    score_b: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The metric of model a minus that of model b on the same rows, both seen through the same resamples.

    Arguments and errors as in `interval`. An interval that leaves out 0 says that the models differ.
    """
    check_level(level)
    label = np.asarray(label)
    value, drawn_a, drawn_b = paired_replicates(
        metric, score_a, score_b, label, subject, resamples=resamples, seed=seed
    )
    return _percentiles(value, drawn_a - drawn_b, label, subject, level)


def paired_replicates(
    metric: Metric,
    score_a: ArrayLike,
    score_b: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """The metric of model a minus that of b, and each one's on the same resamples, (resamples,) as in `replicates`."""
    value = metric(score_a, label) - metric(score_b, label)
    drawn_a, drawn_b = (
        replicates({"": metric}, score, label, subject, resamples=resamples, seed=seed)[""]
        for score in (score_a, score_b)
    )
    return value, drawn_a, drawn_b


def replicates(
    metrics: Mapping[str, Metric],
    score: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """Each metric on each resample, (resamples,), NaN where a resample has only one class.

    Entry i of every metric, and of every model given the same seed and rows, comes from the same patients.
    """
    if resamples < 1:
        raise UserError(f"resamples={resamples} was asked for; a bootstrap needs at least 1")
    if not np.asarray(score).shape[:1] == np.asarray(label).shape == np.asarray(subject).shape:
        raise ValueError("score, label and subject must be of one shape (n,); score alone may be (n, k)")
    drawn = {name: np.empty(resamples) for name in metrics}
    done = 0
    for weight in patient_weights(subject, resamples, seed):
        for name, metric in metrics.items():
            value = np.asarray(metric(score, label, weight))
            if value.shape != (len(weight),):
                raise UserError(
                    f"the metric {getattr(metric, '__name__', metric)} gave shape {value.shape} for weights "
                    f"{weight.shape}; a metric must return one per resample (see patientdx.metrics.ranking)"
                )
            drawn[name][done : done + len(weight)] = value
        done += len(weight)
    return drawn


def higher_is_better(metric: Metric) -> bool | None:
    """The metric's direction, from `HIGHER_IS_BETTER` in its own module: None where neither more nor less is better.

    Raises UserError if that is silent.
    """
    directions = getattr(sys.modules[metric.__module__], "HIGHER_IS_BETTER", {})
    if metric.__name__ not in directions:
        raise UserError(
            f"{metric.__module__}.{metric.__name__} does not say whether higher is better; "
            f"add it to HIGHER_IS_BETTER in its module"
        )
    return directions[metric.__name__]


def patient_weights(subject: ArrayLike, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Blocks of (some resamples, n): how often each row's patient was drawn."""
    _, patient = np.unique(np.asarray(subject), return_inverse=True)
    patients = int(patient.max()) + 1 if patient.size else 0
    if patients < 2:
        raise UserError(f"a bootstrap by patient needs at least 2 patients; there are {patients}")
    one_row_each = patients == patient.size and np.array_equal(patient, np.arange(patients))
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK // patient.size)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        draw = random.integers(0, patients, size=(rows, patients), dtype=np.int64)
        draw += np.arange(rows)[:, None] * patients
        count = np.bincount(draw.ravel(), minlength=rows * patients).reshape(rows, patients)
        count = count.astype(np.float64)
        yield count if one_row_each else count[:, patient]


def _percentiles(value, drawn, label, subject, level) -> Interval:
    usable = drawn[~np.isnan(drawn)]
    if not usable.size:
        raise UserError(f"none of {drawn.size} resamples held both classes: too few patients for an interval")
    low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        value=float(value),
        low=float(low),
        high=float(high),
        n=int(label.size),
        events=int(label.sum()),
        patients=int(np.unique(np.asarray(subject)).size),
        resamples=int(usable.size),
        dropped=int(drawn.size - usable.size),
        level=level,
    )


def check_level(level: float) -> None:
    """UserError for a level of an interval that is none."""
    if not 0 < level < 1:
        raise UserError(f"level={level} was asked for; an interval's level lies between 0 and 1, such as 0.95")
