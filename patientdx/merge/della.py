"""DELLA: MagPrune, elect signs, join what agrees (Deep et al. 2024, arXiv 2406.11617)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from torch import Tensor

from patientdx.merge.curve import Curve
from patientdx.merge.della_linear import pruning
from patientdx.merge.elect import MERGEKIT, PAPER, SUM, elect
from patientdx.merge.method import merge_method
from patientdx.merge.task_vectors import check_choice, task_vectors

COMPAT = {"paper": PAPER, "sum": SUM, "mergekit": MERGEKIT}


@merge_method(lambda_range=(0.0, math.inf))  # the paper's scaling coefficient
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

    Pruning as in della_linear (the same masks under the same seed), election as in elect.py for each `compat`;
    "mergekit" divides by the weights, unlike its della_linear and dare_ties. "sum" is "paper" without the division by
    how many agree, for weights that add up to 1, as in dare_ties.
    weights: one number for each parent, base first; null: 1 each.
    Raises ValueError for tensors of two shapes or numbers that do not fit.
    """
    check_choice(compat, "compat", COMPAT)
    deltas = task_vectors(parents, ancestor, weights, "della")
    rescale = "L1" if compat == "mergekit" else "element"
    prune, diagnostics = pruning(deltas, name, seed, density, epsilon, rescale=rescale)
    return deltas.curve(prune, partial(elect, election=COMPAT[compat]), diagnostics, by_row=True)
