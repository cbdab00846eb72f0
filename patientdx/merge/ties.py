"""TIES: trim each task vector to its largest elements, elect signs, join what agrees (arXiv 2306.01708)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor

from patientdx.merge.curve import Curve
from patientdx.merge.elect import MERGEKIT, PAPER, PEFT, elect, sparsity
from patientdx.merge.task_vectors import Named, deltas, model_cutoffs, one_of, share_of
from patientdx.merge.thresholds import Cutoff, Each, keep_largest

LAMBDA = (0.0, math.inf)  # the paper's scaling coefficient
SCOPES = ("tensor", "model")
COMPAT = {"paper": PAPER, "mergekit": MERGEKIT, "peft": PEFT}

Found = Mapping[str, Mapping[int, Sequence[Cutoff]]]


def ties(
    parents: Sequence[Tensor],
    *,
    ancestor: Tensor,
    name: str,
    density: float = 0.2,
    weights: Sequence[float] | None = None,
    trim: str | None = None,
    compat: str = "paper",
    cutoffs: Found | None = None,
) -> Curve:
    """m(λ) = ancestor + λ · joined task vectors; the ancestor bit for bit at λ=0.

    Of each task vector the share `density` with the largest magnitudes stays, the lowest index first among equal
    ones; then signs are elected and the agreeing elements joined, as elect.py says for each `compat`.
    trim: what the share is taken of: "model", the whole task vector, as the paper has it; "tensor", as mergekit and
    peft do; null: as `compat` does. For "model" give what `survey` found as `cutoffs`, and the tensor's `name` in it.
    weights: one number for each parent, base first; null: 1 each. The paper has none.
    facts: `kept_<number>` and `conflicts`, see elect.survivors.
    Raises ValueError for tensors of two shapes, numbers that do not fit, or trim "model" without cutoffs.
    """
    scope = _scope(density, trim, compat)
    found = deltas(parents, ancestor, weights, "ties")
    if scope == "model":
        if cutoffs is None:
            raise ValueError("merge.trim=model needs to see whole models first: give what survey found as cutoffs")
        own = [cutoffs[name][number][0] for number in found.numbers]
    else:
        own = [cutoff for (cutoff,) in found.cutoffs([_kept(ancestor.numel(), density, compat)])]

    def thin(moved: Sequence[Tensor], start: int) -> None:
        for x, cutoff in zip(moved, own, strict=True):
            keep_largest(x, x, start, cutoff)

    def join(moved: Sequence[Tensor], start: int) -> Tensor:
        thin(moved, start)
        return elect(moved, found.weights, COMPAT[compat])

    return found.curve(join, sparsity(found, thin))


def fit_global_thresholds(
    tensors: Callable[[], Iterable[Named]],
    *,
    density: float = 0.2,
    weights: Sequence[float] | None = None,
    trim: str | None = None,
    compat: str = "paper",
    each: Each = map,
) -> Found | None:
    """What trim "model" must know of the whole models, for `cutoffs`; None for trim "tensor".

    tensors: gives (name, parents, ancestor) of every tensor, in the same order at each call. each: see select.cutoffs.
    """
    if _scope(density, trim, compat) == "tensor":
        return None
    return model_cutoffs(tensors, lambda count: [_kept(count, density, compat)], "ties", each)


def _scope(density: float, trim: str | None, compat: str) -> str:
    share_of(density, "density")
    one_of(compat, "compat", COMPAT)
    if trim is None:
        return "model" if compat == "paper" else "tensor"
    one_of(trim, "trim", SCOPES)
    return trim


def _kept(count: int, density: float, compat: str) -> int:
    return int(density * count) if compat == "peft" else max(1, int(density * count))
