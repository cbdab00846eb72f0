"""DARE: drop elements of the task vectors at random, scale up the rest, add them (Yu et al. 2024, arXiv 2311.03099)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from patientdx.merge.curve import Curve
from patientdx.merge.elect import count_conflicts
from patientdx.merge.method import merge_method
from patientdx.merge.random_mask import keep_random, key_of
from patientdx.merge.task_vectors import Mask, TaskVectors, check_choice, check_density, task_vectors, weighted_sum

COMPAT = ("paper", "mergekit")


@merge_method(lambda_range=(0.0, math.inf))  # the paper's scaling coefficient
def dare_linear(
    parents: Sequence[Tensor],
    *,
    ancestor: Tensor,
    name: str,
    seed: int,
    density: float = 0.5,
    weights: Sequence[float] | None = None,
    compat: str = "paper",
) -> Curve:
    """m(λ) = ancestor + λ Σ wᵢ dropped(parentᵢ - ancestor); the ancestor bit for bit at λ=0.

    Each element stays with probability `density`, drawn by random_mask.py from the seed, the parent's number, the
    tensor's name and the element's index: masks of a lower density lie within those of a higher one.
    weights: one number for each parent, base first; null: 1 each.
    compat: what the kept elements are multiplied by. "paper" (and peft): 1 / density. "mergekit" (0.1.5): the ratio of
    the L1 norms of this tensor's task vector before and after the drop; diagnostics `factor_<number>`.
    Raises ValueError for tensors of two shapes or numbers that do not fit.
    """
    check_choice(compat, "compat", COMPAT)
    deltas = task_vectors(parents, ancestor, weights, "dare_linear")
    drop, diagnostics = dropping(deltas, name, seed, density, rescale="L1" if compat == "mergekit" else "density")
    return deltas.curve(drop, weighted_sum, diagnostics)


def dropping(
    deltas: TaskVectors, name: str, seed: int, density: float, *, rescale: str
) -> tuple[Mask, dict[str, float]]:
    """DARE's drop and rescale as a mask, and its diagnostics.

    rescale: "density", 1 / density; "L1", see `l1_factors`. Raises ValueError for a density outside (0, 1].
    """
    check_density(density)
    keys = [key_of(seed, number, name) for number in deltas.numbers]

    def drop(vectors: Sequence[Tensor], start: int) -> None:
        for x, key in zip(vectors, keys, strict=True):
            keep_random(x, key, start, density)

    if rescale == "density":
        return scaled(drop, [1.0 / density] * len(keys)), {}
    factors, diagnostics = l1_factors(deltas, drop)
    return scaled(drop, factors), diagnostics


def scaled(drop: Mask, factors: Sequence[float]) -> Mask:
    """`drop`, then each task vector times its factor."""

    def both(vectors: Sequence[Tensor], start: int) -> None:
        drop(vectors, start)
        for x, factor in zip(vectors, factors, strict=True):
            x.mul_(factor)

    return both


def l1_factors(deltas: TaskVectors, drop: Mask, *, by_row: bool = False) -> tuple[list[float], dict[str, float]]:
    """Factors that restore the L1 norm of each task vector after `drop` (1 where nothing is left), and diagnostics:
    `factor_<number>`, and `kept_<number>`, the fraction of the elements that are not 0 afterwards.
    """
    before, after, kept = ([0.0] * len(deltas.numbers) for _ in range(3))
    for start, vectors in deltas.blocks(by_row=by_row):
        for p, x in enumerate(vectors):
            before[p] += _l1(x)
        drop(vectors, start)
        for p, x in enumerate(vectors):
            after[p] += _l1(x)
            kept[p] += count_conflicts([x])[0][0]
    factors = [b / a if a > 0 else 1.0 for b, a in zip(before, after, strict=True)]
    diagnostics = {f"factor_{number}": factor for number, factor in zip(deltas.numbers, factors, strict=True)}
    count = max(1, deltas.ancestor.numel())
    return factors, diagnostics | {f"kept_{number}": n / count for number, n in zip(deltas.numbers, kept, strict=True)}


def _l1(x: Tensor) -> float:
    # A plain sum is split among threads, and its bits depend on their number; dot's do not.
    return torch.dot(x, x.sign()).item()
