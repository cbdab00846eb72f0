"""Spherical linear interpolation of two parents (Shoemake 1985), tensor by tensor, as PatientDx merges."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from patientdx.merge.curve import Curve, geometry, line, require_pair
from patientdx.merge.method import merge_method


@merge_method(lambda_range=(0.0, 1.0), exact_ends=(0, 1))
def slerp(parents: Sequence[Tensor], *, collinear: float = 0.9995) -> Curve:
    """Great-circle path from the base a (λ=0) to the pivot b (λ=1).

        θ = arccos( <a, b> / (|a| |b|) )
        m(λ) = sin((1 - λ) θ) / sin θ · a  +  sin(λ θ) / sin θ · b

    The tensor is one flat vector; the angle is that of the unit vectors, the interpolation that of the vectors
    themselves, so |m| moves from |a| to |b|. Where |cos θ| > `collinear`, or a norm is below 1e-8, sin θ carries no
    more information than rounding and the straight line (1 - λ) a + λ b is taken: `diagnostics["branch"]` says which.
    Most tensors of lightly fine-tuned siblings lie there. Source: arXiv 2504.17360; threshold as in mergekit 0.1.5
    (which differs for a parent without length: it takes that norm for 1, and so the angle for 90°, not the line).
    Raises ValueError for a `collinear` outside [0, 1], other than two parents, or parents of two shapes.
    """
    a, b = require_pair(parents, "slerp")
    if not 0.0 <= collinear <= 1.0:
        raise ValueError(f"merge.collinear={collinear:g} is no |cos θ|: give a number from 0 to 1")
    sides = geometry(a, b)
    angle = math.acos(sides.cosine)
    # The second test avoids a division by 0 with collinear=1.
    straight = abs(sides.cosine) > collinear or math.sin(angle) < 1e-6
    straight = straight or min(sides.norm_a, sides.norm_b) < 1e-8
    diagnostics = {
        "cosine": sides.cosine,
        "angle_degrees": math.degrees(angle),
        "norm_base": sides.norm_a,
        "norm_pivot": sides.norm_b,
        "branch": "line" if straight else "sphere",
    }

    def arc(weight: float) -> tuple[float, float]:
        return math.sin((1.0 - weight) * angle) / math.sin(angle), math.sin(weight * angle) / math.sin(angle)

    return Curve((a, b), line if straight else arc, diagnostics)
