"""SCE of FuseChat: select elements by variance, calculate coefficients, erase minorities (arXiv 2408.07990)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from patientdx.merge.curve import Curve
from patientdx.merge.elect import Election, count_conflicts, elect
from patientdx.merge.method import merge_method
from patientdx.merge.scratch import like, scratch
from patientdx.merge.task_vectors import TaskVectors, check_choice, check_density, task_vectors
from patientdx.merge.thresholds import cutoffs, keep_largest

COMPAT = {"paper": Election(divide=None), "mergekit": Election(plus=True, divide="weights")}


@merge_method(lambda_range=(0.0, math.inf))  # 1 in the paper, which has no such factor
def sce(parents: Sequence[Tensor], *, ancestor: Tensor, density: float = 0.1, compat: str = "paper") -> Curve:
    """m(λ) = ancestor + λ Σ ηᵢ τᵢ over the τᵢ that agree with the elected sign; the ancestor bit for bit at λ=0.

    Select: of each tensor the fraction `density` of elements on which the task vectors vary most stays (population
    variance over all parents, those equal to the ancestor included; compared as float32, which tells differences
    of 1e-22 and more apart). Calculate: ηᵢ = Σ τᵢ² / ΣΣ τⱼ² over the elements selected. Erase: s = sgn(Σ τᵢ),
    and elements of the other sign are dropped.
    compat "mergekit" (0.1.5): a density below 1 is taken of the elements of non-zero variance; + wins where Σ τᵢ = 0;
    and the sum is divided by the sum of the ηᵢ that agree.
    diagnostics: `weight_<number>`, ηᵢ; `conflicts`, fraction of the elements that are selected and have two signs.
    Raises ValueError for tensors of two shapes, a density outside (0, 1] or an unknown compat.
    """
    check_choice(compat, "compat", COMPAT)
    check_density(density)
    if len(parents) < 2:
        raise ValueError(f"merge=sce compares two parents or more, got {len(parents)}")
    deltas = task_vectors(parents, ancestor, None, "sce", every=True)
    count = ancestor.numel()
    selected = int(density * (count if compat == "paper" or density == 1.0 else _varied(deltas)))
    (cutoff,) = cutoffs(lambda: [_spreads(deltas)], count, [[selected]])[0]

    def select(vectors: Sequence[Tensor], start: int) -> None:
        spread = _spread(vectors)
        for x in vectors:
            keep_largest(x, spread, start, cutoff)

    energy, opposed = [0.0] * len(deltas.parents), 0
    for start, vectors in deltas.blocks():
        select(vectors, start)
        energy = [total + torch.dot(x, x).item() for total, x in zip(energy, vectors, strict=True)]
        opposed += count_conflicts(vectors)[1]
    total = sum(energy)
    weights = tuple(part / total if total > 0 else 1.0 / len(energy) for part in energy)
    diagnostics = {f"weight_{number}": weight for number, weight in zip(deltas.numbers, weights, strict=True)}
    diagnostics["conflicts"] = opposed / max(1, count)
    return replace(deltas, weights=weights).curve(select, partial(elect, election=COMPAT[compat]), diagnostics)


def _spread(vectors: Sequence[Tensor]) -> Tensor:
    """Variance over the task vectors, element by element; float64 (n,)."""
    mean = like(vectors[0], "mean").copy_(vectors[0])
    for x in vectors[1:]:
        mean.add_(x)
    mean.div_(len(vectors))
    spread, term = like(mean, "spread").zero_(), like(mean, "term")
    for x in vectors:
        spread.add_(torch.sub(x, mean, out=term).square_())
    return spread.div_(len(vectors))


def _spreads(deltas: TaskVectors) -> Iterator[list[Tensor]]:
    """Their variances as float32, block after block; the next block reuses the memory."""
    for _, vectors in deltas.blocks():
        spread = _spread(vectors)
        yield [scratch("float32", len(spread), torch.float32, spread.device).copy_(spread)]


def _varied(deltas: TaskVectors) -> int:
    """Elements on which the task vectors vary."""
    return sum(int((spread.sign_()).sum()) for (spread,) in _spreads(deltas))
