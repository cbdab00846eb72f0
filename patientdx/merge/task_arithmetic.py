"""Task arithmetic: add the parents' task vectors to their ancestor (Ilharco et al. 2023, arXiv 2212.04089)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from patientdx.merge.curve import Curve, line, require_pair, require_shape
from patientdx.merge.method import merge_method
from patientdx.merge.task_vectors import check_choice, task_vectors


@merge_method(lambda_range=(0.0, math.inf))  # the paper's scaling coefficient
def task_arithmetic(
    parents: Sequence[Tensor], *, ancestor: Tensor, weights: Sequence[float] | None = None, form: str = "scaled"
) -> Curve:
    """m(λ) = ancestor + λ Σ wᵢ (parentᵢ - ancestor); the ancestor bit for bit at λ=0.

    weights: one number for each parent, base first; null: 1 each. A negative one takes a task away.
    form "convex": ancestor + (1 - λ) (base - ancestor) + λ (pivot - ancestor), λ from 0 to 1, as arXiv 2511.13373 has
    it: the ancestor cancels, and it is merge=linear bit for bit.
    Raises ValueError for tensors of two shapes, weights that do not fit, or another form; the curve's
    coefficients raise it for a λ above 1 in the convex form.
    """
    check_choice(form, "form", ("scaled", "convex"))
    if form == "convex":
        if weights is not None:
            raise ValueError(
                f"merge.weights={list(weights)} is not valid with merge.form=convex, where lambda weighs both parents: "
                "leave it null, or use merge.form=scaled"
            )
        require_shape((ancestor, *parents), "task_arithmetic")
        return Curve(require_pair(parents, "task_arithmetic with merge.form=convex"), _convex)
    deltas = task_vectors(parents, ancestor, weights, "task_arithmetic")

    def coefficients(weight: float) -> tuple[float, ...]:
        return (1.0 - weight * sum(deltas.weights), *(weight * part for part in deltas.weights))

    return Curve((ancestor, *deltas.parents), coefficients)


def _convex(weight: float) -> tuple[float, float]:
    if weight > 1.0:
        raise ValueError(f"lambda={weight:g} is outside [0, 1]: merge.form=convex goes from the base to the pivot")
    return line(weight)
