"""Model Breadcrumbs before TIES: mask both tails, elect signs, join what agrees (arXiv 2312.06795, 2306.01708)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from patientdx.merge import breadcrumbs
from patientdx.merge.breadcrumbs import Found, masking
from patientdx.merge.curve import Curve
from patientdx.merge.elect import MERGEKIT_SUM, PAPER, elect, sparsity
from patientdx.merge.task_vectors import Named, deltas, one_of
from patientdx.merge.thresholds import Each

LAMBDA = (0.0, math.inf)  # the papers' scaling coefficient
COMPAT = {"paper": PAPER, "mergekit": MERGEKIT_SUM}


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
    cutoffs: Found | None = None,
) -> Curve:
    """m(λ) = ancestor + λ · elected and joined masked task vectors; the ancestor bit for bit at λ=0.

    Masks as in breadcrumbs, election as elect.py says for each `compat`; neither paper joins the two, mergekit does:
    "paper" stands for the two papers' rules one after the other. "mergekit" does not divide by the weights.
    weights: one number for each parent, base first; null: 1 each.
    facts: `kept_<number>` and `conflicts`, see elect.survivors.
    Raises ValueError for tensors of two shapes, numbers that do not fit, or trim "model" without cutoffs.
    """
    one_of(compat, "compat", COMPAT)
    found = deltas(parents, ancestor, weights, "breadcrumbs_ties")
    mask = masking(found, name, density, gamma, trim, cutoffs)

    def join(moved: Sequence[Tensor], start: int) -> Tensor:
        mask(moved, start)
        return elect(moved, found.weights, COMPAT[compat])

    return found.curve(join, sparsity(found, mask))


def fit_global_thresholds(
    tensors: Callable[[], Iterable[Named]],
    *,
    density: float = 0.9,
    gamma: float = 0.01,
    weights: Sequence[float] | None = None,
    trim: str = "tensor",
    compat: str = "paper",
    each: Each = map,
) -> Found | None:
    """As breadcrumbs.survey; `compat` changes nothing here."""
    return breadcrumbs.fit_global_thresholds(
        tensors, density=density, gamma=gamma, weights=weights, trim=trim, each=each
    )
