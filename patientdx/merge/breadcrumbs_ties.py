"""Model Breadcrumbs before TIES: mask both tails, elect signs, join what agrees (arXiv 2312.06795, 2306.01708)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from torch import Tensor

from patientdx.merge.breadcrumbs import breadcrumbs_mask, global_counts
from patientdx.merge.curve import Curve
from patientdx.merge.elect import MERGEKIT_SUM, PAPER, elect, sparsity
from patientdx.merge.method import merge_method
from patientdx.merge.task_vectors import GlobalThresholds, check_choice, task_vectors

COMPAT = {"paper": PAPER, "mergekit": MERGEKIT_SUM}


@merge_method(lambda_range=(0.0, math.inf), global_counts=global_counts)  # λ is the papers' scaling coefficient
def breadcrumbs_ties(
    parents: Sequence[Tensor],
    *,
    ancestor: Tensor,
    name: str,
    density: float = 0.9,
    gamma: float = 0.01,
    weights: Sequence[float] | None = None,
    trim: str = "tensor",
    compat: str = "paper",
    cutoffs: GlobalThresholds | None = None,
) -> Curve:
    """m(λ) = ancestor + λ · elected and joined masked task vectors; the ancestor bit for bit at λ=0.

    Masks as in breadcrumbs, election as in elect.py for each `compat`; neither paper joins the two, mergekit does:
    "paper" means the two papers' rules one after the other. "mergekit" does not divide by the weights.
    weights: one number for each parent, base first; null: 1 each.
    diagnostics: `kept_<number>` and `conflicts`, see elect.sparsity.
    Raises ValueError for tensors of two shapes, numbers that do not fit, or trim "model" without cutoffs.
    """
    check_choice(compat, "compat", COMPAT)
    deltas = task_vectors(parents, ancestor, weights, "breadcrumbs_ties")
    mask = breadcrumbs_mask(deltas, name, density, gamma, trim, cutoffs)
    return deltas.curve(mask, partial(elect, election=COMPAT[compat]), sparsity(deltas, mask))
