"""A severity score as a model: points in, probability of the outcome out."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_LEAST, _MOST = 0.01, 3.0  # log odds a point: more points never mean less risk


class PointsModel:
    """P(event) = 1 / (1 + exp(-(a + b points))), by maximum likelihood with 0.01 <= b <= 3.

    The limits keep the order of the score, of which the AUROC depends, and an end where points separate the outcomes.
    """

    intercept: float
    slope: float

    def fit(self, values: NDArray[np.float64], labels: NDArray[np.int64]) -> PointsModel:
        """Fitted on points (n, 1) and labels (n,), with both outcomes."""
        from scipy.optimize import minimize  # a configuration is checked without it

        points, label = values[:, 0], np.asarray(labels, dtype=np.float64)
        rate = label.mean()

        def loss(fit: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            odds = fit[0] + fit[1] * (points - points.mean())
            residual = 1 / (1 + np.exp(-odds)) - label
            gradient = np.array([residual.mean(), (residual * (points - points.mean())).mean()])
            return float((np.logaddexp(0, odds) - label * odds).mean()), gradient

        start = np.array([np.log(rate / (1 - rate)), 0.1])
        best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(None, None), (_LEAST, _MOST)])
        self.slope = float(best.x[1])
        self.intercept = float(best.x[0] - self.slope * points.mean())
        return self

    def decision_function(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log odds (n,) of points (n, 1)."""
        return self.intercept + self.slope * values[:, 0]


def severity_score(*, score: Literal["sofa", "oasis", "news2"]) -> Any:
    """A published severity score, not yet fitted: `patientdx.records.severity` counts its points.

    Points are no probability; intercept and slope of one are fitted on train, which leaves the AUROC as it is.
    """
    return PointsModel()
