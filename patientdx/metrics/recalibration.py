"""Probabilities put right on one set of rows, to be used on another.

Both fits are of maximum likelihood on the logit of the probability. Fit them on pilot and apply them to test: fitted
and judged on the same rows they say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit

from patientdx.metrics.calibration import EDGE, NO_SLOPE, checked, refit


@dataclass(frozen=True)
class Recalibration:
    """P(event) = 1 / (1 + exp(-(intercept + slope * logit(score)))). A slope below 0 turns the order round."""

    intercept: float
    slope: float

    def __call__(self, score: ArrayLike) -> NDArray[np.float64]:
        """The recalibrated probabilities of scores (n,) between 0 and 1, float64 (n,)."""
        score = np.asarray(score, dtype=np.float64)
        return expit(self.intercept + self.slope * logit(np.clip(score, EDGE, 1 - EDGE)))


def logistic(score: ArrayLike, label: ArrayLike) -> Recalibration:
    """Intercept and slope (Cox, Biometrika 1958; Platt 1999 without his smoothed targets).

    Raises ValueError as calibration metrics do, and where the likelihood has no finite maximum.
    """
    intercept, slope = refit(*checked(score, label, None)[:3])[0].tolist()
    if np.isnan(slope):
        raise ValueError(NO_SLOPE)
    return Recalibration(intercept, slope)


def temperature(score: ArrayLike, label: ArrayLike) -> Recalibration:
    """Slope 1 / T alone, T > 0 (Guo et al., ICML 2017).

    The likelihood's slope in 1 / T falls steadily, so T is its one root. Raises ValueError where there is none: scores
    that are on the right side of 0.5 in every row (T = 0), or that fit best as 0.5 throughout (T = infinity).
    """
    score, label, _, _ = checked(score, label, None)
    x = logit(np.clip(score, EDGE, 1 - EDGE))

    def rise(inverse: float) -> float:
        return float(x @ (label - expit(inverse * x)))

    if not (x * (label - 0.5) < 0).any():
        raise ValueError("no temperature can be fitted: every score is on its label's side of 0.5")
    if rise(0.0) <= 0:
        raise ValueError("no temperature can be fitted: a probability of 0.5 for all rows is likelier than any")
    high = 1.0
    while rise(high) > 0:
        high *= 2
    return Recalibration(0.0, float(brentq(rise, 0.0, high, xtol=1e-14, rtol=1e-12)))
