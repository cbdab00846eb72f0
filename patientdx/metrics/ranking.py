"""How well a score ranks events above non-events.

Metrics as in `patientdx.metrics.specification`, `metric(score, label, weight=None)`:

- `score`: (n,) floats, higher means that the event is more likely; any scale, ties allowed.
- `label`: (n,) of 0 and 1 (or booleans), 1 where the event happened.
- `weight`: None, (n,) or (resamples, n). With (resamples, n) the scores are sorted once; a resample without weight on
  one of the classes is NaN.

All raise ValueError for arrays that do not fit together, a score that is not a number, a label outside {0, 1}
and a class that does not occur.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.metrics.specification import Values, metric

Points = list[tuple[float, float]]

_ONE_CLASS = "both classes are needed; the weights leave out one of them"


@metric("AUROC", greater_is_better=True, takes="scores", low=0, high=1, ranks=True)
def auroc(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Values:
    """Area under the ROC curve: the chance that an event outranks a non-event, ties counting one half.

    The Mann-Whitney form (Hanley and McNeil, Radiology 1982): the weight of the non-events below each event
    is read from one cumulative sum. Arguments, shapes and errors: see the module.
    """
    score, label, weight, many = check_scores(score, label, weight)
    weight_pos, below, _, total_neg = around_events(score, label, weight)
    total_pos = weight_pos.sum(axis=1)
    with np.errstate(invalid="ignore"):
        area = np.einsum("rp,rp->r", weight_pos, below) / (total_pos * total_neg)
    return scalar_or_array(area, many)


@metric("AUPRC", greater_is_better=True, takes="scores", low=0, high=1, is_biased=True)
def auprc(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Values:
    """Average precision: the step-wise area under the precision-recall curve, without interpolation.

    Sum over events of the precision at the event's own threshold, divided by the number of events; tied
    scores share one threshold. This is scikit-learn's `average_precision_score`; its chance level is the
    prevalence.
    Arguments, shapes and errors: see the module.
    """
    score, label, weight, many = check_scores(score, label, weight)
    weight_pos, _, false_alarms, total_neg = around_events(score, label, weight)
    total_pos = weight_pos.sum(axis=1)
    ordered = np.sort(score[label])  # the columns of weight_pos
    from_threshold = np.searchsorted(ordered, ordered, side="left")
    hits = total_pos[:, None] - running_sums(weight_pos)[:, from_threshold]
    # With no weight at or above a threshold its own event has none either and adds nothing: any divisor does.
    alarms = hits + false_alarms
    alarms[alarms <= 0] = 1.0
    hits /= alarms
    with np.errstate(invalid="ignore"):
        area = np.einsum("rp,rp->r", weight_pos, hits) / total_pos
    area[total_neg <= 0] = np.nan
    return scalar_or_array(area, many)


def roc_curve(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, points: int = 200) -> Points:
    """(False positive rate, true positive rate) from (0, 0) to (1, 1), at most `points` of them.

    `weight` is None or (n,). Points on a straight piece are left out first, so short curves are exact.
    """
    hits, false_alarms = _thresholds(score, label, weight)
    return _thinned(false_alarms / false_alarms[-1], hits / hits[-1], points)


def pr_curve(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, points: int = 200) -> Points:
    """(Recall, precision) with recall rising from 0 to 1, at most `points` of them.

    It starts at (0, 1) by convention, as scikit-learn's does. `weight` is None or (n,).
    """
    hits, false_alarms = _thresholds(score, label, weight)
    alarms = hits + false_alarms
    precision = np.divide(hits, alarms, out=np.ones_like(hits), where=alarms > 0)
    return _thinned(hits / hits[-1], precision, points)


def check_scores(
    score: ArrayLike, label: ArrayLike, weight: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64], bool]:
    """Float64 (n,), bool (n,) and float64 (resamples, n), and whether `weight` had several resamples."""
    score = np.asarray(score, dtype=np.float64)
    label = np.asarray(label)
    if score.ndim != 1 or label.shape != score.shape:
        shapes = f"{score.shape} and {label.shape}"
        raise ValueError(f"score and label must be of one shape (n,); they are {shapes}")
    if np.isnan(score).any():
        raise ValueError(f"{int(np.isnan(score).sum())} of {score.size} scores are not a number")
    if label.dtype != bool:
        if not np.isin(label, (0, 1)).all():
            raise ValueError("labels must be 0 or 1")
        label = label.astype(bool)
    events = int(label.sum())
    if events in (0, label.size):
        raise ValueError(f"both classes are needed; {events} of {label.size} rows are events")
    weight = np.ones(score.size) if weight is None else np.asarray(weight, dtype=np.float64)
    if weight.ndim not in (1, 2) or weight.shape[-1] != score.size:
        raise ValueError(f"weight must be (n,) or (resamples, n) with n = {score.size}; it is {weight.shape}")
    if weight.size and not (weight.min() >= 0 and np.isfinite(weight.max())):
        raise ValueError("weights must be finite and not negative")
    return score, label, np.atleast_2d(weight), weight.ndim == 2


def around_events(score, label, weight):
    """What both areas are computed from, with the p events in ascending order of score.

    Returns the events' weights (r, p), the weight of non-events below each with ties at one half (r, p), the
    weight of non-events at or above each (r, p), and that of all non-events (r,).
    """
    rows_pos, rows_neg = np.flatnonzero(label), np.flatnonzero(~label)
    rows_pos = rows_pos[np.argsort(score[rows_pos], kind="stable")]
    rows_neg = rows_neg[np.argsort(score[rows_neg], kind="stable")]
    running = running_sums(weight[:, rows_neg])
    lower = running[:, np.searchsorted(score[rows_neg], score[rows_pos], side="left")]
    upper = running[:, np.searchsorted(score[rows_neg], score[rows_pos], side="right")]
    total = running[:, -1]
    upper += lower
    upper /= 2
    return weight[:, rows_pos], upper, total[:, None] - lower, total


def running_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(r, k) to (r, k + 1): cumulative sums along the rows, starting at zero."""
    sums = np.empty((values.shape[0], values.shape[1] + 1))
    sums[:, 0] = 0.0
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def scalar_or_array(values: NDArray[np.float64], many: bool) -> Values:
    """The value of each resample (r,), or without resamples the only one; ValueError where that is NaN."""
    if many:
        return values
    if np.isnan(values[0]):
        raise ValueError(_ONE_CLASS)
    return float(values[0])


def _thresholds(score, label, weight) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight of events and of non-events at or above each distinct score, from the highest, after a zero."""
    score, label, weight, many = check_scores(score, label, weight)
    if many:
        raise ValueError("a curve takes one weight per row, (n,)")
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    last_of_tie = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), score.size - 1)
    weight_ranked, label_ranked = weight[0][order], label[order]
    hits = np.append(0.0, np.cumsum(weight_ranked * label_ranked)[last_of_tie])
    false_alarms = np.append(0.0, np.cumsum(weight_ranked * ~label_ranked)[last_of_tie])
    if hits[-1] <= 0 or false_alarms[-1] <= 0:
        raise ValueError(_ONE_CLASS)
    return hits, false_alarms


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64], points: int) -> Points:
    """At most `points` of the vertices, both ends kept, spread evenly along the curve's length."""
    if points < 2:
        raise ValueError(f"a curve needs at least 2 points, not {points}")
    bend = np.diff(x[:-1]) * np.diff(y[1:]) - np.diff(x[1:]) * np.diff(y[:-1])
    keep = np.concatenate([[True], np.abs(bend) > 1e-15, [True]])
    x, y = x[keep], y[keep]
    if x.size > points:
        along = np.append(0.0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
        chosen = np.searchsorted(along, np.linspace(0.0, along[-1], points))
        chosen = np.unique(np.append(chosen[:-1], x.size - 1))
        x, y = x[chosen], y[chosen]
    return list(zip(x.tolist(), y.tolist(), strict=True))
