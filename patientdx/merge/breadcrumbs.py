"""Model Breadcrumbs: drop the largest and the smallest elements of the task vectors, add them (arXiv 2312.06795)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from patientdx.merge.curve import Curve
from patientdx.merge.elect import sparsity
from patientdx.merge.method import merge_method
from patientdx.merge.task_vectors import (
    GlobalThresholds,
    Mask,
    TaskVectors,
    check_choice,
    check_density,
    task_vectors,
    weighted_sum,
)
from patientdx.merge.thresholds import drop_largest, keep_largest


def global_counts(
    *, density: float = 0.9, gamma: float = 0.01, trim: str = "tensor"
) -> Callable[[int], tuple[int, int]] | None:
    """See `MethodSpec.global_counts`: needed for trim "model"."""
    _check(density, gamma, trim)
    return None if trim == "tensor" else lambda count: _counts(count, density, gamma)


@merge_method(lambda_range=(0.0, math.inf), global_counts=global_counts)  # λ is the paper's scaling coefficient
def breadcrumbs(
    parents: Sequence[Tensor],
    *,
    ancestor: Tensor,
    name: str,
    density: float = 0.9,
    gamma: float = 0.01,
    weights: Sequence[float] | None = None,
    trim: str = "tensor",
    cutoffs: GlobalThresholds | None = None,
) -> Curve:
    """m(λ) = ancestor + λ Σ wᵢ masked(parentᵢ - ancestor); the ancestor bit for bit at λ=0.

    Of each task vector the fraction `gamma` with the largest magnitudes is dropped, the next `density` stays, the rest
    is dropped; of n elements int(gamma n) and int(density n), among equal magnitudes the lowest index counts as the
    larger. mergekit 0.1.5 has the same rule.
    trim: what the fractions are taken of: "tensor", each tensor, as in the paper; or "model", the task vector of the
    whole model: then `cutoffs` are the global thresholds, and `name` is the tensor's name in them.
    weights: one number for each parent, base first; null: 1 each.
    diagnostics: `kept_<number>` and `conflicts`, see elect.sparsity.
    Raises ValueError for tensors of two shapes, numbers that do not fit, or trim "model" without cutoffs.
    """
    deltas = task_vectors(parents, ancestor, weights, "breadcrumbs")
    mask = breadcrumbs_mask(deltas, name, density, gamma, trim, cutoffs)
    return deltas.curve(mask, weighted_sum, sparsity(deltas, mask))


def breadcrumbs_mask(
    deltas: TaskVectors, name: str, density: float, gamma: float, trim: str, cutoffs: GlobalThresholds | None
) -> Mask:
    """The mask of breadcrumbs."""
    _check(density, gamma, trim)
    if trim == "model":
        ends = deltas.global_cutoffs(name, cutoffs)
    else:
        ends = deltas.cutoffs(_counts(deltas.ancestor.numel(), density, gamma))

    def mask(vectors: Sequence[Tensor], start: int) -> None:
        for x, (top, bottom) in zip(vectors, ends, strict=True):
            keep_largest(x, x, start, bottom)
            if gamma > 0:
                drop_largest(x, x, start, top)

    return mask


def _counts(count: int, density: float, gamma: float) -> tuple[int, int]:
    """How many elements are dropped at the top, and how many lie above the lower cutoff."""
    top = int(gamma * count)
    return top, top + int(density * count)


def _check(density: float, gamma: float, trim: str) -> None:
    check_density(density)
    check_choice(trim, "trim", ("tensor", "model"))
    if not 0.0 <= gamma <= 1.0 - density:
        raise ValueError(
            f"merge.gamma={gamma:g} is the share dropped at the top, beside merge.density={density:g} that stays: "
            f"give a number from 0 to {1.0 - density:g}"
        )
