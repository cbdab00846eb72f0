"""How many answers are right.

Metrics as in `patientdx.metrics.ranking`, `metric(score, label, weight=None)` with (n,) or (resamples, n) weights, of
other scores: `accuracy` takes what was answered beside what is right, `share` how many were right out of how many.
All raise ValueError for arrays that do not fit together or hold what is not a number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

HIGHER_IS_BETTER = {"accuracy": True, "share": True, "accuracy_at_half": True}


def accuracy(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> float | NDArray[np.float64]:
    """The share of rows whose answer `score` (n,) is the right one, `label` (n,): numbers of options, or counts."""
    score, label, weight = checked(score, label, weight)
    return ratio((score == label).astype(np.float64), np.ones(score.size), weight)


def share(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> float | NDArray[np.float64]:
    """All that was right, `score` (n,), out of all that was asked, `label` (n,): a ratio of sums over the rows.

    Raises ValueError where a row has more right than asked, or nothing is asked at all.
    """
    score, label, weight = checked(score, label, weight)
    if (score < 0).any() or (score > label).any() or not label.any():
        raise ValueError("each row must have 0 to `label` of its `label` parts right, and some row must have parts")
    return ratio(score, label, weight)


def accuracy_at_half(
    score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None
) -> float | NDArray[np.float64]:
    """The share of rows on the right side of one half: probabilities `score` (n,) against labels 0 and 1."""
    score, label, weight = checked(score, label, weight)
    if not np.isin(label, (0, 1)).all():
        raise ValueError("labels are 0 and 1")
    return ratio(((score > 0.5) == (label == 1)).astype(np.float64), np.ones(score.size), weight)


def checked(score, label, weight) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]:
    """Score and label as float64 (n,), weight as float64 (n,) or (resamples, n) or None; ValueError for others."""
    score, label = (np.asarray(one, dtype=np.float64) for one in (score, label))
    if score.ndim != 1 or score.shape != label.shape or not score.size:
        raise ValueError(f"score and label must be of one shape (n,); they are {score.shape} and {label.shape}")
    if not (np.isfinite(score).all() and np.isfinite(label).all()):
        raise ValueError("score and label must be numbers")
    if weight is None:
        return score, label, None
    weight = np.asarray(weight, dtype=np.float64)
    if weight.shape[-1:] != score.shape or weight.ndim > 2 or not (weight >= 0).all():
        raise ValueError(f"weight must be (n,) or (resamples, n) of numbers that are not negative, not {weight.shape}")
    return score, label, weight


def ratio(right: NDArray[np.float64], asked: NDArray[np.float64], weight) -> float | NDArray[np.float64]:
    """The weighted sum of `right` (n,) by that of `asked` (n,), or one a row of weights; NaN where none weighs."""
    if weight is None:
        return float(right.sum() / asked.sum())
    with np.errstate(invalid="ignore"):
        found = (weight @ right) / (weight @ asked)
    return float(found) if weight.ndim == 1 else found
