"""DARE: drop elements of the task vectors at random, scale up the rest, add them (Yu et al. 2024, arXiv 2311.03099)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from patientdx.merge.curve import Curve
from patientdx.merge.elect import count_conflicts
from patientdx.merge.random_mask import keep_random, key_of
from patientdx.merge.task_vectors import Deltas, deltas, one_of, share_of, total

LAMBDA = (0.0, math.inf)  # the paper's scaling coefficient
COMPAT = ("paper", "mergekit")


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

    Each element stays with probability `density`, drawn by draw.py from the seed, the parent's number, the tensor's
    name and the element's place: masks of a lower density lie within those of a higher one.
    weights: one number for each parent, base first; null: 1 each.
    compat: what the rest is multiplied by. "paper" (and peft): 1 / density. "mergekit" (0.1.5): the ratio of the L1
    norms of the whole task vector of this tensor and of what is left of it; facts `factor_<number>`.
    Raises ValueError for tensors of two shapes or numbers that do not fit.
    """
    one_of(compat, "compat", COMPAT)
    found = deltas(parents, ancestor, weights, "dare_linear")
    drop, facts = dropping(found, name, seed, density, rescale="L1" if compat == "mergekit" else "density")

    def join(moved: Sequence[Tensor], start: int) -> Tensor:
        drop(moved, start)
        return total(moved, found.weights)

    return found.curve(join, facts)


def dropping(
    found: Deltas, name: str, seed: int, density: float, *, rescale: str
) -> tuple[Callable[[Sequence[Tensor], int], None], dict[str, float]]:
    """DARE's drop and rescale, in place on the task vectors of a block: (task vectors, start) -> None; and its facts.

    rescale: "density", 1 / density; "L1", see `l1_factors`. Raises ValueError for a density outside (0, 1].
    """
    share_of(density, "density")
    keys = [key_of(seed, number, name) for number in found.numbers]

    def drop(moved: Sequence[Tensor], start: int) -> None:
        for x, key in zip(moved, keys, strict=True):
            keep_random(x, key, start, density)

    if rescale == "density":
        return scaled(drop, [1.0 / density] * len(keys)), {}
    factors, facts = l1_factors(found, drop)
    return scaled(drop, factors), facts


def scaled(
    drop: Callable[[Sequence[Tensor], int], None], factors: Sequence[float]
) -> Callable[[Sequence[Tensor], int], None]:
    """`drop`, then each task vector times its factor."""

    def both(moved: Sequence[Tensor], start: int) -> None:
        drop(moved, start)
        for x, factor in zip(moved, factors, strict=True):
            x.mul_(factor)

    return both


def l1_factors(
    found: Deltas, drop: Callable[[Sequence[Tensor], int], None], *, by_row: bool = False
) -> tuple[list[float], dict[str, float]]:
    """Factors that give what `drop` leaves of each task vector its old L1 norm back (1 where nothing is left), and
    facts: `factor_<number>`, and `kept_<number>`, the share of the elements that are not 0 afterwards.
    """
    whole, rest, kept = ([0.0] * len(found.numbers) for _ in range(3))
    for start, moved in found.blocks(by_row=by_row):
        for p, x in enumerate(moved):
            whole[p] += _l1(x)
        drop(moved, start)
        for p, x in enumerate(moved):
            rest[p] += _l1(x)
            kept[p] += count_conflicts([x])[0][0]
    factors = [before / after if after > 0 else 1.0 for before, after in zip(whole, rest, strict=True)]
    facts = {f"factor_{number}": factor for number, factor in zip(found.numbers, factors, strict=True)}
    count = max(1, found.ancestor.numel())
    return factors, facts | {f"kept_{number}": n / count for number, n in zip(found.numbers, kept, strict=True)}


def _l1(x: Tensor) -> float:
    # A plain sum is split among threads, and its bits depend on their number; dot's do not.
    return torch.dot(x, x.sign()).item()
