"""Model Breadcrumbs: drop the largest and the smallest elements of the task vectors, add them (arXiv 2312.06795)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor

from patientdx.merge.curve import Curve
from patientdx.merge.elect import sparsity
from patientdx.merge.task_vectors import Deltas, Named, deltas, model_cutoffs, one_of, share_of, total
from patientdx.merge.thresholds import Cutoff, Each, drop_largest, keep_largest

LAMBDA = (0.0, math.inf)  # the paper's scaling coefficient

Found = Mapping[str, Mapping[int, Sequence[Cutoff]]]


def breadcrumbs(
    parents: Sequence[Tensor],
    *,
    ancestor: Tensor,
    name: str,
    density: float = 0.9,
    gamma: float = 0.01,
    weights: Sequence[float] | None = None,
    trim: str = "tensor",
    cutoffs: Found | None = None,
) -> Curve:
    """m(λ) = ancestor + λ Σ wᵢ masked(parentᵢ - ancestor); the ancestor bit for bit at λ=0.

    Of each task vector the share `gamma` with the largest magnitudes is dropped, the next `density` stays, the rest
    is dropped; of n elements int(gamma n) and int(density n), among equal magnitudes the lowest index counts as the
    larger. mergekit 0.1.5 has the same rule.
    trim: what the shares are taken of: "tensor", layer by layer as the paper has it; or "model", the whole task vector:
    then give what `survey` found as `cutoffs`, and the tensor's `name` in it.
    weights: one number for each parent, base first; null: 1 each.
    facts: `kept_<number>` and `conflicts`, see elect.survivors.
    Raises ValueError for tensors of two shapes, numbers that do not fit, or trim "model" without cutoffs.
    """
    found = deltas(parents, ancestor, weights, "breadcrumbs")
    mask = masking(found, name, density, gamma, trim, cutoffs)

    def join(moved: Sequence[Tensor], start: int) -> Tensor:
        mask(moved, start)
        return total(moved, found.weights)

    return found.curve(join, sparsity(found, mask))


def fit_global_thresholds(
    tensors: Callable[[], Iterable[Named]],
    *,
    density: float = 0.9,
    gamma: float = 0.01,
    weights: Sequence[float] | None = None,
    trim: str = "tensor",
    each: Each = map,
) -> Found | None:
    """What trim "model" must know of the whole models, for `cutoffs`; None for trim "tensor".

    tensors: gives (name, parents, ancestor) of every tensor, in the same order at each call. each: see select.cutoffs.
    """
    _check(density, gamma, trim)
    if trim == "tensor":
        return None
    return model_cutoffs(tensors, lambda count: _counts(count, density, gamma), "breadcrumbs", each)


def masking(
    found: Deltas, name: str, density: float, gamma: float, trim: str, cutoffs: Found | None
) -> Callable[[Sequence[Tensor], int], None]:
    """Breadcrumbs' mask, in place on the task vectors of a block: (task vectors, start) -> None."""
    _check(density, gamma, trim)
    if trim == "model":
        if cutoffs is None:
            raise ValueError("merge.trim=model needs to see whole models first: give what survey found as cutoffs")
        own = [cutoffs[name][number] for number in found.numbers]
    else:
        own = found.cutoffs(_counts(found.ancestor.numel(), density, gamma))

    def mask(moved: Sequence[Tensor], start: int) -> None:
        for x, (top, bottom) in zip(moved, own, strict=True):
            keep_largest(x, x, start, bottom)
            if gamma > 0:
                drop_largest(x, x, start, top)

    return mask


def _counts(count: int, density: float, gamma: float) -> tuple[int, int]:
    """How many elements are dropped at the top, and how many lie above the lower cutoff."""
    top = int(gamma * count)
    return top, top + int(density * count)


def _check(density: float, gamma: float, trim: str) -> None:
    share_of(density, "density")
    one_of(trim, "trim", ("tensor", "model"))
    if not 0.0 <= gamma <= 1.0 - density:
        raise ValueError(
            f"merge.gamma={gamma:g} is the share dropped at the top, beside merge.density={density:g} that stays: "
            f"give a number from 0 to {1.0 - density:g}"
        )
