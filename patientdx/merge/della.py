"""DELLA: MagPrune, elect signs, join what agrees (Deep et al. 2024, arXiv 2406.11617)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from patientdx.merge.curve import Curve
from patientdx.merge.della_linear import pruning
from patientdx.merge.elect import MERGEKIT, PAPER, SUM, elect
from patientdx.merge.task_vectors import deltas, one_of

LAMBDA = (0.0, math.inf)  # the paper's scaling coefficient
COMPAT = {"paper": PAPER, "sum": SUM, "mergekit": MERGEKIT}


def della(
    parents: Sequence[Tensor],
    *,
    ancestor: Tensor,
    name: str,
    seed: int,
    density: float = 0.5,
    epsilon: float = 0.15,
    weights: Sequence[float] | None = None,
    compat: str = "paper",
) -> Curve:
    """m(λ) = ancestor + λ · elected and joined pruned task vectors; the ancestor bit for bit at λ=0.

    Pruning as in della_linear (the same masks under the same seed), election as elect.py says for each `compat`;
    "mergekit" divides by the weights, unlike its della_linear and dare_ties. "sum" is "paper" without the division by
    how many agree, for weights that are shares, as in dare_ties.
    weights: one number for each parent, base first; null: 1 each.
    Raises ValueError for tensors of two shapes or numbers that do not fit.
    """
    one_of(compat, "compat", COMPAT)
    found = deltas(parents, ancestor, weights, "della")
    prune, facts = pruning(found, name, seed, density, epsilon, rescale="L1" if compat == "mergekit" else "element")

    def join(moved: Sequence[Tensor], start: int) -> Tensor:
        prune(moved, start)
        return elect(moved, found.weights, COMPAT[compat])

    return found.curve(join, facts, by_row=True)
