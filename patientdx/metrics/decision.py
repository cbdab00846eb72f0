"""Decisions by a threshold on the score: choosing it, judging it, and what acting on it would gain.

An alert is score >= threshold; choose a threshold on one set of rows and judge it on another. Metrics as in
`patientdx.metrics.ranking`, with their threshold or target as a keyword; a resample for which a metric has no value,
for instance a PPV without alerts, is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.metrics.calibration import check_probabilities, lacks_class
from patientdx.metrics.ranking import around_events, check_scores, running_sums, scalar_or_array
from patientdx.metrics.specification import Values, metric

PERCENTS = tuple(percent / 100 for percent in range(1, 51))


def youden_threshold(score: ArrayLike, label: ArrayLike) -> float:
    """The score with the largest sensitivity + specificity - 1 (Youden, Cancer 1950); of equals the highest.

    Raises ValueError as metrics do, and where no threshold is better than chance.
    """
    thresholds, sensitivity, specificity = _operating_points(score, label)
    gain = sensitivity + specificity - 1
    best = int(np.flatnonzero(gain >= gain.max() - 1e-12)[-1])
    if gain[best] <= 1e-12:
        raise ValueError("no threshold does better than chance: sensitivity + specificity is nowhere above 1")
    return float(thresholds[best])


def threshold_for_sensitivity(score: ArrayLike, label: ArrayLike, target: float) -> float:
    """The highest score at which the sensitivity reaches `target`, a fraction above 0 and up to 1."""
    if not 0 < target <= 1:
        raise ValueError(f"a sensitivity of {target} is not valid: it must be above 0 and at most 1")
    thresholds, sensitivity, _ = _operating_points(score, label)
    return float(thresholds[np.flatnonzero(sensitivity >= target - 1e-12)[-1]])


def threshold_for_alerts(score: ArrayLike, label: ArrayLike, share: float) -> float:
    """The lowest score at which alerts go off for no more than a `share` of the rows, above 0 and below 1.

    Raises ValueError as metrics do, and where so many rows share the highest score that it alone gives more alerts.
    """
    if not 0 < share < 1:
        raise ValueError(f"a share of alerts of {share} is not valid: it must lie between 0 and 1")
    score, _, _, _ = check_scores(score, label, None)
    thresholds = np.unique(score)
    alerts = 1 - np.searchsorted(np.sort(score), thresholds, side="left") / score.size
    allowed = np.flatnonzero(alerts <= share + 1e-12)
    if not allowed.size:
        raise ValueError(f"the highest score alone gives {alerts[-1]:.1%} alerts, more than {share:.1%}")
    return float(thresholds[allowed[0]])


@metric("sensitivity", greater_is_better=True, takes="scores", low=0, high=1)
def sensitivity(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, threshold: float) -> Values:
    """Fraction of events with an alert."""
    return _fraction(score, label, weight, lambda alert, event: (alert & event, event), threshold)


@metric("specificity", greater_is_better=True, takes="scores", low=0, high=1)
def specificity(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, threshold: float) -> Values:
    """Fraction of non-events without an alert."""
    return _fraction(score, label, weight, lambda alert, event: (~alert & ~event, ~event), threshold)


@metric("FPR", greater_is_better=False, takes="scores", low=0, high=1)
def false_positive_rate(
    score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, threshold: float
) -> Values:
    """Fraction of non-events with an alert."""
    return _fraction(score, label, weight, lambda alert, event: (alert & ~event, ~event), threshold)


@metric("PPV", greater_is_better=True, takes="scores", low=0, high=1)
def ppv(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, threshold: float) -> Values:
    """Positive predictive value: fraction of alerts that are events. ValueError without an alert."""
    return _fraction(score, label, weight, lambda alert, event: (alert & event, alert), threshold)


@metric("NPV", greater_is_better=True, takes="scores", low=0, high=1)
def npv(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, threshold: float) -> Values:
    """Negative predictive value: fraction of rows without an alert that are non-events. ValueError without such."""
    return _fraction(score, label, weight, lambda alert, event: (~alert & ~event, ~alert), threshold)


@metric("alerts per 100", greater_is_better=False, takes="scores", low=0, high=100)
def alerts_per_100(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, threshold: float) -> Values:
    """Alerts per 100 rows."""
    return 100 * _fraction(score, label, weight, lambda alert, event: (alert, alert | ~alert), threshold)


@metric("sensitivity at specificity", greater_is_better=True, takes="scores", is_smooth=False)
def sensitivity_at_specificity(
    score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, target: float
) -> Values:
    """The largest sensitivity of a threshold whose specificity is at least `target`, taken from these rows.

    No interpolation between thresholds; 0 where none is high enough.
    """
    if not 0 <= target <= 1:
        raise ValueError(f"a specificity of {target} is not valid: it must lie between 0 and 1")
    score, label, weight, many = check_scores(score, label, weight)
    weight_pos, _, false_alarms, total_neg = around_events(score, label, weight)
    ordered = np.sort(score[label])  # the columns of weight_pos
    running = running_sums(weight_pos)
    total_pos = running[:, -1]
    hits = total_pos[:, None] - running[:, np.searchsorted(ordered, ordered, side="left")]
    allowed = false_alarms <= (total_neg * (1 - target + 1e-12))[:, None]
    with np.errstate(invalid="ignore"):
        fraction = np.where(allowed, hits, 0.0).max(axis=1) / total_pos
    fraction[total_neg <= 0] = np.nan
    return scalar_or_array(fraction, many)


@metric("net benefit", greater_is_better=True, takes="probabilities")
def net_benefit(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, threshold: float) -> Values:
    """TP/n - FP/n * t / (1 - t) of acting where score >= t (Vickers and Elkin 2006), per row."""
    score, label, weight, many = check_probabilities(score, label, weight)
    gain = np.where(label, 1.0, -threshold / (1 - threshold)) * (score >= threshold)
    with np.errstate(invalid="ignore"):
        benefit = np.einsum("rn,n->r", weight, gain) / weight.sum(axis=1)
    benefit[lacks_class(label, weight)] = np.nan
    return scalar_or_array(benefit, many)


def decision_curve(
    score: ArrayLike, label: ArrayLike, thresholds: Sequence[float] = PERCENTS
) -> dict[str, list[float]]:
    """Net benefit per row at each threshold t, acting where score >= t: TP/n - FP/n * t / (1 - t).

    Vickers and Elkin, Med. Decis. Making 2006. `score` (n,) are probabilities and `label` (n,) is 0 or 1, as in
    `patientdx.metrics.calibration`. Returns lists of equal length: `threshold`, `model`, `treat_all` and `treat_none`
    (always 0). Raises ValueError as metrics do, and for a threshold that does not lie between 0 and 1.
    """
    score, label, _, _ = check_probabilities(score, label, None)
    t = np.asarray(thresholds, dtype=np.float64)
    if not ((t > 0) & (t < 1)).all():
        raise ValueError("thresholds of a decision curve must lie between 0 and 1")
    odds = t / (1 - t)
    hits, false_alarms = (
        side.size - np.searchsorted(np.sort(side), t, side="left") for side in (score[label], score[~label])
    )
    events = int(label.sum())
    return {
        "threshold": t.tolist(),
        "model": ((hits - false_alarms * odds) / label.size).tolist(),
        "treat_all": ((events - (label.size - events) * odds) / label.size).tolist(),
        "treat_none": [0.0] * t.size,
    }


def _operating_points(
    score: ArrayLike, label: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The distinct scores, rising, with sensitivity and specificity when each is the threshold."""
    score, label, _, _ = check_scores(score, label, None)
    thresholds = np.unique(score)
    hits, false_alarms = (
        1 - np.searchsorted(np.sort(side), thresholds, side="left") / side.size
        for side in (score[label], score[~label])
    )
    return thresholds, hits, 1 - false_alarms


def _fraction(
    score: ArrayLike,
    label: ArrayLike,
    weight: ArrayLike | None,
    select: Callable[[NDArray[np.bool_], NDArray[np.bool_]], tuple[NDArray[np.bool_], NDArray[np.bool_]]],
    threshold: float,
) -> Values:
    """Weight of the rows in the numerator over that in the denominator, both from `select(alert, event)`."""
    score, label, weight, many = check_scores(score, label, weight)
    numerator, denominator = (
        np.einsum("rn,n->r", weight, rows.astype(np.float64)) for rows in select(score >= threshold, label)
    )
    with np.errstate(invalid="ignore"):
        fraction = numerator / denominator
    fraction[lacks_class(label, weight)] = np.nan
    if not many and np.isnan(fraction[0]):
        raise ValueError("nothing to take a share of: every row is on the other side of the threshold")
    return fraction if many else float(fraction[0])
