"""TIES: trim each task vector to its largest elements, elect signs, join what agrees (arXiv 2306.01708)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from patientdx.merge.curve import Curve
from patientdx.merge.elect import MERGEKIT, PAPER, PEFT, elect, sparsity
from patientdx.merge.method import merge_method
from patientdx.merge.task_vectors import GlobalThresholds, check_choice, check_density, task_vectors
from patientdx.merge.thresholds import keep_largest

COMPAT = {"paper": PAPER, "mergekit": MERGEKIT, "peft": PEFT}


def global_counts(
    *, density: float = 0.2, trim: str | None = None, compat: str = "paper"
) -> Callable[[int], list[int]] | None:
    """See `MethodSpec.global_counts`: needed for trim "model"."""
    scope = _trim_scope(density, trim, compat)
    return None if scope == "tensor" else lambda count: [_kept(count, density, compat)]


@merge_method(lambda_range=(0.0, math.inf), global_counts=global_counts)  # λ is the paper's scaling coefficient
def ties(
    parents: Sequence[Tensor],
    *,
    ancestor: Tensor,
    name: str,
    density: float = 0.2,
    weights: Sequence[float] | None = None,
    trim: str | None = None,
    compat: str = "paper",
    cutoffs: GlobalThresholds | None = None,
) -> Curve:
    """m(λ) = ancestor + λ · joined task vectors; the ancestor bit for bit at λ=0.

    Of each task vector the fraction `density` with the largest magnitudes stays, the lowest index first among equal
    ones; then signs are elected and the agreeing elements joined, as in elect.py for each `compat`.
    trim: what the fraction is taken of: "model", the task vector of the whole model, as in the paper; "tensor", as in
    mergekit and peft; null: as `compat` does. For "model" `cutoffs` are the global thresholds, and `name` is the
    tensor's name in them.
    weights: one number for each parent, base first; null: 1 each. The paper has none.
    diagnostics: `kept_<number>` and `conflicts`, see elect.sparsity.
    Raises ValueError for tensors of two shapes, numbers that do not fit, or trim "model" without cutoffs.
    """
    scope = _trim_scope(density, trim, compat)
    deltas = task_vectors(parents, ancestor, weights, "ties")
    if scope == "model":
        ends = deltas.global_cutoffs(name, cutoffs)
    else:
        ends = deltas.cutoffs([_kept(ancestor.numel(), density, compat)])

    def mask(vectors: Sequence[Tensor], start: int) -> None:
        for x, (cutoff,) in zip(vectors, ends, strict=True):
            keep_largest(x, x, start, cutoff)

    return deltas.curve(mask, partial(elect, election=COMPAT[compat]), sparsity(deltas, mask))


def _trim_scope(density: float, trim: str | None, compat: str) -> str:
    check_density(density)
    check_choice(compat, "compat", COMPAT)
    if trim is None:
        return "model" if compat == "paper" else "tensor"
    check_choice(trim, "trim", ("tensor", "model"))
    return trim


def _kept(count: int, density: float, compat: str) -> int:
    return int(density * count) if compat == "peft" else max(1, int(density * count))
