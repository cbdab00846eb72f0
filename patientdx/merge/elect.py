"""TIES: elect a sign for each element, and join the task vectors that agree with it (arXiv 2306.01708, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patientdx.merge.curve import BLOCK
from patientdx.merge.scratch import like
from patientdx.merge.task_vectors import Mask, TaskVectors

_SAMPLED = 8  # one block in so many is enough to estimate fractions


@dataclass(frozen=True)
class Election:
    """The rule by which signs are elected and task vectors joined.

    weighted: whether weights enter before the election, s = sgn(Σ wᵢ τᵢ), or not, s = sgn(Σ τᵢ).
    plus: whether + wins where that sum is 0; otherwise nothing wins, and the joined element is 0.
    divide: what Σ wᵢ τᵢ over the agreeing i is divided by: their "count", the sum of their "weights", or nothing.
    """

    weighted: bool = False
    plus: bool = False
    divide: str | None = "count"


PAPER = Election()
SUM = Election(divide=None)  # for weights that add up to 1, which make a mean already
PEFT = Election(plus=True)  # peft 0.21
MERGEKIT = Election(weighted=True, plus=True, divide="weights")  # mergekit 0.1.5 with normalize: true
MERGEKIT_SUM = Election(weighted=True, plus=True, divide=None)  # and with normalize: false


def elect(vectors: Sequence[Tensor], weights: Sequence[float], election: Election) -> Tensor:
    """Join task vectors, float64 (n,) each, element by element; all are overwritten, the first is returned.

    An element that is 0 agrees with no sign. Where nothing agrees the result is 0.
    """
    if len(vectors) == 1 and not election.weighted and election.divide == "count":
        return vectors[0].mul_(weights[0])
    if election.weighted:
        _weigh(vectors, weights)
    sign = like(vectors[0], "sign").copy_(vectors[0])
    for x in vectors[1:]:
        sign.add_(x)
    sign.sign_()
    if election.plus:
        sign.add_(0.5).sign_()
    for x in vectors:
        x.mul_(sign).relu_()  # the magnitude where it agrees, else 0
    below = None
    if election.divide is not None:
        below = _count(vectors) if election.divide == "count" else _agreeing(vectors, weights)
    if not election.weighted:
        _weigh(vectors, weights)
    for x in vectors[1:]:
        vectors[0].add_(x)
    if below is not None:
        vectors[0].div_(below)
    return vectors[0].mul_(sign)


def sparsity(deltas: TaskVectors, mask: Mask) -> dict[str, float]:
    """What `mask` keeps of the task vectors, as fractions of the elements: `kept_<number>` of each parent, those that
    are not 0; `conflicts`, those on which two parents have opposite signs. mask: in place, on float32 blocks. Of a
    tensor of more than 2 Mi elements one block of 256 Ki in eight is counted.
    """
    kept, opposed, count = [0] * len(deltas.numbers), 0, 0
    for start, vectors in deltas.rounded(_SAMPLED if deltas.ancestor.numel() > _SAMPLED * BLOCK else 1):
        count += len(vectors[0]) if vectors else 0
        mask(vectors, start)
        nonzero, conflicts = count_conflicts(vectors)
        kept = [total + n for total, n in zip(kept, nonzero, strict=True)]
        opposed += conflicts
    count = max(1, count)
    fractions = {f"kept_{number}": n / count for number, n in zip(deltas.numbers, kept, strict=True)}
    return fractions | {"conflicts": opposed / count}


def count_conflicts(vectors: Sequence[Tensor]) -> tuple[list[int], int]:
    """How many elements of each task vector are not 0, and on how many two of them have opposite signs.

    vectors: float64 or float32 (n,) each, n below 2^24, overwritten.
    """
    for x in vectors:
        x.sign_()
    kept = [int(torch.dot(x, x)) for x in vectors]
    if len(vectors) < 2:
        return kept, 0
    sum_ = like(vectors[0], "sign").copy_(vectors[0])
    for x in vectors[1:]:
        sum_.add_(x)
    sum_.abs_()
    for x in vectors:
        sum_.sub_(x.abs_())
    # All of one sign: |Σ s| = Σ |s|; otherwise what is missing is at least 2.
    return kept, int(torch.dot(sum_.sign_(), sum_))


def _weigh(vectors: Sequence[Tensor], weights: Sequence[float]) -> None:
    for x, weight in zip(vectors, weights, strict=True):
        if weight != 1.0:
            x.mul_(weight)


def _count(agreeing: Sequence[Tensor]) -> Tensor:
    """How many agree; 1 where none does."""
    total, term = torch.sign(agreeing[0], out=like(agreeing[0], "below")), like(agreeing[0], "term")
    for x in agreeing[1:]:
        total.add_(torch.sign(x, out=term))
    return total.clamp_min_(1.0)


def _agreeing(agreeing: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Sum of the weights of those that agree; 1 where it is 0."""
    total, term = torch.sign(agreeing[0], out=like(agreeing[0], "below")).mul_(weights[0]), like(agreeing[0], "term")
    for x, weight in zip(agreeing[1:], weights[1:], strict=True):
        total.add_(torch.sign(x, out=term).mul_(weight))
    # A mask would take several times as long.
    return total.add_(torch.sign(total, out=term).abs_().neg_().add_(1.0))
