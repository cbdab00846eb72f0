"""The Karcher mean: the point of the sphere whose weighted squared angles to the parents' directions are least."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from patientdx.merge.curve import Curve, require_parents
from patientdx.merge.gram import cosines, gram
from patientdx.merge.method import merge_method


@merge_method(lambda_range=(0.0, 1.0), exact_ends=(0, 1))
def karcher(parents: Sequence[Tensor], *, max_iter: int = 10, tol: float = 1e-5) -> Curve:
    """Weighted mean of the parents' directions on the unit sphere, times the weighted mean of their norms.

    Weights are 1 - λ for the base and λ, shared equally, for the others: of n parents the plain mean lies at
    λ = (n - 1) / n. With two parents the direction is SLERP's. Tensors are flat vectors. Steps start at the mean of
    the directions and end after `max_iter` of them, or after one shorter than `tol` radians.
    Source: Buss and Fillmore 2001 (ACM Transactions on Graphics 20), algorithm A1; arXiv 2603.04972.
    Raises ValueError for fewer than two parents, two shapes, no step, or a negative tolerance.
    """
    if max_iter < 1:
        raise ValueError(f"merge.max_iter={max_iter}: the mean takes at least 1 step")
    if not tol >= 0:
        raise ValueError(f"merge.tol={tol:g} is no angle: give radians of at least 0")
    return on_sphere(require_parents(parents, "karcher"), lambda cosine, pulls: mean(cosine, pulls, max_iter, tol))


def on_sphere(parents: tuple[Tensor, ...], direction_of: Callable[[Tensor, Tensor], Tensor | None]) -> Curve:
    """Curve of a method that averages directions, and norms apart from them.

    direction_of: cosines (n, n) and weights (n,) of sum 1, float64 -> the averaged direction as coefficients (n,) of
    the unit vectors, or None where it is undefined. There, between opposite parents, the straight line is taken.
    A parent of norm 0 has no direction and counts in the mean norm only.
    """
    norms, cosine = cosines(gram(parents)[0])
    units = torch.where(norms > 0, norms, 1.0)
    others = len(parents) - 1
    least = min(cosine[i, j].item() for i in range(len(parents)) for j in range(i))

    def coefficients(weight: float) -> tuple[float, ...]:
        line = [1.0 - weight] + [weight / others] * others
        weights = torch.tensor(line, dtype=torch.float64)
        pulls = weights * (norms > 0)
        if max(line) == 1.0 or pulls.sum() == 0:
            return tuple(line)
        direction = direction_of(cosine, pulls / pulls.sum())
        return tuple(line) if direction is None else tuple((direction / units * (weights @ norms)).tolist())

    diagnostics = {"cosine_min": least, "angle_degrees_max": math.degrees(math.acos(least))}
    return Curve(parents, coefficients, diagnostics)


def mean(cosine: Tensor, pulls: Tensor, max_iter: int, tol: float) -> Tensor | None:
    """Karcher mean as coefficients of the unit vectors, (n,) float64; None where they cancel or one is opposite to it.

    A step goes along the mean of the logarithms: angle / sin · (u - cos · m) for each unit vector u, at the mean m.
    With `max_iter` 0 it is the mean of the directions, brought to the sphere.
    """
    length = _length(pulls, cosine)
    if length < 1e-6:  # its square is a sum that float64 rounds by 1e-16
        return None
    point = pulls / length
    for _ in range(max_iter):
        along = (cosine @ point).clamp(-1.0, 1.0)
        angle = torch.acos(along)
        sine = torch.sin(angle)
        if ((sine < 1e-6) & (along < 0) & (pulls > 0)).any():
            return None
        pull = pulls * torch.where(sine < 1e-6, 1.0, angle / sine)
        step = pull - (pull @ along) * point
        size = _length(step, cosine)
        point = math.cos(size) * point + (math.sin(size) / size if size > 0 else 1.0) * step
        if size <= tol:
            break
    return point


def _length(point: Tensor, cosine: Tensor) -> float:
    # Rounding can make a square of 0 negative.
    return math.sqrt(max(0.0, (point @ cosine @ point).item()))
