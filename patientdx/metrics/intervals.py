"""Numbers with their uncertainty as plain dicts, ready for JSON; what cannot be estimated says why.

An estimate is `{"value", "low", "high", "dropped"}`: the metric, its percentile interval by patient bootstrap (see
`patientdx.metrics.bootstrap`), and how many resamples had no value. What cannot be estimated is
`{"value": None, "reason": ...}`; a value without an interval has `low` and `high` None, and a `reason`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.metrics.bootstrap import Metric, check_level, replicates

Estimate = dict[str, Any]
Drawn = dict[str, NDArray[np.float64]]


def estimates(
    metrics: Mapping[str, Metric],
    score: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[dict[str, Estimate], Drawn]:
    """An estimate of each metric, and the metric on each resample (resamples,) for those that have a value.

    Arguments as in `bootstrap.intervals`. A metric that raises ValueError on the rows themselves is not
    estimable, with its words as the reason. Raises UserError for settings or sizes that give no interval.
    """
    check_level(level)
    score, label = np.asarray(score, dtype=np.float64), np.asarray(label)
    values, found = {}, {}
    for name, metric in metrics.items():
        try:
            values[name] = float(metric(score, label))
        except ValueError as error:
            found[name] = absent(str(error))
    kept = {name: metrics[name] for name in values}
    drawn = replicates(kept, score, label, subject, resamples=resamples, seed=seed)
    found |= {name: estimate(value, drawn[name], level) for name, value in values.items()}
    return {name: found[name] for name in metrics}, drawn


def estimate(value: float, drawn: NDArray[np.float64], level: float) -> Estimate:
    """A value with the percentile interval of its resamples (resamples,), of which NaN are dropped."""
    usable = drawn[~np.isnan(drawn)]
    dropped = int(drawn.size - usable.size)
    if not usable.size:
        reason = f"none of {drawn.size} resamples has a value: too few patients for an interval"
        return {"value": float(value), "low": None, "high": None, "dropped": dropped, "reason": reason}
    low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
    return {"value": float(value), "low": float(low), "high": float(high), "dropped": dropped}


def absent(reason: str) -> Estimate:
    """The estimate of what cannot be estimated."""
    return {"value": None, "reason": reason}


def on_scores(metric: Callable[..., Any], score: NDArray[np.float64]) -> Metric:
    """The metric of these scores (n,), whatever scores it is then given: another model through the same resamples."""
    return lambda _, label, weight=None: metric(score, label, weight)


def on_rows(metric: Callable[..., Any], rows: NDArray[np.int64]) -> Metric:
    """The metric of some rows, by number, of whatever it is given; all patients are still drawn."""

    def within(score, label, weight=None):
        return metric(score[rows], label[rows], None if weight is None else weight[..., rows])

    return within
