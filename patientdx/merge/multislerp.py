"""SLERP for any number of parents: barycentric interpolation in the tangent space at their mean direction."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from patientdx.merge.curve import Curve, require_parents
from patientdx.merge.karcher import mean, on_sphere
from patientdx.merge.method import merge_method
from patientdx.merge.task_vectors import check_choice


@merge_method(lambda_range=(0.0, 1.0), exact_ends=(0, 1))
def multislerp(parents: Sequence[Tensor], *, compat: str = "paper") -> Curve:
    """Weighted mean of directions, by one map to the tangent space and back, times the weighted mean norm.

    At the mean direction μ = Σ wᵢ uᵢ / |Σ wᵢ uᵢ| of the unit vectors uᵢ each is brought to the tangent space by the
    logarithm, the logarithms are averaged, and the exponential brings the average back to the sphere. Weights are
    1 - λ for the base and λ, shared equally, for the others. For two unit vectors this is SLERP; for more, the first
    step to the Karcher mean (Buss and Fillmore 2001, algorithm A1). Tensors are flat vectors; directions that cancel
    take the straight line.
    compat: "paper", or "mergekit": mergekit 0.1.5 projects onto the tangent space instead, where the average is 0,
    so that its result is μ itself times the mean norm.
    Raises ValueError for fewer than two parents, two shapes, or an unknown `compat`.
    """
    check_choice(compat, "compat", ("paper", "mergekit"))
    steps = 1 if compat == "paper" else 0
    return on_sphere(require_parents(parents, "multislerp"), lambda cosine, pulls: mean(cosine, pulls, steps, 0.0))
