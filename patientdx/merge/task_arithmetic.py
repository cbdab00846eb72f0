"""Task arithmetic: add the parents' task vectors to their ancestor (Ilharco et al. 2023, arXiv 2212.04089)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from patientdx.merge.curve import Curve, line, two
from patientdx.merge.task_vectors import deltas, one_of

LAMBDA = (0.0, math.inf)  # the paper's scaling coefficient


def task_arithmetic(
    parents: Sequence[Tensor], *, ancestor: Tensor, weights: Sequence[float] | None = None, form: str = "scaled"
) -> Curve:
    """m(λ) = ancestor + λ Σ wᵢ (parentᵢ - ancestor); the ancestor bit for bit at λ=0.

    weights: one number for each parent, base first; null: 1 each. A negative one takes a task away.
    form "convex": ancestor + (1 - λ) (base - ancestor) + λ (pivot - ancestor), λ from 0 to 1, as arXiv 2511.13373 has
    it: the ancestor cancels, and it is merge=linear bit for bit.
    Raises ValueError for tensors of two shapes, weights that do not fit, or a form that is neither; the curve's
    shares raise it for a λ above 1 in the convex form.
    """
    one_of(form, "form", ("scaled", "convex"))
    if form == "convex":
        if weights is not None:
            raise ValueError(
                f"merge.weights={list(weights)} has no place in merge.form=convex, where lambda weighs both parents: "
                "leave it null, or use merge.form=scaled"
            )
        deltas(parents, ancestor, None, "task_arithmetic")  # of one shape
        return Curve(two(parents, "task_arithmetic with merge.form=convex"), _convex)
    found = deltas(parents, ancestor, weights, "task_arithmetic")

    def shares(weight: float) -> tuple[float, ...]:
        return (1.0 - weight * sum(found.weights), *(weight * own for own in found.weights))

    return Curve((ancestor, *found.parents), shares)


def _convex(weight: float) -> tuple[float, float]:
    if weight > 1.0:
        raise ValueError(f"lambda={weight:g} is outside [0, 1]: merge.form=convex goes from the base to the pivot")
    return line(weight)
