"""Numbers with their uncertainty as plain dicts, ready for JSON; what cannot be estimated has a reason.

An estimate is `{"value", "low", "high"}`: the metric and its interval by patients (see `patientdx.metrics.bootstrap`),
with `events` where rows have one: how many have it or do not, whichever are fewer. An interval by resamples has
`dropped`, how many of them had no value. What cannot be estimated is `{"value": None, "reason": ...}`; a value without
an interval has `low` and `high` None, and a `reason`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.metrics.bootstrap import Bootstrap, BootstrapOptions, Name, Spread, ends, percentile_interval, spreads
from patientdx.metrics.jackknife import Jackknife
from patientdx.metrics.specification import Metric

Estimate = dict[str, Any]
Drawn = dict[Name, Spread]

FEW_PATIENTS = "too few patients, or too few with an event, for an interval"


def estimates(
    metrics: Mapping[Name, Metric],
    score: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    **options: Unpack[BootstrapOptions],
) -> tuple[dict[Name, Estimate], Drawn[Name]]:
    """An estimate of each metric, and what its interval comes from for those that have a value.

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
    drawn = spreads(estimable, score, label, subject, bootstrap)
    result |= {name: estimate(value, drawn[name], bootstrap.level, metrics[name]) for name, value in values.items()}
    return {name: result[name] for name in metrics}, drawn


def estimate(value: float, spread: Spread, level: float, metric: Metric | None = None) -> Estimate:
    """A value with its interval: by a jackknife of the `metric`, or the percentiles of resamples (resamples,), of which
    NaN are dropped. ValueError for a jackknife without its metric."""
    if not isinstance(spread, Jackknife):
        return _by_percentiles(value, spread, level)
    if metric is None:
        raise ValueError("the scale of an interval by jackknife is that of its metric")
    return with_ends(value, *ends(value, spread, level, metric), spread)


def with_ends(value: float, low: float, high: float, spread: Spread) -> Estimate:
    """An estimate with these ends, None and a reason where they are NaN."""
    result: Estimate = {"value": float(value), "low": low, "high": high}
    if isinstance(spread, Jackknife) and spread.deletion.events is not None:
        result["events"] = spread.deletion.events
    return result | ({"low": None, "high": None, "reason": FEW_PATIENTS} if math.isnan(low) else {})


def _by_percentiles(value: float, drawn: NDArray[np.float64], level: float) -> Estimate:
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

    @functools.wraps(metric)
    def of_score(_, label, weight=None):
        return metric(score, label, weight)

    return of_score


def on_rows(metric: Metric, rows: NDArray[np.int64]) -> Metric:
    """The metric of some rows, by number; all patients are still drawn."""

    @functools.wraps(metric)
    def within(score, label, weight=None):
        return metric(score[rows], label[rows], None if weight is None else weight[..., rows])

    return within
