"""DARE before TIES: drop at random instead of trimming, elect signs, join (arXiv 2311.03099, 2306.01708)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from torch import Tensor

from patientdx.merge.curve import Curve
from patientdx.merge.dare_linear import dropping
from patientdx.merge.elect import MERGEKIT_SUM, PAPER, PEFT, SUM, elect
from patientdx.merge.method import merge_method
from patientdx.merge.task_vectors import check_choice, task_vectors

COMPAT = {"paper": PAPER, "sum": SUM, "mergekit": MERGEKIT_SUM, "peft": PEFT}


@merge_method(lambda_range=(0.0, math.inf))  # the papers' scaling coefficient
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

    Drop as in dare_linear (the same masks under the same seed), election as in elect.py for each `compat`. The kept
    elements are multiplied by 1 / density; under "mergekit" by the ratio of L1 norms, and the sum is not divided by
    the weights, unlike that of its ties. "sum" is "paper" without the division by how many agree, for weights that add
    up to 1: parents that agree keep, in expectation, the size of their task vector.
    weights: one number for each parent, base first; null: 1 each.
    Raises ValueError for tensors of two shapes or numbers that do not fit.
    """
    check_choice(compat, "compat", COMPAT)
    deltas = task_vectors(parents, ancestor, weights, "dare_ties")
    drop, diagnostics = dropping(deltas, name, seed, density, rescale="L1" if compat == "mergekit" else "density")
    return deltas.curve(drop, partial(elect, election=COMPAT[compat]), diagnostics)
