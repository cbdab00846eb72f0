"""Optimal transport between two small sets of equal size, as for the heads of two layers: plan, assignment, choice."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


@dataclass(frozen=True)
class Alignment:
    """Which items of the second set replace each item of the first.

    matrix: (n, n) float64, rows adding up to 1; item i becomes the sum over j of matrix[i, j] x item j.
    before, after: mean cost of an item under the identity, and under the computed plan; in units of the median cost.
    accepted: whether the plan is used; the matrix is the identity otherwise.
    """

    matrix: Tensor
    before: float
    after: float
    accepted: bool


def align(
    cost: Tensor,
    *,
    hard: bool = True,
    tau: float = 0.01,
    epsilon: float = 0.05,
    iterations: int = 200,
    tolerance: float = 1e-6,
) -> Alignment:
    """The alignment of two sets of n items by their costs (n, n): first set by rows, second by columns.

    The costs are divided by their median (by their mean where that is 0), and `sinkhorn` gives the plan P. `hard` takes
    the permutation that holds most of P, otherwise the matrix is n P with its rows divided by their sums. It is kept
    only where cost(identity) - cost(matrix) > `tau` x cost(identity). Raises ValueError as `sinkhorn` does.
    """
    cost, stay = scaled(cost.double()), torch.eye(len(cost), dtype=torch.float64)
    plan = sinkhorn(cost, epsilon=epsilon, iterations=iterations, tolerance=tolerance)
    matrix = stay[assignment(plan)] if hard else plan / plan.sum(1, keepdim=True)
    before, after = ((cost * plan).sum().item() / len(cost) for plan in (stay, matrix))
    accepted = before - after > tau * before and not torch.equal(matrix, stay)
    return Alignment(matrix if accepted else stay, before, after, accepted)


def scaled(cost: Tensor) -> Tensor:
    """Costs divided by their median, or by their mean where more than half of them are 0; as they are if all are."""
    for unit in (cost.quantile(0.5), cost.mean()):
        if unit > 0:
            return cost / unit
    return cost


def sinkhorn(cost: Tensor, *, epsilon: float = 0.05, iterations: int = 200, tolerance: float = 1e-6) -> Tensor:
    """The entropic plan P (n, n), float64, between two sets of n equal weights; its entries add up to 1.

    P minimises  <P, cost> - epsilon x entropy(P)  among the plans whose rows and columns add up to 1/n. Sinkhorn's
    alternating scaling in the log domain, where no small `epsilon` underflows; it ends when the rows' sums are off by
    `tolerance` in total (the columns' are exact), or after `iterations`. Sources: Cuturi 2013 (arXiv 1306.0895); log
    domain as in Peyré and Cuturi 2019 (arXiv 1803.00567), section 4.4.
    Raises ValueError for costs that are no square or not finite, and for an `epsilon` or `iterations` not above 0.
    """
    if cost.ndim != 2 or cost.shape[0] != cost.shape[1] or not cost.numel():
        raise ValueError(f"a transport plan needs two sets of one size, got costs of shape {tuple(cost.shape)}")
    if not torch.isfinite(cost).all():
        raise ValueError("a transport plan needs finite costs: a parent's weights hold NaN or infinity")
    if not epsilon > 0 or iterations < 1:
        raise ValueError(
            f"epsilon={epsilon:g}, iterations={iterations}: a transport plan needs both above 0, as in epsilon=0.05 "
            "and iterations=200"
        )
    kernel, log_mass = cost.double() / -epsilon, -math.log(len(cost))
    plan, columns = kernel, torch.zeros(len(cost), dtype=torch.float64)
    for _ in range(iterations):
        rows = log_mass - torch.logsumexp(kernel + columns, 1)
        columns = log_mass - torch.logsumexp(kernel + rows[:, None], 0)
        plan = torch.exp(kernel + rows[:, None] + columns)
        if (plan.sum(1) - 1 / len(cost)).abs().sum() <= tolerance:
            break
    return plan


def assignment(plan: Tensor) -> Tensor:
    """For each row its column, (n,) int64: the permutation whose entries of `plan` add up to most.

    The Hungarian method, as scipy.optimize.linear_sum_assignment solves it.
    """
    return torch.as_tensor(linear_sum_assignment(plan.numpy(), maximize=True)[1])
