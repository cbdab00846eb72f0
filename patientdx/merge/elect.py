"""TIES: elect a sign for each element, and join the task vectors that agree with it (arXiv 2306.01708, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patientdx.merge.curve import BLOCK
from patientdx.merge.scratch import like
from patientdx.merge.task_vectors import Deltas

_LOOKED_AT = 8  # one block in so many is enough to tell shares by


@dataclass(frozen=True)
class Election:
    """How the elected sign and the join come about.

    weighted: whether weights enter before the election, s = sgn(Σ wᵢ τᵢ), or not, s = sgn(Σ τᵢ).
    plus: whether + wins where that sum is 0; otherwise nothing wins, and the joined element is 0.
    divide: what Σ wᵢ τᵢ over the agreeing i is divided by: their "count", the sum of their "weights", or nothing.
    """

    weighted: bool = False
    plus: bool = False
    divide: str | None = "count"


PAPER = Election()
SUM = Election(divide=None)  # for weights that are shares, adding up to 1: the mean would take their place once more
PEFT = Election(plus=True)  # peft 0.21
MERGEKIT = Election(weighted=True, plus=True, divide="weights")  # mergekit 0.1.5 with normalize: true
MERGEKIT_SUM = Election(weighted=True, plus=True, divide=None)  # and with normalize: false


def elect(moved: Sequence[Tensor], weights: Sequence[float], how: Election) -> Tensor:
    """Join task vectors, float64 (n,) each, element by element; all are overwritten, the first is returned.

    An element that is 0 agrees with no sign. Where nothing agrees the result is 0.
    """
    if len(moved) == 1 and not how.weighted and how.divide == "count":
        return moved[0].mul_(weights[0])
    if how.weighted:
        _weigh(moved, weights)
    sign = like(moved[0], "sign").copy_(moved[0])
    for x in moved[1:]:
        sign.add_(x)
    sign.sign_()
    if how.plus:
        sign.add_(0.5).sign_()
    for x in moved:
        x.mul_(sign).relu_()  # the magnitude where it agrees, else 0
    below = None
    if how.divide is not None:
        below = _count(moved) if how.divide == "count" else _agreeing(moved, weights)
    if not how.weighted:
        _weigh(moved, weights)
    for x in moved[1:]:
        moved[0].add_(x)
    if below is not None:
        moved[0].div_(below)
    return moved[0].mul_(sign)


def sparsity(found: Deltas, thin: Callable[[Sequence[Tensor], int], None]) -> dict[str, float]:
    """What `thin` leaves of the task vectors, as shares of the elements: `kept_<number>` for each parent, not 0 there;
    `conflicts`, where two parents pull to opposite sides. thin: (task vectors, start) -> None, in place; it is given
    them as float32. Of a tensor of more than 2 Mi elements one block of 256 Ki in eight is looked at.
    """
    kept, opposed, count = [0] * len(found.numbers), 0, 0
    for start, moved in found.rounded(_LOOKED_AT if found.ancestor.numel() > _LOOKED_AT * BLOCK else 1):
        count += len(moved[0]) if moved else 0
        thin(moved, start)
        here, against = count_conflicts(moved)
        kept = [so_far + n for so_far, n in zip(kept, here, strict=True)]
        opposed += against
    count = max(1, count)
    shares = {f"kept_{number}": n / count for number, n in zip(found.numbers, kept, strict=True)}
    return shares | {"conflicts": opposed / count}


def count_conflicts(moved: Sequence[Tensor]) -> tuple[list[int], int]:
    """How many elements of each task vector are not 0, and on how many two of them have opposite signs.

    moved: float64 or float32 (n,) each, n below 2^24, overwritten.
    """
    for x in moved:
        x.sign_()
    kept = [int(torch.dot(x, x)) for x in moved]
    if len(moved) < 2:
        return kept, 0
    sum_ = like(moved[0], "sign").copy_(moved[0])
    for x in moved[1:]:
        sum_.add_(x)
    sum_.abs_()
    for x in moved:
        sum_.sub_(x.abs_())
    # All of one sign: |Σ s| = Σ |s|; otherwise what is missing is at least 2.
    return kept, int(torch.dot(sum_.sign_(), sum_))


def _weigh(moved: Sequence[Tensor], weights: Sequence[float]) -> None:
    for x, weight in zip(moved, weights, strict=True):
        if weight != 1.0:
            x.mul_(weight)


def _count(agreeing: Sequence[Tensor]) -> Tensor:
    """How many agree; 1 where none does."""
    found, term = torch.sign(agreeing[0], out=like(agreeing[0], "below")), like(agreeing[0], "term")
    for x in agreeing[1:]:
        found.add_(torch.sign(x, out=term))
    return found.clamp_min_(1.0)


def _agreeing(agreeing: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Sum of the weights of those that agree; 1 where it is 0."""
    found, term = torch.sign(agreeing[0], out=like(agreeing[0], "below")).mul_(weights[0]), like(agreeing[0], "term")
    for x, weight in zip(agreeing[1:], weights[1:], strict=True):
        found.add_(torch.sign(x, out=term).mul_(weight))
    # A mask would take several times as long.
    return found.add_(torch.sign(found, out=term).abs_().neg_().add_(1.0))
