"""How far a probability can be taken at its word.

Metrics follow the contract of `patientdx.metrics.ranking`, `metric(score, label, weight=None)`; the score is the
probability of the event, so it also has to lie between 0 and 1, else ValueError. A resample for which a
metric has no value, for instance a slope for separated classes, is NaN.

Where a logarithm is taken, probabilities of 0 and 1 count as the closest that float64 tells apart from them
(2.2e-16 away, as in scikit-learn's `log_loss`).

Calibration intercept and slope: Cox, Biometrika 1958; Van Calster et al., J. Clin. Epidemiol. 2016.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from scipy.stats import binomtest

from patientdx.metrics.ranking import one_or_many, running_sums, weighted

# Intercept, slope and observed minus expected have a target (0, 1 and 0) and no direction.
HIGHER_IS_BETTER = {"brier": False, "scaled_brier": True, "log_loss": False, "ece": False}

EDGE = float(np.finfo(np.float64).eps)
_STEPS = 200
_CLOSE = 1e-6  # of a step, in logits: what is left after it is of the order of its square


def brier(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> float | NDArray[np.float64]:
    """Mean squared distance of the probability from what happened (Brier 1950); 0 is best."""
    score, label, weight, many = checked(score, label, weight)
    return one_or_many(_mean((score - label) ** 2, label, weight), many)


def scaled_brier(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> float | NDArray[np.float64]:
    """1 - Brier / Brier of the prevalence: 1 is perfect, 0 is what the prevalence alone reaches, below is worse."""
    score, label, weight, many = checked(score, label, weight)
    prevalence = _mean(label, label, weight)
    return one_or_many(1 - _mean((score - label) ** 2, label, weight) / (prevalence * (1 - prevalence)), many)


def log_loss(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> float | NDArray[np.float64]:
    """Mean negative log-likelihood in nats."""
    score, label, weight, many = checked(score, label, weight)
    told = np.clip(np.where(label, score, 1 - score), EDGE, 1 - EDGE)
    return one_or_many(_mean(-np.log(told), label, weight), many)


def ece(
    score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, bins: int = 10
) -> float | NDArray[np.float64]:
    """Expected calibration error: mean over stays of |observed rate - mean probability| of the stay's bin.

    The bins are of equal mass (Nguyen and O'Connor, EMNLP 2015), drawn anew in each resample; tied scores share
    a bin, so there may be fewer than `bins`. Noise counts as error: the value is too high in small samples and
    in resamples more so, hence a percentile interval sits high. Read it beside `ece_if_calibrated`.
    """
    score, label, weight, many = checked(score, label, weight)
    order, ends = _ranked(score)
    mass = running_sums(weight[:, order])[:, ends]
    gap = running_sums((weight * (label - score))[:, order])[:, ends]
    edges = _equal_mass(mass, bins)
    error = np.abs(np.diff(np.take_along_axis(gap, edges, axis=1), axis=1)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        error /= mass[:, -1]
    error[one_class(label, weight)] = np.nan
    return one_or_many(error, many)


def ece_if_calibrated(score: ArrayLike, *, bins: int = 10, draws: int = 100, seed: int = 0) -> float:
    """The ECE to expect of these very probabilities were they right: the mean over outcomes drawn from them.

    An observed ECE that is no larger says nothing against the model. Outcomes of one patient are drawn as
    if independent. Raises ValueError where no draw holds both classes.
    """
    score = np.asarray(score, dtype=np.float64)
    random = np.random.default_rng(seed)
    drawn = (random.random(score.size) < score for _ in range(draws))
    errors = [ece(score, label, bins=bins) for label in drawn if 0 < label.sum() < label.size]
    if not errors:
        raise ValueError(f"none of {draws} drawn outcomes held both classes")
    return float(np.mean(errors))


def observed_minus_expected(
    score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None
) -> float | NDArray[np.float64]:
    """Rate of events minus mean probability: above 0 where the risk is understated."""
    score, label, weight, many = checked(score, label, weight)
    return one_or_many(_mean(label - score, label, weight), many)


def calibration_intercept(
    score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None
) -> float | NDArray[np.float64]:
    """Calibration in the large: a of logit P(event) = a + logit(score), by maximum likelihood; 0 is best.

    Above 0 the risk is understated. All resamples are fitted at once, see `refit`.
    """
    score, label, weight, many = checked(score, label, weight)
    x = _logit(score)
    usable = ~one_class(label, weight)
    found = np.full(len(weight), np.nan)
    found[usable] = _newton(x, label, weight[usable], slope=False)[:, 0]
    return one_or_many(found, many)


def calibration_slope(
    score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None
) -> float | NDArray[np.float64]:
    """b of logit P(event) = a + b logit(score), by maximum likelihood; 1 is best, below 1 is over-confident.

    Where a threshold separates the classes, or the score is constant, there is no such b: NaN in a resample, else
    ValueError. All resamples are fitted at once, see `refit`.
    """
    score, label, weight, many = checked(score, label, weight)
    found = refit(score, label, weight)[:, 1]
    if not many and np.isnan(found[0]):
        raise ValueError(NO_SLOPE)
    return found if many else float(found[0])


NO_SLOPE = "no slope can be fitted: the score is constant, or a threshold separates the classes"


def refit(score: NDArray[np.float64], label: NDArray[np.bool_], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intercept and slope of logit P(event) = a + b logit(score) for each row of weights, (resamples, 2).

    Takes what `checked` gives. NaN where the likelihood has no finite maximum, which for one covariate is exactly where
    the classes do not overlap (Albert and Anderson, Biometrika 1984).
    """
    x = _logit(score)
    low, high = _ends(x, label, weight)
    usable = (low[:, 1] < high[:, 0]) & (low[:, 0] < high[:, 1])  # an absent class has low = inf, high = -inf
    found = np.full((len(weight), 2), np.nan)
    found[usable] = _newton(x, label, weight[usable], slope=True)
    return found


def calibration_curve(
    score: ArrayLike, label: ArrayLike, *, bins: int = 10, level: float = 0.95
) -> list[dict[str, float]]:
    """One dict a bin of equal mass, as in `ece`: n, events, mean probability, observed rate, its Wilson interval.

    The interval takes rows as independent.
    """
    score, label, weight, _ = checked(score, label, None)
    order, ends = _ranked(score)
    rows = ends[_equal_mass(running_sums(weight[:, order])[:, ends], bins)[0]]
    curve = []
    for start, stop in zip(rows[:-1].tolist(), rows[1:].tolist(), strict=True):
        if stop > start:
            here = order[start:stop]
            n, events = stop - start, int(label[here].sum())
            around = binomtest(events, n).proportion_ci(level, method="wilson")
            curve.append({
                "n": n, "events": events, "probability": float(score[here].mean()), "observed": events / n,
                "low": float(around.low), "high": float(around.high),
            })  # fmt: skip
    return curve


def checked(score, label, weight):
    """`ranking.weighted`, and the score must be a probability."""
    score, label, weight, many = weighted(score, label, weight)
    if score.min() < 0 or score.max() > 1:
        raise ValueError(
            f"calibration takes probabilities; these scores run from {score.min():.3g} to {score.max():.3g}"
        )
    return score, label, weight, many


def _logit(score: NDArray[np.float64]) -> NDArray[np.float64]:
    return logit(np.clip(score, EDGE, 1 - EDGE))


def one_class(label, weight) -> NDArray[np.bool_]:
    """(r,): where one class has no weight."""
    sides = (np.einsum("rn,n->r", weight, side.astype(np.float64)) for side in (label, ~label))
    return np.logical_or(*(side <= 0 for side in sides))


def _mean(values, label, weight) -> NDArray[np.float64]:
    """Weighted mean of (n,) for each row of weights (r, n), NaN where one class has no weight."""
    # einsum and not @: what a BLAS adds in which order depends on the number of threads.
    with np.errstate(invalid="ignore"):
        mean = np.einsum("rn,n->r", weight, values.astype(np.float64)) / weight.sum(axis=1)
    mean[one_class(label, weight)] = np.nan
    return mean


def _ranked(score) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows in ascending order, and how many lie at or below each distinct score, after a zero."""
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    return order, np.concatenate([[0], np.flatnonzero(ranked[1:] != ranked[:-1]) + 1, [score.size]])


def _equal_mass(mass: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Columns of the running `mass` (r, m + 1) at which bins end, (r, bins + 1): the first to reach k / bins of it."""
    if bins < 1:
        raise ValueError(f"bins={bins} was asked for; at least 1 is needed")
    wanted = mass[:, -1:] * np.arange(1, bins) / bins  # in this order a whole share is met exactly
    edges = np.zeros((len(mass), bins + 1), dtype=np.int64)
    for row, (running, want) in enumerate(zip(mass, wanted, strict=True)):
        edges[row, 1:-1] = np.searchsorted(running, want)
    edges[:, -1] = mass.shape[1] - 1
    return edges


def _ends(x, label, weight) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smallest and largest x with weight, (r, 2) each: non-events, events."""
    low, high = np.full((len(weight), 2), np.inf), np.full((len(weight), 2), -np.inf)
    for column, rows in enumerate((np.flatnonzero(~label), np.flatnonzero(label))):
        rows = rows[np.argsort(x[rows], kind="stable")]
        held = weight[:, rows] > 0
        some = held.any(axis=1)
        low[some, column] = x[rows][held.argmax(axis=1)][some]
        high[some, column] = x[rows][rows.size - 1 - held[:, ::-1].argmax(axis=1)][some]
    return low, high


def _newton(x, label, weight, *, slope: bool) -> NDArray[np.float64]:
    """Maximum likelihood of logit P = a + b x for each row of weights, (r, 2); with `slope` False b stays 1.

    The caller has seen that the maximum exists. Resamples start at the fit of all rows.
    """
    if not len(weight):
        return np.empty((0, 2))
    centre, spread = (x.mean(), x.std()) if slope else (0.0, 1.0)
    z = (x - centre) / spread
    fit = np.array([[0.0, 0.0 if slope else 1.0]])
    if len(weight) > 1:
        fit = _climb(z, label, np.ones((1, x.size)), fit, slope)
    fit = _climb(z, label, weight, np.repeat(fit, len(weight), axis=0), slope)
    if slope:
        fit[:, 1] /= spread
        fit[:, 0] -= fit[:, 1] * centre
    return fit


def _climb(z, label, weight, fit, slope: bool) -> NDArray[np.float64]:
    """Newton's method from `fit` (r, 2), which it changes, all rows at once; NaN where a row does not settle.

    The step is cut to log(1 + m) / m of Newton's, m being its largest change of a logit: with it the method converges
    from anywhere (Sun and Tran-Dinh, Math. Program. 2019, generalised self-concordant losses).
    """
    ends = np.array([z.min(), z.max()])
    events, events_z = np.einsum("rn,n->r", weight, 1.0 * label), np.einsum("rn,n->r", weight, label * z)
    risk, expected = np.empty_like(weight), np.empty_like(weight)  # large: made once, filled in place
    for _ in range(_STEPS):
        expit(np.add(np.multiply(fit[:, 1:], z, out=risk), fit[:, :1], out=risk), out=risk)
        np.multiply(weight, risk, out=expected)
        pull = np.stack([events - expected.sum(axis=1), events_z - np.einsum("rn,n->r", expected, z)])
        expected *= np.subtract(1.0, risk, out=risk)
        step = _newton_step(pull, expected, z, slope)
        most = np.abs(step[:, :1] + step[:, 1:] * ends).max(axis=1)
        fit += step * (np.log1p(most) / np.where(most > 0, most, 1.0))[:, None]
        if most.max() <= _CLOSE:
            break
    fit[most > _CLOSE] = np.nan
    return fit


def _newton_step(pull, bend, z, slope: bool) -> NDArray[np.float64]:
    """(r, 2) from the gradient (2, r) and from what each row of data adds to the curvature (r, n)."""
    curvature = bend.sum(axis=1) + 1e-200
    if not slope:
        return np.stack([pull[0] / curvature, np.zeros(len(bend))], axis=1)
    cross, square = np.einsum("rn,n->r", bend, z), np.einsum("rn,n->r", bend, z * z) + 1e-200
    # Held above rounding; a larger determinant only shortens the step.
    determinant = np.maximum(curvature * square - cross**2, 1e-14 * curvature * square)
    first, second = square * pull[0] - cross * pull[1], curvature * pull[1] - cross * pull[0]
    return np.stack([first, second], axis=1) / determinant[:, None]
