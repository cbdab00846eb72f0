"""SLERP for any number of parents: barycentric interpolation in the tangent space at their mean direction."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from patientdx.merge.curve import Curve
from patientdx.merge.gram import several
from patientdx.merge.karcher import mean, on_sphere

LAMBDA = (0.0, 1.0)  # where λ may lie
ENDS = (0, 1)  # the parent that λ=0 and λ=1 give back, bit for bit


def multislerp(parents: Sequence[Tensor], *, compat: str = "paper") -> Curve:
    """Weighted mean of directions, by one trip to the tangent space and back, times the weighted mean norm.

    At the mean direction μ = Σ wᵢ uᵢ / |Σ wᵢ uᵢ| of the unit vectors uᵢ each is brought to the tangent space by the
    logarithm, the logarithms are averaged, and the exponential brings the average back to the sphere. Weights are
    1 - λ for the base and λ, shared equally, for the others. For two unit vectors this is SLERP; for more, the first
    step to the Karcher mean (Buss and Fillmore 2001, algorithm A1). Tensors are flat vectors; directions that cancel
    take the straight line.
    compat: "paper", or "mergekit": mergekit 0.1.5 projects onto the tangent space instead, where the average is 0,
    so that its result is μ itself times the mean norm.
    Raises ValueError for fewer than two parents, two shapes, or an unknown `compat`.
    """
    if compat not in ("paper", "mergekit"):
        raise ValueError(f"merge.compat={compat}: it is one of paper, mergekit")
    steps = 1 if compat == "paper" else 0
    return on_sphere(several(parents, "multislerp"), lambda found, pulls: mean(found, pulls, steps, 0.0))
