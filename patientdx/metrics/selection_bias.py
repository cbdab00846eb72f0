"""The winner's curse: what the best of several candidates is worth once it is not judged by what it was chosen by.

The best of eleven noisy values is too good. So the choice is made again in every resample of patients, and whoever
wins there is judged on the patients that this resample left out (the bootstrap bias correction of Tsamardinos,
Greasidou and Borboudakis, Machine Learning 2018, with patients for rows). A resample judges on about 37 % of the
patients: the interval is wider than that of a model that nobody chose, and rather too wide than too narrow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.metrics.bootstrap import Metric, check_level, higher_is_better, patient_weights


def winner(
    metric: Metric,
    scores: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    *,
    chosen: int | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """The best of K candidates on the rows that it was chosen on: its value as it stands and corrected.

    scores: (K, n), candidates in the order that settles ties, rows as in `label` (n,) and `subject` (n,). A score
    may be NaN where a candidate was dropped before the end: its value is then the chosen one's plus their difference
    on the rows that both have. chosen: the number of the candidate that was chosen, with a score on every row; None
    for the best.
    Returns `chosen`, `value`, `corrected` with its percentile interval `low`, `high`, `optimism` (value less corrected,
    in units of the metric), `stability` (share of resamples that choose the same), `selected` (that share for every
    candidate; of those that choose at all), `resamples` used and `dropped` (patients of one class only, drawn or left
    out: nothing to choose or to judge by). Without a usable resample the
    estimates are None and `reason` says why. Raises ValueError and UserError as `bootstrap.interval` does.
    """
    check_level(level)
    scores, label = np.asarray(scores, dtype=np.float64), np.asarray(label)
    sign = 1.0 if higher_is_better(metric) else -1.0
    full = ~np.isnan(scores).any(axis=1)
    if chosen is None:
        values = [sign * metric(score, label) if whole else -np.inf for score, whole in zip(scores, full, strict=True)]
        chosen = int(np.argmax(values))
    if not full[chosen]:
        raise ValueError("the chosen candidate must have a score on every row")
    picked, judged = [], []
    for weight in patient_weights(subject, resamples, seed):
        inside = sign * _values(metric, scores, label, weight, chosen)
        outside = _values(metric, scores, label, (weight == 0).astype(np.float64), chosen)
        best = np.where(np.isnan(inside), -np.inf, inside).argmax(axis=0)
        chooses = ~np.isnan(inside).all(axis=0)  # patients of one class choose nobody
        picked.append(best[chooses])
        judged.append(np.where(chooses, outside[best, np.arange(best.size)], np.nan))
    return _answer(float(metric(scores[chosen], label)), chosen, len(scores), picked, np.concatenate(judged), level)


def _values(metric: Metric, scores, label, weight, chosen: int) -> NDArray[np.float64]:
    """(K, r): each candidate on each resample; where it lacks rows, by its difference from the chosen one."""
    reference = metric(scores[chosen], label, weight)
    found = np.empty((len(scores), len(weight)))
    for number, score in enumerate(scores):
        rows = np.flatnonzero(~np.isnan(score))
        if rows.size == score.size:
            found[number] = reference if number == chosen else metric(score, label, weight)
            continue
        here = (label[rows], weight[:, rows])
        found[number] = reference + metric(score[rows], *here) - metric(scores[chosen][rows], *here)
    return found


def _answer(value: float, chosen: int, candidates: int, picked, judged, level: float) -> dict[str, Any]:
    picked = np.concatenate(picked)
    selected = np.bincount(picked, minlength=candidates) / max(1, picked.size)
    usable = judged[~np.isnan(judged)]
    found = {"chosen": chosen, "value": value, "corrected": None, "low": None, "high": None, "optimism": None}
    if usable.size:
        low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
        corrected = float(usable.mean())
        found |= {"corrected": corrected, "low": float(low), "high": float(high), "optimism": value - corrected}
    else:
        found["reason"] = "no resample leaves out patients of both classes: too few patients to correct by"
    return found | {
        "stability": float(selected[chosen]),
        "selected": selected.tolist(),
        "resamples": int(usable.size),
        "dropped": int(judged.size - usable.size),
    }
