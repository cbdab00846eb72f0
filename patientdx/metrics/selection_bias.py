"""Selection bias: what the best of several candidates is worth on patients that did not choose it.

The best of eleven noisy values is too good. So the choice is made again in every resample of patients, and the
candidate chosen there is judged on the patients that this resample left out (the bootstrap bias correction of
Tsamardinos, Greasidou and Borboudakis, Machine Learning 2018, with patients for rows). A resample judges on about 37 %
of the patients: the interval is wider than that of a model that was not chosen, and rather too wide than too narrow.

A choice can only be made again among candidates that were scored on all rows. Of a race, whose losers are dropped
early, neither a correction among the rest (+0.04 at 52 patients) nor one by differences on the rows that the losers
have (-0.05) is without bias: docs/intervals.md. It gets none.
"""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.metrics.bootstrap import Bootstrap, BootstrapOptions, patient_weights, percentile_interval
from patientdx.metrics.specification import Metric, higher_is_better

DROPPED = "not all candidates were scored on every row, so the choice cannot be made again"


def winner(
    metric: Metric,
    scores: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    *,
    chosen: int | None = None,
    **options: Unpack[BootstrapOptions],
) -> dict[str, Any]:
    """The best of K candidates on the rows that it was chosen on: its value as it stands and corrected.

    scores: (K, n), candidates in the order that settles ties, rows as in `label` (n,) and `subject` (n,); NaN where a
    candidate was dropped before the end. chosen: the number of the candidate that was chosen, with a score on every
    row; None for the best. options: as in `bootstrap.Bootstrap`.

    Returns `chosen`, `value`, `corrected` with its percentile interval `low`, `high`, `optimism` (value minus
    corrected, in units of the metric), `stability` (fraction of resamples that choose the same), `selected` (that
    fraction for every candidate; of resamples that choose at all), `resamples` used and `dropped` (patients of one
    class only, drawn or left out: no choice or no judgement). Without a usable resample, or where a candidate was
    dropped, the estimates are None and `reason` is given. Raises ValueError and UserError as `bootstrap.interval` does.
    """
    bootstrap = Bootstrap(**options)
    scores, label = np.asarray(scores, dtype=np.float64), np.asarray(label)
    sign = 1.0 if higher_is_better(metric) else -1.0
    complete = np.logical_not(np.isnan(scores).any(axis=1))
    if chosen is None:
        values = np.full(len(scores), -np.inf)
        values[complete] = [sign * metric(score, label) for score in scores[complete]]
        chosen = int(np.argmax(values))
    if not complete[chosen]:
        raise ValueError("the chosen candidate must have a score on every row")
    value = float(metric(scores[chosen], label))
    if not complete.all():
        nothing = dict.fromkeys(("corrected", "low", "high", "optimism", "stability", "selected"))
        return {"chosen": chosen, "value": value, **nothing, "reason": DROPPED}
    picked, judged = [], []
    for weight in patient_weights(subject, bootstrap.resamples, bootstrap.seed):
        inside = sign * _values(metric, scores, label, weight)
        outside = _values(metric, scores, label, (weight == 0).astype(np.float64))
        best = np.where(np.isnan(inside), -np.inf, inside).argmax(axis=0)
        chooses = ~np.isnan(inside).all(axis=0)  # a resample with patients of one class chooses no candidate
        picked.append(best[chooses])
        judged.append(np.where(chooses, outside[best, np.arange(best.size)], np.nan))
    selected = np.bincount(np.concatenate(picked), minlength=len(scores)) / max(1, sum(map(len, picked)))
    values = np.concatenate(judged)
    used = int((~np.isnan(values)).sum())
    return {
        "chosen": chosen,
        "value": value,
        **_corrected(value, values, bootstrap.level),
        "stability": float(selected[chosen]),
        "selected": selected.tolist(),
        "resamples": used,
        "dropped": values.size - used,
    }


def _values(metric: Metric, scores, label, weight) -> NDArray[np.float64]:
    """(K, r): each candidate on each resample."""
    return np.array([metric(score, label, weight) for score in scores])


def _corrected(value: float, judged: NDArray[np.float64], level: float) -> dict[str, Any]:
    """The corrected value with its interval from the candidates' values (resamples,) on the patients left out."""
    low, high, used = percentile_interval(judged, level)
    if not used:
        reason = "no resample leaves out patients of both classes: too few patients to correct by"
        return {"corrected": None, "low": None, "high": None, "optimism": None, "reason": reason}
    corrected = float(judged[~np.isnan(judged)].mean())
    return {"corrected": corrected, "low": low, "high": high, "optimism": value - corrected}
