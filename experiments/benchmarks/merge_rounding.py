"""How far merged tensors are from their formula: computed in float64, rounded once, and compared element by element.

The formulas are written from the papers in plain torch, whole tensors at a time, without anything of patientdx.merge.
Task vectors τ are differences from the ancestor, taken exactly; selections sort, the lowest index first among equals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patientdx.core.errors import UserError


@dataclass(frozen=True)
class Count:
    """Elements compared, elements that are not the rounded formula, and the largest distance in representable steps.

    open: elements left out, because their magnitude equals that of the cut and any choice among them is right.
    """

    elements: int
    wrong: int
    steps: int
    open: int

    def __add__(self, other: Count) -> Count:
        elements, wrong, left_open = self.elements + other.elements, self.wrong + other.wrong, self.open + other.open
        return Count(elements, wrong, max(self.steps, other.steps), left_open)


@dataclass(frozen=True)
class Exact:
    """The formula's value (float64) and where it is certain (bool)."""

    value: Tensor
    sure: Tensor


def misrounded(merged: Tensor, exact: Exact) -> Count:
    """Compare a merged tensor (bfloat16, float16 or float32) with its formula rounded to the same dtype.

    An element is wrong where another number of that dtype is nearer the formula. Where the last bits of float64 decide
    either is right: in the middle between two numbers, and within 1e-14 of the tensor's largest element, which is
    what terms that cancel leave of them.
    """
    if merged.shape != exact.value.shape:
        raise UserError(f"a merged tensor of shape {list(merged.shape)} should have {list(exact.value.shape)}")
    rounded = exact.value.to(merged.dtype)
    nearest = (rounded.double() - exact.value).abs()
    noise = 1e-14 * exact.value.abs().max() if merged.numel() else 0.0
    wrong = exact.sure & ((merged.double() - exact.value).abs() > nearest * (1 + 1e-9) + noise)
    away = (_position(merged) - _position(rounded)).abs()[wrong.reshape(-1)]
    compared = int(exact.sure.sum())
    return Count(compared, away.numel(), int(away.max()) if away.numel() else 0, merged.numel() - compared)


def _position(tensor: Tensor) -> Tensor:
    """Number of each element among the representable ones, counted from zero, (n,) int64; -0 is 0."""
    kinds = {2: torch.int16, 4: torch.int32}
    bits = tensor.contiguous().reshape(-1).view(kinds[tensor.element_size()]).long()
    largest = (1 << (8 * tensor.element_size() - 1)) - 1
    return torch.where(bits < 0, -(bits & largest), bits)


def linear(parents: Sequence[Tensor], ancestor: Tensor, *, weight: float) -> Exact:
    """(1 - λ) a + λ b."""
    a, b = (parent.double() for parent in parents)
    return _sure((1 - weight) * a + weight * b)


def slerp(parents: Sequence[Tensor], ancestor: Tensor, *, weight: float) -> Exact:
    """Shoemake's great circle through the two tensors, a line where |cos| > 0.9995."""
    a, b = (parent.double() for parent in parents)
    cosine = float((a * b).sum() / (a.norm() * b.norm()))
    if abs(cosine) > 0.9995:
        return linear(parents, ancestor, weight=weight)
    angle = math.acos(cosine)
    return _sure((math.sin((1 - weight) * angle) * a + math.sin(weight * angle) * b) / math.sin(angle))


def karcher(parents: Sequence[Tensor], ancestor: Tensor) -> Exact:
    """Of two: the middle of the arc between the directions, as long as the parents on average."""
    a, b = (parent.double() for parent in parents)
    middle = a / a.norm() + b / b.norm()
    return _sure(middle / middle.norm() * (a.norm() + b.norm()) / 2)


def task_arithmetic(parents: Sequence[Tensor], ancestor: Tensor, *, weights: Sequence[float]) -> Exact:
    """ancestor + Σ wᵢ τᵢ."""
    return _sure(ancestor.double() + _weighed(_deltas(parents, ancestor), weights))


def ties(parents: Sequence[Tensor], ancestor: Tensor, *, weights: Sequence[float], density: float) -> Exact:
    """Each τ trimmed to its `density` largest; sign by the weighted sum; weighted mean of those that agree."""
    trimmed, sure = zip(*(_selected(delta, 0.0, density) for delta in _deltas(parents, ancestor)), strict=True)
    sign = torch.where(_weighed(trimmed, weights) >= 0, 1.0, -1.0)
    agree = [(delta.sign() == sign).double() for delta in trimmed]
    above = _weighed([delta * mask for delta, mask in zip(trimmed, agree, strict=True)], weights)
    below = _weighed(agree, weights)
    return Exact(ancestor.double() + above / torch.where(below == 0, 1.0, below), torch.stack(sure).all(0))


def breadcrumbs(
    parents: Sequence[Tensor], ancestor: Tensor, *, weights: Sequence[float], density: float, gamma: float
) -> Exact:
    """Each τ without its `gamma` largest and so many of its smallest that `density` of all are left; weighted sum."""
    selected, sure = zip(*(_selected(delta, gamma, density) for delta in _deltas(parents, ancestor)), strict=True)
    return Exact(ancestor.double() + _weighed(selected, weights), torch.stack(sure).all(0))


def _deltas(parents: Sequence[Tensor], ancestor: Tensor) -> list[Tensor]:
    return [parent.double() - ancestor.double() for parent in parents]


def _weighed(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    return sum(weight * tensor for weight, tensor in zip(weights, tensors, strict=True))


def _sure(value: Tensor) -> Exact:
    return Exact(value, torch.ones(value.shape, dtype=torch.bool))


def _selected(delta: Tensor, gamma: float, density: float) -> tuple[Tensor, Tensor]:
    """(delta with all but the chosen elements 0, where the choice was free of ties)."""
    n = delta.numel()
    keep = max(1, int(density * n))
    drop = min(int(gamma * n), n - keep)
    size = delta.abs().reshape(-1)
    ordered, order = size.sort(descending=True, stable=True)
    selected = torch.zeros_like(size)
    chosen = order[drop : drop + keep]
    selected[chosen] = delta.reshape(-1)[chosen]
    sure = torch.ones(n, dtype=torch.bool)
    for cut in (drop, drop + keep):  # equals on both sides of a cut: which of them stay is free
        if 0 < cut < n and ordered[cut - 1] == ordered[cut]:
            sure &= size != ordered[cut]
    return selected.reshape(delta.shape), sure.reshape(delta.shape)
