"""What acting on a probability would gain: decision curves (Vickers and Elkin, Med. Decis. Making 2006)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from patientdx.metrics.calibration import checked

PERCENTS = tuple(percent / 100 for percent in range(1, 51))


def decision_curve(
    score: ArrayLike, label: ArrayLike, thresholds: Sequence[float] = PERCENTS
) -> dict[str, list[float]]:
    """Net benefit per row at each threshold t, acting where score >= t: TP/n - FP/n * t / (1 - t).

    `score` (n,) are probabilities and `label` (n,) is 0 or 1, as in `patientdx.metrics.calibration`. Returns lists of
    equal length: `threshold`, `model`, `treat_all` and `treat_none` (always 0). Raises ValueError as metrics do, and
    for a threshold that does not lie between 0 and 1.
    """
    score, label, _, _ = checked(score, label, None)
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
