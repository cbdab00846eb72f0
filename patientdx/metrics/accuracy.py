"""How many answers are right.

Metrics as in `patientdx.metrics.specification`, `metric(score, label, weight=None)`, of other scores: `accuracy` takes
the answer beside the right one, `share` how many parts were right out of how many. All raise ValueError for arrays
that do not fit together or hold what is not a number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.metrics.specification import Values, metric

Rows = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]


@metric("accuracy", greater_is_better=True, takes="answers", low=0, high=1)
def accuracy(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Values:
    """The fraction of rows whose answer `score` (n,) is the right one, `label` (n,): numbers of options, or counts."""
    score, label, weight = check_rows(score, label, weight)
    return ratio((score == label).astype(np.float64), np.ones(score.size), weight)


@metric("share of parts", greater_is_better=True, takes="counts", low=0, high=1)
def share(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Values:
    """All parts that were right, `score` (n,), out of all parts, `label` (n,): a ratio of sums over the rows.

    Raises ValueError where a row has more parts right than it has, or no row has parts.
    """
    score, label, weight = check_rows(score, label, weight)
    if (score < 0).any() or (score > label).any() or not label.any():
        raise ValueError("each row must have 0 to `label` of its `label` parts right, and some row must have parts")
    return ratio(score, label, weight)


@metric("accuracy", greater_is_better=True, takes="probabilities", low=0, high=1)
def accuracy_at_half(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Values:
    """The fraction of rows on the right side of one half: probabilities `score` (n,) against labels 0 and 1."""
    score, label, weight = check_rows(score, label, weight)
    if not np.isin(label, (0, 1)).all():
        raise ValueError("labels are 0 and 1")
    return ratio(((score > 0.5) == (label == 1)).astype(np.float64), np.ones(score.size), weight)


def check_rows(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None, columns: int = 0) -> Rows:
    """Score float64 (n,), or (n, columns) of so many `columns`; label float64 (n,); weight float64 as it is, or None.

    Raises ValueError for arrays of other shapes, and for weights that are negative.
    """
    score, label = np.asarray(score, dtype=np.float64), np.asarray(label, dtype=np.float64)
    if label.ndim != 1 or not label.size or score.shape != ((label.size, columns) if columns else label.shape):
        shape = f"(n, {columns})" if columns else "(n,)"
        raise ValueError(f"score must be {shape} and label (n,); they are {score.shape} and {label.shape}")
    if not (np.isfinite(score).all() and np.isfinite(label).all()):
        raise ValueError("score and label must be numbers")
    if weight is None:
        return score, label, None
    weight = np.asarray(weight, dtype=np.float64)
    if weight.shape[-1:] != label.shape or weight.ndim > 2 or not (weight >= 0).all():
        raise ValueError(f"weight must be (n,) or (resamples, n) of numbers that are not negative, not {weight.shape}")
    return score, label, weight


def ratio(
    numerator: NDArray[np.float64], denominator: NDArray[np.float64], weight: NDArray[np.float64] | None
) -> Values:
    """The weighted sum of one column (n,) over that of another, or one per resample; NaN where no row has weight."""
    if weight is None:
        return float(numerator.sum() / denominator.sum())
    with np.errstate(invalid="ignore"):
        values = (weight @ numerator) / (weight @ denominator)
    return float(values) if weight.ndim == 1 else values
