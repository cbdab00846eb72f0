"""NearSwap: the base takes over the pivot's weights where the two are near (alchemonaut, QuartetAnemoi, 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from patientdx.merge.curve import ComputedTerm, Curve, require_pair
from patientdx.merge.method import merge_method


@merge_method(lambda_range=(0.0, math.inf))  # λ is a distance, in units of the weights; 0 is the base
def nearswap(parents: Sequence[Tensor]) -> Curve:
    """Each weight of the base a moves towards that of the pivot b by at most λ.

        m(λ) = b  where |b - a| <= λ,   else  a + λ sign(b - a)

    At λ=0 it is the base bit for bit, at the largest difference and beyond the pivot.
    Raises ValueError for other than two parents, or parents of two shapes.
    """
    a, b = require_pair(parents, "nearswap")

    def step(pieces: Sequence[Tensor], start: int, weight: float) -> Tensor:
        base, pivot = pieces
        away = pivot - base
        # Where it is near the pivot itself is taken: base + (pivot - base) is not always it.
        return torch.where(away.abs() <= weight, pivot, base.add_(away.sign(), alpha=weight))

    return Curve((a, ComputedTerm((a, b), step)), lambda weight: (1.0, 0.0) if weight == 0 else (0.0, 1.0))
