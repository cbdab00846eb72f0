"""Whether a probability of x % comes true in x % of the cases, and corrections where it does not.

Metrics as in `patientdx.metrics.ranking`, `metric(score, label, weight=None)`; the score is the probability of the
event, so it also has to lie between 0 and 1, else ValueError. A resample for which a metric has no value, for instance
a slope for separated classes, is NaN.

Where a logarithm is taken, probabilities of 0 and 1 count as the closest that float64 tells apart from them
(2.2e-16 away, as in scikit-learn's `log_loss`).

Calibration intercept and slope: Cox, Biometrika 1958; Van Calster et al., J. Clin. Epidemiol. 2016. A `Recalibration`
is fitted by maximum likelihood on the logit of the probability: fit it on pilot and apply it to test, for on the rows
of the fit it proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import binomtest

from patientdx.metrics.ranking import check_scores, running_sums, scalar_or_array
from patientdx.metrics.specification import Values, metric

EDGE = float(np.finfo(np.float64).eps)
NO_SLOPE = "no slope can be fitted: the score is constant, or a threshold separates the classes"
_STEPS = 200
_CLOSE = 1e-6  # of a step, in logits: what is left after it is of the order of its square


@metric("Brier score", greater_is_better=False, takes="probabilities", low=0, high=1)
def brier(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Values:
    """Mean squared distance of the probability from what happened (Brier 1950); 0 is best."""
    score, label, weight, many = check_probabilities(score, label, weight)
    return scalar_or_array(_mean((score - label) ** 2, label, weight), many)


@metric("scaled Brier score", greater_is_better=True, takes="probabilities")
def scaled_brier(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Values:
    """1 - Brier / Brier of the prevalence: 1 is perfect, 0 is what the prevalence alone reaches, below is worse."""
    score, label, weight, many = check_probabilities(score, label, weight)
    prevalence = _mean(label, label, weight)
    return scalar_or_array(1 - _mean((score - label) ** 2, label, weight) / (prevalence * (1 - prevalence)), many)


@metric("log loss", greater_is_better=False, takes="probabilities", low=0)
def log_loss(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Values:
    """Mean negative log-likelihood in nats."""
    score, label, weight, many = check_probabilities(score, label, weight)
    likelihood = np.clip(np.where(label, score, 1 - score), EDGE, 1 - EDGE)
    return scalar_or_array(_mean(-np.log(likelihood), label, weight), many)


@metric("expected calibration error", greater_is_better=False, takes="probabilities", is_smooth=False)
def ece(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, bins: int = 10) -> Values:
    """Expected calibration error: mean over stays of |observed rate - mean probability| of the stay's bin.

    The bins are of equal mass (Nguyen and O'Connor, EMNLP 2015), drawn anew in each resample; tied scores share
    a bin, so there may be fewer than `bins`. Noise counts as error: the value is too high in small samples and
    in resamples more so, hence a percentile interval sits high. Read it beside `ece_if_calibrated`.
    """
    score, label, weight, many = check_probabilities(score, label, weight)
    order, ends = _sorted_rows(score)
    mass = running_sums(weight[:, order])[:, ends]
    gap = running_sums((weight * (label - score))[:, order])[:, ends]
    edges = _equal_mass(mass, bins)
    error = np.abs(np.diff(np.take_along_axis(gap, edges, axis=1), axis=1)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        error /= mass[:, -1]
    error[lacks_class(label, weight)] = np.nan
    return scalar_or_array(error, many)


def ece_if_calibrated(score: ArrayLike, *, bins: int = 10, draws: int = 100, seed: int = 0) -> float:
    """The ECE to expect of these very probabilities were they right: the mean over outcomes drawn from them.

    An observed ECE that is no larger is no evidence against the model. Outcomes of one patient are drawn as
    if independent. Raises ValueError where no draw holds both classes.
    """
    score = np.asarray(score, dtype=np.float64)
    random = np.random.default_rng(seed)
    drawn = (random.random(score.size) < score for _ in range(draws))
    errors = [float(ece(score, label, bins=bins)) for label in drawn if 0 < label.sum() < label.size]
    if not errors:
        raise ValueError(f"none of {draws} drawn outcomes held both classes")
    return float(np.mean(errors))


@metric("observed − expected", greater_is_better=None, takes="probabilities")
def observed_minus_expected(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Values:
    """Rate of events minus mean probability: above 0 where the risk is understated."""
    score, label, weight, many = check_probabilities(score, label, weight)
    return scalar_or_array(_mean(label - score, label, weight), many)


@metric("calibration intercept", greater_is_better=None, takes="probabilities")
def calibration_intercept(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Values:
    """Calibration in the large: a of logit P(event) = a + logit(score), by maximum likelihood; 0 is best.

    Above 0 the risk is understated. All resamples are fitted at once, see `refit`.
    """
    score, label, weight, many = check_probabilities(score, label, weight)
    x = _logit(score)
    usable = ~lacks_class(label, weight)
    intercept = np.full(len(weight), np.nan)
    intercept[usable] = _newton(x, label, weight[usable], slope=False)[:, 0]
    return scalar_or_array(intercept, many)


@metric("calibration slope", greater_is_better=None, takes="probabilities")
def calibration_slope(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Values:
    """b of logit P(event) = a + b logit(score), by maximum likelihood; 1 is best, below 1 is over-confident.

    Where a threshold separates the classes, or the score is constant, there is no such b: NaN in a resample, else
    ValueError. All resamples are fitted at once, see `refit`.
    """
    score, label, weight, many = check_probabilities(score, label, weight)
    slope = refit(score, label, weight)[:, 1]
    if not many and np.isnan(slope[0]):
        raise ValueError(NO_SLOPE)
    return slope if many else float(slope[0])


def refit(score: NDArray[np.float64], label: NDArray[np.bool_], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intercept and slope of logit P(event) = a + b logit(score) for each row of weights, (resamples, 2).

    Arguments as `check_probabilities` returns them. NaN where the likelihood has no finite maximum, which for one
    covariate is exactly where the classes do not overlap (Albert and Anderson, Biometrika 1984).
    """
    x = _logit(score)
    low, high = _ends(x, label, weight)
    usable = (low[:, 1] < high[:, 0]) & (low[:, 0] < high[:, 1])  # an absent class has low = inf, high = -inf
    fit = np.full((len(weight), 2), np.nan)
    fit[usable] = _newton(x, label, weight[usable], slope=True)
    return fit


def calibration_curve(
    score: ArrayLike, label: ArrayLike, *, bins: int = 10, level: float = 0.95
) -> list[dict[str, float]]:
    """One dict a bin of equal mass, as in `ece`: n, events, mean probability, observed rate, its Wilson interval.

    The interval takes rows as independent.
    """
    score, label, weight, _ = check_probabilities(score, label, None)
    order, ends = _sorted_rows(score)
    edges = ends[_equal_mass(running_sums(weight[:, order])[:, ends], bins)[0]]
    curve = []
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if stop > start:
            rows_of_bin = order[start:stop]
            n, events = stop - start, int(label[rows_of_bin].sum())
            wilson = binomtest(events, n).proportion_ci(level, method="wilson")
            curve.append({
                "n": n, "events": events, "probability": float(score[rows_of_bin].mean()), "observed": events / n,
                "low": float(wilson.low), "high": float(wilson.high),
            })  # fmt: skip
    return curve


@dataclass(frozen=True)
class Recalibration:
    """P(event) = 1 / (1 + exp(-(intercept + slope * logit(score)))). A slope below 0 reverses the order."""

    intercept: float
    slope: float

    def __call__(self, score: ArrayLike) -> NDArray[np.float64]:
        """The recalibrated probabilities of scores (n,) between 0 and 1, float64 (n,)."""
        score = np.asarray(score, dtype=np.float64)
        return expit(self.intercept + self.slope * _logit(score))


def fit_logistic(score: ArrayLike, label: ArrayLike) -> Recalibration:
    """Intercept and slope (Cox, Biometrika 1958; Platt 1999 without his smoothed targets).

    Raises ValueError as calibration metrics do, and where the likelihood has no finite maximum.
    """
    intercept, slope = refit(*check_probabilities(score, label, None)[:3])[0].tolist()
    if np.isnan(slope):
        raise ValueError(NO_SLOPE)
    return Recalibration(intercept, slope)


def fit_temperature(score: ArrayLike, label: ArrayLike) -> Recalibration:
    """Slope 1 / T alone, T > 0 (Guo et al., ICML 2017).

    The likelihood's slope in 1 / T falls steadily, so T is its one root. Raises ValueError where there is none: scores
    that are on the right side of 0.5 in every row (T = 0), or that fit best as 0.5 throughout (T = infinity).
    """
    score, label, _, _ = check_probabilities(score, label, None)
    x = _logit(score)

    def gradient(inverse: float) -> float:
        return float(x @ (label - expit(inverse * x)))

    if not (x * (label - 0.5) < 0).any():
        raise ValueError("no temperature can be fitted: every score is on its label's side of 0.5")
    if gradient(0.0) <= 0:
        raise ValueError("no temperature can be fitted: a probability of 0.5 for all rows is likelier than any")
    high = 1.0
    while gradient(high) > 0:
        high *= 2
    inverse = np.float64(brentq(gradient, 0.0, high, xtol=1e-14, rtol=np.float64(1e-12)))  # pyright: ignore[reportArgumentType]
    return Recalibration(0.0, float(inverse))


def check_probabilities(
    score: ArrayLike, label: ArrayLike, weight: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64], bool]:
    """`ranking.check_scores`, and the score must be a probability."""
    score, label, weight, many = check_scores(score, label, weight)
    if score.min() < 0 or score.max() > 1:
        raise ValueError(
            f"calibration takes probabilities; these scores run from {score.min():.3g} to {score.max():.3g}"
        )
    return score, label, weight, many


def _logit(score: NDArray[np.float64]) -> NDArray[np.float64]:
    return logit(np.clip(score, EDGE, 1 - EDGE))


def lacks_class(label, weight) -> NDArray[np.bool_]:
    """(r,): where one class has no weight."""
    sides = (np.einsum("rn,n->r", weight, side.astype(np.float64)) for side in (label, ~label))
    return np.logical_or(*(side <= 0 for side in sides))


def _mean(values, label, weight) -> NDArray[np.float64]:
    """Weighted mean of (n,) for each row of weights (r, n), NaN where one class has no weight."""
    # einsum and not @: what a BLAS adds in which order depends on the number of threads.
    with np.errstate(invalid="ignore"):
        mean = np.einsum("rn,n->r", weight, values.astype(np.float64)) / weight.sum(axis=1)
    mean[lacks_class(label, weight)] = np.nan
    return mean


def _sorted_rows(score) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows in ascending order, and how many lie at or below each distinct score, after a zero."""
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    return order, np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, [score.size]])


def _equal_mass(mass: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Columns of the running `mass` (r, m + 1) at which bins end, (r, bins + 1): the first to reach k / bins of it."""
    if bins < 1:
        raise ValueError(f"bins={bins} is not valid: at least 1 is needed")
    targets = mass[:, -1:] * np.arange(1, bins) / bins  # in this order an integer target is met exactly
    edges = np.zeros((len(mass), bins + 1), dtype=np.int64)
    for row, (running, target) in enumerate(zip(mass, targets, strict=True)):
        edges[row, 1:-1] = np.searchsorted(running, target)
    edges[:, -1] = mass.shape[1] - 1
    return edges


def _ends(x, label, weight) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smallest and largest x with weight, (r, 2) each: non-events, events."""
    low, high = np.full((len(weight), 2), np.inf), np.full((len(weight), 2), -np.inf)
    for column, rows in enumerate((np.flatnonzero(~label), np.flatnonzero(label))):
        rows = rows[np.argsort(x[rows], kind="stable")]
        has_weight = weight[:, rows] > 0
        some = has_weight.any(axis=1)
        low[some, column] = x[rows][has_weight.argmax(axis=1)][some]
        high[some, column] = x[rows][rows.size - 1 - has_weight[:, ::-1].argmax(axis=1)][some]
    return low, high


def _newton(x, label, weight, *, slope: bool) -> NDArray[np.float64]:
    """Maximum likelihood of logit P = a + b x for each row of weights, (r, 2); with `slope` False b stays 1.

    The caller has checked that the maximum exists. Resamples start at the fit of all rows.
    """
    if not len(weight):
        return np.empty((0, 2))
    centre, spread = (x.mean(), x.std()) if slope else (0.0, 1.0)
    z = (x - centre) / spread
    fit = np.array([[0.0, 0.0 if slope else 1.0]])
    if len(weight) > 1:
        fit = _ascend(z, label, np.ones((1, x.size)), fit, slope)
    fit = _ascend(z, label, weight, np.repeat(fit, len(weight), axis=0), slope)
    if slope:
        fit[:, 1] /= spread
        fit[:, 0] -= fit[:, 1] * centre
    return fit


def _ascend(z, label, weight, fit, slope: bool) -> NDArray[np.float64]:
    """Newton's method from `fit` (r, 2), which it changes, all rows at once; NaN where a row does not converge.

    The step is cut to log(1 + m) / m of Newton's, m being its largest change of a logit: with it the method converges
    from anywhere (Sun and Tran-Dinh, Math. Program. 2019, generalised self-concordant losses).
    """
    ends = np.array([z.min(), z.max()])
    events, events_z = np.einsum("rn,n->r", weight, 1.0 * label), np.einsum("rn,n->r", weight, label * z)
    risk, expected = np.empty_like(weight), np.empty_like(weight)  # large: made once, filled in place
    change = np.full(len(weight), np.inf)
    for _ in range(_STEPS):
        expit(np.add(np.multiply(fit[:, 1:], z, out=risk), fit[:, :1], out=risk), out=risk)
        np.multiply(weight, risk, out=expected)
        gradient = np.stack([events - expected.sum(axis=1), events_z - np.einsum("rn,n->r", expected, z)])
        expected *= np.subtract(1.0, risk, out=risk)
        step = _newton_step(gradient, expected, z, slope)
        change = np.abs(step[:, :1] + step[:, 1:] * ends).max(axis=1)
        fit += step * (np.log1p(change) / np.where(change > 0, change, 1.0))[:, None]
        if change.max() <= _CLOSE:
            break
    fit[change > _CLOSE] = np.nan
    return fit


def _newton_step(gradient, curvature, z, slope: bool) -> NDArray[np.float64]:
    """(r, 2) from the gradient (2, r) and from what each row of data adds to the curvature (r, n)."""
    total = curvature.sum(axis=1) + 1e-200
    if not slope:
        return np.stack([gradient[0] / total, np.zeros(len(curvature))], axis=1)
    cross, square = np.einsum("rn,n->r", curvature, z), np.einsum("rn,n->r", curvature, z * z) + 1e-200
    # Held above rounding; a larger determinant only shortens the step.
    determinant = np.maximum(total * square - cross**2, 1e-14 * total * square)
    first, second = square * gradient[0] - cross * gradient[1], total * gradient[1] - cross * gradient[0]
    return np.stack([first, second], axis=1) / determinant[:, None]
