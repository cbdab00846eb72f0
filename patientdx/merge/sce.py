"""SCE of FuseChat: select elements by variance, calculate coefficients, erase minorities (arXiv 2408.07990)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from patientdx.merge.curve import Curve
from patientdx.merge.elect import Election, count_conflicts, elect
from patientdx.merge.scratch import like, scratch
from patientdx.merge.task_vectors import Deltas, deltas, one_of, share_of
from patientdx.merge.thresholds import cutoffs, keep_largest

LAMBDA = (0.0, math.inf)  # 1 in the paper, which has no such factor
COMPAT = {"paper": Election(divide=None), "mergekit": Election(plus=True, divide="weights")}


def sce(parents: Sequence[Tensor], *, ancestor: Tensor, density: float = 0.1, compat: str = "paper") -> Curve:
    """m(λ) = ancestor + λ Σ ηᵢ τᵢ over the τᵢ that agree with the elected sign; the ancestor bit for bit at λ=0.

    Select: of each tensor the share `density` of elements on which the task vectors vary most stays (population
    variance over all parents, one that never left the ancestor included; compared as float32, which tells differences
    of 1e-22 and more apart). Calculate: ηᵢ = Σ τᵢ² / ΣΣ τⱼ² over the elements selected. Erase: s = sgn(Σ τᵢ),
    and elements of the other sign are dropped.
    compat "mergekit" (0.1.5): a share below 1 is taken of the elements of non-zero variance; + wins where Σ τᵢ = 0; and
    the sum is divided by the sum of the ηᵢ that agree.
    facts: `weight_<number>`, ηᵢ; `conflicts`, share of the elements that are selected and of two signs.
    Raises ValueError for tensors of two shapes, a density outside (0, 1] or an unknown compat.
    """
    one_of(compat, "compat", COMPAT)
    share_of(density, "density")
    if len(parents) < 2:
        raise ValueError(f"merge=sce compares two parents or more, got {len(parents)}")
    found = deltas(parents, ancestor, None, "sce", every=True)
    count = ancestor.numel()
    wanted = int(density * (count if compat == "paper" or density == 1.0 else _varied(found)))
    (cutoff,) = cutoffs(lambda: [_spreads(found)], count, [[wanted]])[0]

    def select(moved: Sequence[Tensor], start: int) -> None:
        spread = _spread(moved)
        for x in moved:
            keep_largest(x, spread, start, cutoff)

    energy, opposed = [0.0] * len(found.parents), 0
    for start, moved in found.blocks():
        select(moved, start)
        energy = [so_far + torch.dot(x, x).item() for so_far, x in zip(energy, moved, strict=True)]
        opposed += count_conflicts(moved)[1]
    whole = sum(energy)
    weights = [own / whole if whole > 0 else 1.0 / len(energy) for own in energy]

    def join(moved: Sequence[Tensor], start: int) -> Tensor:
        select(moved, start)
        return elect(moved, weights, COMPAT[compat])

    facts = {f"weight_{number}": weight for number, weight in zip(found.numbers, weights, strict=True)}
    return found.curve(join, facts | {"conflicts": opposed / max(1, count)})


def _spread(moved: Sequence[Tensor]) -> Tensor:
    """Variance over the task vectors, element by element; float64 (n,)."""
    mean = like(moved[0], "mean").copy_(moved[0])
    for x in moved[1:]:
        mean.add_(x)
    mean.div_(len(moved))
    found, term = like(mean, "spread").zero_(), like(mean, "term")
    for x in moved:
        found.add_(torch.sub(x, mean, out=term).square_())
    return found.div_(len(moved))


def _spreads(found: Deltas) -> Iterator[list[Tensor]]:
    """Their variances as float32, block after block, gone with the next."""
    for _, moved in found.blocks():
        spread = _spread(moved)
        yield [scratch("float32", len(spread), torch.float32, spread.device).copy_(spread)]


def _varied(found: Deltas) -> int:
    """Elements on which the task vectors vary."""
    return sum(int((spread.sign_()).sum()) for (spread,) in _spreads(found))
