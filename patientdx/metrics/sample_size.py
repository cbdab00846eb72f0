"""How sure a validation of some size can be, and which size would be enough.

The standard error of an AUROC: Hanley and McNeil, Radiology 1982; sizes for an interval of the AUROC and of the ratio
of observed to expected events: Riley et al., Stat. Med. 2021 (validation of a model of a binary outcome). Rows count as
independent: with several stays a patient the true intervals are wider.
"""

from __future__ import annotations

from math import ceil, sqrt
from statistics import NormalDist
from typing import Any

AUROC = 0.8  # at which the size is judged
HALF_WIDTH = 0.05  # of an interval that is narrow enough
RATIO = 0.1  # observed over expected, either side of 1
ENOUGH = 100  # events, and as many others: Vergouwe et al., J. Clin. Epidemiol. 2005


def statement(n: int, events: int, *, level: float = 0.95, auroc: float = AUROC) -> dict[str, Any]:
    """What a sample of `n` rows with `events` allows, with events and others.

    `half_width` of the AUROC's interval; `rows_for_auroc` and `rows_for_ratio`: rows that are needed, at this
    prevalence, for a half width of HALF_WIDTH and a ratio of observed to expected events within RATIO; `enough`: at
    least ENOUGH events and others. Without both outcomes the numbers are None.
    """
    allowed: dict[str, Any] = {"n": n, "events": events, "auroc": auroc, "enough": min(events, n - events) >= ENOUGH}
    if events in (0, n):
        return allowed | {"half_width": None, "rows_for_auroc": None, "rows_for_ratio": None}
    quantile, prevalence = NormalDist().inv_cdf(0.5 + level / 2), events / n
    # The width falls with the size: bisection between two rows of the rarer outcome and more than any register has.
    low, high = ceil(2 / min(prevalence, 1 - prevalence)), 10**9
    while low < high:
        size = (low + high) // 2
        narrow = quantile * standard_error(auroc, size, prevalence * size) <= HALF_WIDTH
        low, high = (low, size) if narrow else (size + 1, high)
    return allowed | {
        "half_width": quantile * standard_error(auroc, n, events),
        "rows_for_auroc": low,
        "rows_for_ratio": ceil((1 - prevalence) / (prevalence * (RATIO / quantile) ** 2)),
    }


def standard_error(auroc: float, n: float, events: float) -> float:
    """Of an AUROC from `events` and n - events others, under Hanley and McNeil's exponential model."""
    others = n - events
    both_above, both_below = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    spread = auroc * (1 - auroc) + (events - 1) * (both_above - auroc**2) + (others - 1) * (both_below - auroc**2)
    return sqrt(max(spread, 0.0) / (events * others))
