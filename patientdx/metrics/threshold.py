"""Alerts at a threshold: choosing it on one set of rows, judging it on another.

An alert is score >= threshold. Metrics follow the contract of `patientdx.metrics.ranking`, with their threshold or
target as a keyword; a resample for which a metric has no value, for instance a PPV without alerts, is NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.metrics.calibration import one_class
from patientdx.metrics.ranking import around_events, one_or_many, running_sums, weighted

HIGHER_IS_BETTER = {
    "sensitivity": True,
    "specificity": True,
    "ppv": True,
    "npv": True,
    "alerts_per_100": False,
    "sensitivity_at_specificity": True,
}


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
    """The highest score at which the sensitivity reaches `target`, a share above 0 and up to 1."""
    if not 0 < target <= 1:
        raise ValueError(f"a sensitivity of {target} was asked for; it must be above 0 and at most 1")
    thresholds, sensitivity, _ = _operating_points(score, label)
    return float(thresholds[np.flatnonzero(sensitivity >= target - 1e-12)[-1]])


def sensitivity(
    score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, threshold: float
) -> float | NDArray[np.float64]:
    """Share of events with an alert."""
    return _share(score, label, weight, lambda alert, event: (alert & event, event), threshold)


def specificity(
    score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, threshold: float
) -> float | NDArray[np.float64]:
    """Share of non-events without an alert."""
    return _share(score, label, weight, lambda alert, event: (~alert & ~event, ~event), threshold)


def ppv(
    score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, threshold: float
) -> float | NDArray[np.float64]:
    """Positive predictive value: share of alerts that are events. ValueError without an alert."""
    return _share(score, label, weight, lambda alert, event: (alert & event, alert), threshold)


def npv(
    score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, threshold: float
) -> float | NDArray[np.float64]:
    """Negative predictive value: share of rows without an alert that are non-events. ValueError without such."""
    return _share(score, label, weight, lambda alert, event: (~alert & ~event, ~alert), threshold)


def alerts_per_100(
    score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, threshold: float
) -> float | NDArray[np.float64]:
    """Alerts per 100 rows."""
    return 100 * _share(score, label, weight, lambda alert, event: (alert, alert | ~alert), threshold)


def sensitivity_at_specificity(
    score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, target: float
) -> float | NDArray[np.float64]:
    """The largest sensitivity of a threshold whose specificity is at least `target`, looked up on these rows.

    No interpolation between thresholds; 0 where none will do.
    """
    if not 0 <= target <= 1:
        raise ValueError(f"a specificity of {target} was asked for; it must lie between 0 and 1")
    score, label, weight, many = weighted(score, label, weight)
    weight_pos, _, false_alarms, total_neg = around_events(score, label, weight)
    ranked = np.sort(score[label])  # the columns of weight_pos
    running = running_sums(weight_pos)
    total_pos = running[:, -1]
    hits = total_pos[:, None] - running[:, np.searchsorted(ranked, ranked, side="left")]
    allowed = false_alarms <= (total_neg * (1 - target + 1e-12))[:, None]
    with np.errstate(invalid="ignore"):
        share = np.where(allowed, hits, 0.0).max(axis=1) / total_pos
    share[total_neg <= 0] = np.nan
    return one_or_many(share, many)


def _operating_points(score, label):
    """The distinct scores, rising, with sensitivity and specificity when each is the threshold."""
    score, label, _, _ = weighted(score, label, None)
    thresholds = np.unique(score)
    hits, false_alarms = (
        1 - np.searchsorted(np.sort(side), thresholds, side="left") / side.size
        for side in (score[label], score[~label])
    )
    return thresholds, hits, 1 - false_alarms


def _share(score, label, weight, of, threshold):
    """Weight of the rows in the numerator over that in the denominator, which `of(alert, event)` tells apart."""
    score, label, weight, many = weighted(score, label, weight)
    chosen, among = (np.einsum("rn,n->r", weight, rows.astype(np.float64)) for rows in of(score >= threshold, label))
    with np.errstate(invalid="ignore"):
        share = chosen / among
    share[one_class(label, weight)] = np.nan
    if not many and np.isnan(share[0]):
        raise ValueError("nothing to take a share of: every row is on the other side of the threshold")
    return share if many else float(share[0])
