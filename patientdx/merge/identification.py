"""Least squares that say which merge a tensor is: candidates beside it, and the rounding that a right answer leaves.

The sampled elements of k candidates and of the merged tensor are the columns of a matrix (n, k + 1), the merged tensor
last. Its triangular factor R (k + 1, k + 1), from Householder reflections, replaces it: |R w| is |matrix w| for every w
to float64's precision, where products of the columns with themselves would keep half of the digits. All fits below are
therefore systems of a few rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Triangle = NDArray[np.float64]
FLOAT32 = torch.finfo(torch.float32).eps  # what coefficients and operations of other tools carry at best
# A tool that works in the stored dtype rounds coefficients, products, the sum and its division by the weights' sum, and
# an average of two numbers of that dtype often lies at half a step: up to nine times the variance of a random rounding.
ALLOWED = 3.0
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_LOST = 1e-13  # of the columns' length: a difference below it is rounding of float64
_STEPS = 50
DETERMINED = 0.05  # a λ with a larger standard error says nothing about the spread of λ


@dataclass(frozen=True)
class Rounding:
    """What rounding is expected to leave in n elements, as sums of squares.

    dtype: the coarsest in which every element is exact, which may be coarser than the stored one. stored: of one
    rounding to that dtype. computed: of arithmetic in float32, the least that merge tools use.
    """

    dtype: torch.dtype
    stored: float
    computed: float

    @property
    def total(self) -> float:
        """Both sums: the expected sum of squared residuals of a right answer."""
        return self.stored + self.computed


@dataclass(frozen=True)
class Fit:
    """The best point of one hypothesis for one tensor.

    squares: sum of squared residuals. weights: the λ of the hypothesis, NaN where the tensor does not determine it.
    errors: the standard error of each for a noise of standard deviation 1 an element; infinite where undetermined.
    coefficients: of every candidate (k,). parameters: how many λ were determined.
    """

    squares: float
    weights: tuple[float, ...]
    errors: tuple[float, ...]
    coefficients: tuple[float, ...]
    parameters: int


def exact_dtype(values: Tensor) -> torch.dtype:
    """The coarsest of bfloat16, float16 and float32 that holds all elements exactly; else the tensor's own dtype."""
    coarser = (dtype for dtype in _DTYPES if torch.finfo(dtype).eps > torch.finfo(values.dtype).eps)
    return next((dtype for dtype in coarser if torch.equal(values.to(dtype).to(values.dtype), values)), values.dtype)


def rounding(values: Tensor) -> Rounding:
    """The rounding expected in the elements of a merged tensor of any floating dtype and shape.

    The error of one rounding is taken as uniform over a step of the dtype: a variance of step² / 12.
    """
    dtype = exact_dtype(values)
    info, exact = torch.finfo(dtype), values.double()
    powers = torch.exp2((torch.frexp(exact).exponent - 1).double()).masked_fill_(exact == 0, 0.0)
    steps = info.eps * powers.clamp_(min=info.tiny)
    return Rounding(dtype, float(steps.square().sum()) / 12, FLOAT32**2 * float(exact.square().sum()))


def triangle(blocks: Iterable[Tensor]) -> Triangle:
    """The triangular factor R (columns, columns) of a matrix that is given as float64 blocks (rows, columns).

    Memory: one block. Raises ValueError where there is no block.
    """
    factor: Tensor | None = None
    for block in blocks:
        stacked = block if factor is None else torch.cat([factor, block])
        factor = torch.linalg.qr(stacked, mode="r").R
    if factor is None:
        raise ValueError("no elements to compare: give at least one block")
    square = np.zeros((factor.shape[1], factor.shape[1]))
    square[: factor.shape[0]] = factor.numpy()
    return square


def fit_affine(factor: Triangle, origin: int, directions: Sequence[Sequence[float]]) -> Fit:
    """merged = candidate `origin` + Σ λᵢ directionᵢ, each direction a sum of candidates with these coefficients (k,).

    Directions that vanish or depend on others leave all λ of the fit undetermined; the residual is right all the same.
    """
    candidates = factor[:, :-1]
    matrix = candidates @ np.asarray(directions, dtype=float).T  # (k + 1, directions)
    target = factor[:, -1] - candidates[:, origin]
    left, singular, right = np.linalg.svd(matrix, full_matrices=False)
    kept = singular > _LOST * np.abs(factor).max()
    inverse = right[kept].T / singular[kept]
    solution = inverse @ (left[:, kept].T @ target)
    residual = target - matrix @ solution
    coefficients = solution @ np.asarray(directions, dtype=float)
    coefficients[origin] += 1.0
    determined = bool(kept.all())
    errors = np.sqrt(np.square(inverse).sum(1)) if determined else np.full(len(directions), math.inf)
    weights = solution if determined else np.full(len(directions), math.nan)
    return Fit(
        float(residual @ residual), tuple(map(float, weights)), tuple(map(float, errors)),
        tuple(map(float, coefficients)), int(kept.sum()),
    )  # fmt: skip


def fit_copy(factor: Triangle, candidate: int) -> Fit:
    """merged = a candidate: nothing is fitted."""
    residual = factor[:, -1] - factor[:, candidate]
    coefficients = np.zeros(factor.shape[1] - 1)
    coefficients[candidate] = 1.0
    return Fit(float(residual @ residual), (), (), tuple(map(float, coefficients)), 0)


def fit_line(factor: Triangle, base: int, pivot: int) -> Fit:
    """merged = base + λ (pivot - base), for any real λ."""
    return fit_affine(factor, base, [difference(factor.shape[1] - 1, [pivot], base)])


def difference(count: int, parents: Sequence[int], ancestor: int) -> tuple[float, ...]:
    """Coefficients (count,) of the sum of the parents' differences from the ancestor."""
    coefficients = [0.0] * count
    for parent in parents:
        coefficients[parent] += 1.0
        coefficients[ancestor] -= 1.0
    return tuple(coefficients)


def fit_arc(factor: Triangle, base: int, pivot: int, angle: float | None) -> Fit:
    """merged = sin((1 - λ) θ) / sin θ · base + sin(λ θ) / sin θ · pivot, λ from 0 to 1; see `patientdx.merge.slerp`.

    angle: θ in radians between the complete tensors, not between the sampled elements; sin θ is not 0. None: SLERP
    takes the straight line. The first λ is that of the free coefficients (α, β), tan(λ θ) = β sin θ / (α + β cos θ);
    Gauss-Newton steps lead to the optimum.
    """
    if angle is None:
        return _fit_segment(factor, base, pivot)
    a, b, merged = factor[:, base], factor[:, pivot], factor[:, -1]
    (alpha, beta), *_ = np.linalg.lstsq(np.stack([a, b], axis=1), merged, rcond=None)
    sine = math.sin(angle)
    weight = _clipped(math.atan2(beta * sine, alpha + beta * math.cos(angle)) / angle)

    def residual(at: float) -> NDArray[np.float64]:
        return merged - (math.sin((1 - at) * angle) * a + math.sin(at * angle) * b) / sine

    def slope(at: float) -> NDArray[np.float64]:
        return angle * (math.cos(at * angle) * b - math.cos((1 - at) * angle) * a) / sine

    for _ in range(_STEPS):
        tangent = slope(weight)
        former, weight = weight, _clipped(weight + float(tangent @ residual(weight)) / float(tangent @ tangent))
        if abs(weight - former) < 1e-15:
            break
    rest, coefficients = residual(weight), np.zeros(factor.shape[1] - 1)
    coefficients[[base, pivot]] = math.sin((1 - weight) * angle) / sine, math.sin(weight * angle) / sine
    error = 1 / float(np.linalg.norm(slope(weight)))
    return Fit(float(rest @ rest), (weight,), (error,), tuple(map(float, coefficients)), 1)


def _fit_segment(factor: Triangle, base: int, pivot: int) -> Fit:
    """The line with λ from 0 to 1."""
    fit = fit_line(factor, base, pivot)
    if not fit.parameters or 0.0 <= fit.weights[0] <= 1.0:
        return fit
    weight = _clipped(fit.weights[0])
    return replace(fit_copy(factor, pivot if weight else base), weights=(weight,), errors=fit.errors, parameters=1)


def span_squares(factor: Triangle, candidates: Sequence[int] | None = None) -> float:
    """Sum of squared residuals of the best sum of these candidates (None: all) with any coefficients."""
    if candidates is None:
        return float(factor[-1, -1] ** 2)
    columns, merged = factor[:, list(candidates)], factor[:, -1]
    solution, *_ = np.linalg.lstsq(columns, merged, rcond=None)
    rest = merged - columns @ solution
    return float(rest @ rest)


@dataclass(frozen=True)
class WeightSummary:
    """One λ over several tensors; all NaN where no tensor determines it.

    median: weighted by the inverse standard errors. mean: weighted by the inverse squares. low, high: smallest and
    largest of the tensors that determine λ to `DETERMINED`, or as exactly as any.
    """

    median: float
    mean: float
    low: float
    high: float


def summarise(weights: Sequence[float], errors: Sequence[float]) -> WeightSummary:
    """The λ of the tensors, each with its standard error; infinite errors do not count.

    Each error is at least float32's epsilon: coefficients that were computed in float32 differ by that, however many
    elements a tensor has.
    """
    pairs = [(x, math.hypot(e, FLOAT32)) for x, e in zip(weights, errors, strict=True) if math.isfinite(e)]
    if not pairs:
        return WeightSummary(math.nan, math.nan, math.nan, math.nan)
    at, error = (np.asarray(column) for column in zip(*sorted(pairs), strict=True))
    cumulated, precision = np.cumsum(1 / error), 1 / np.square(error)
    median = float(at[np.searchsorted(cumulated, cumulated[-1] / 2)])
    precise = at[error <= max(DETERMINED, error.min())]
    return WeightSummary(median, float(at @ precision / precision.sum()), float(precise.min()), float(precise.max()))


def weight_error(weight: float, unit: float, noise: float, elements: int) -> float:
    """Standard error of a λ from that for unit noise (`Fit.errors`) and the variance `noise` of an element.

    It falls with the number of elements as long as roundings are independent of the parents. They are not where λ moves
    the tensor by a step of its dtype or less: then the error is that of a single element.
    """
    single = unit * math.sqrt(noise * elements)
    return single if min(abs(weight), abs(1 - weight)) < 4 * single else unit * math.sqrt(noise)


def _clipped(weight: float) -> float:
    return max(0.0, min(1.0, weight))
