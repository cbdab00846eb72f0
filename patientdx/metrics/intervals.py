"""Numbers with their uncertainty as plain dicts, ready for JSON; what cannot be estimated has a reason.

An estimate is `{"value", "low", "high", "dropped"}`: the metric, its percentile interval by patient bootstrap (see
`patientdx.metrics.bootstrap`), and how many resamples had no value. What cannot be estimated is
`{"value": None, "reason": ...}`; a value without an interval has `low` and `high` None, and a `reason`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.metrics.bootstrap import Bootstrap, BootstrapOptions, Name, percentile_interval, replicates
from patientdx.metrics.specification import Metric

Estimate = dict[str, Any]
Drawn = dict[Name, NDArray[np.float64]]


def estimates(
    metrics: Mapping[Name, Metric],
    score: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    **options: Unpack[BootstrapOptions],
) -> tuple[dict[Name, Estimate], Drawn[Name]]:
    """An estimate of each metric, and the metric on each resample (resamples,) for those that have a value.

    Arguments as in `bootstrap.intervals`. A metric that raises ValueError on the rows themselves is not
    estimable, with the error's message as the reason. Raises UserError for settings or sizes that give no interval.
    """
    bootstrap = Bootstrap(**options)
    score, label = np.asarray(score, dtype=np.float64), np.asarray(label)
    values, result = {}, {}
    for name, metric in metrics.items():
        try:
            values[name] = float(metric(score, label))
        except ValueError as error:
            result[name] = absent(str(error))
    estimable = {name: metrics[name] for name in values}
    drawn = replicates(estimable, score, label, subject, resamples=bootstrap.resamples, seed=bootstrap.seed)
    result |= {name: estimate(value, drawn[name], bootstrap.level) for name, value in values.items()}
    return {name: result[name] for name in metrics}, drawn


def estimate(value: float, drawn: NDArray[np.float64], level: float) -> Estimate:
    """A value with the percentile interval of its resamples (resamples,), of which NaN are dropped."""
    low, high, used = percentile_interval(drawn, level)
    dropped = drawn.size - used
    if not used:
        reason = f"none of {drawn.size} resamples has a value: too few patients for an interval"
        return {"value": float(value), "low": None, "high": None, "dropped": dropped, "reason": reason}
    return {"value": float(value), "low": low, "high": high, "dropped": dropped}


def absent(reason: str) -> Estimate:
    """The estimate of what cannot be estimated."""
    return {"value": None, "reason": reason}


def on_scores(metric: Metric, score: NDArray[np.float64]) -> Metric:
    """The metric of these scores (n,), whatever scores it is called with: another model on the same resamples."""
    return lambda _, label, weight=None: metric(score, label, weight)


def on_rows(metric: Metric, rows: NDArray[np.int64]) -> Metric:
    """The metric of some rows, by number; all patients are still drawn."""

    def within(score, label, weight=None):
        return metric(score[rows], label[rows], None if weight is None else weight[..., rows])

    return within
