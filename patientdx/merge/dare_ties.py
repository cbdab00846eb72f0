"""DARE before TIES: drop at random instead of trimming, elect signs, join (arXiv 2311.03099, 2306.01708)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from patientdx.merge.curve import Curve
from patientdx.merge.dare_linear import dropping
from patientdx.merge.elect import MERGEKIT_SUM, PAPER, PEFT, SUM, elect
from patientdx.merge.task_vectors import deltas, one_of

LAMBDA = (0.0, math.inf)  # the papers' scaling coefficient
COMPAT = {"paper": PAPER, "sum": SUM, "mergekit": MERGEKIT_SUM, "peft": PEFT}


def dare_ties(
    parents: Sequence[Tensor],
    *,
    ancestor: Tensor,
    name: str,
    seed: int,
    density: float = 0.5,
    weights: Sequence[float] | None = None,
    compat: str = "paper",
) -> Curve:
    """m(λ) = ancestor + λ · elected and joined dropped task vectors; the ancestor bit for bit at λ=0.

    Drop as in dare_linear (the same masks under the same seed), election as elect.py says for each `compat`. The rest
    is multiplied by 1 / density, but by the ratio of L1 norms under "mergekit", whose sum is not divided by the
    weights, unlike that of its ties. "sum" is "paper" without the division by how many agree, for weights that are
    shares: parents that moved alike keep, in expectation, the size of their task vector.
    weights: one number for each parent, base first; null: 1 each.
    Raises ValueError for tensors of two shapes or numbers that do not fit.
    """
    one_of(compat, "compat", COMPAT)
    found = deltas(parents, ancestor, weights, "dare_ties")
    drop, facts = dropping(found, name, seed, density, rescale="L1" if compat == "mergekit" else "density")

    def join(moved: Sequence[Tensor], start: int) -> Tensor:
        drop(moved, start)
        return elect(moved, found.weights, COMPAT[compat])

    return found.curve(join, facts)
