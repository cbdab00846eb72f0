"""How many members an attack finds at few false alarms, with an exact interval."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta

LEAST_ALARMS = 10  # false alarms that a rate must allow, or its threshold hangs on one or two records


def tpr_at(score: ArrayLike, member: ArrayLike, fpr: float, *, level: float = 0.95) -> dict[str, Any]:
    """Share of members above the threshold that at most a share `fpr` of the non-members passes.

    score (n,), higher means member; member (n,) of 0 and 1. An estimate {value, low, high, found, members,
    false_alarms, non_members} with the exact binomial interval for the threshold found; or {value: None, reason} with
    so few non-members that `fpr` allows fewer than 10 of them.
    """
    score, member = np.asarray(score, dtype=np.float64), np.asarray(member).astype(bool)
    inside, outside = score[member], np.sort(score[~member])[::-1]
    allowed = math.floor(fpr * len(outside) + 1e-9)
    if allowed < LEAST_ALARMS:
        needed = math.ceil(LEAST_ALARMS / fpr - 1e-9)
        return {"value": None, "reason": f"not resolvable with {len(outside)} non-members: {needed} are needed"}
    threshold = outside[allowed]  # the first non-member that must not pass
    found = int((inside > threshold).sum())
    low, high = clopper_pearson(found, len(inside), level=level)
    return {
        "value": found / len(inside), "low": low, "high": high, "found": found, "members": len(inside),
        "false_alarms": int((outside > threshold).sum()), "non_members": len(outside),
    }  # fmt: skip


def clopper_pearson(hits: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a binomial share (Clopper and Pearson 1934)."""
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.ppf(1 - tail, hits + 1, trials - hits))
    return low, high
