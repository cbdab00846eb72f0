"""Model Soup: the straight line between the weights of the parents (Wortsman et al. 2022, arXiv 2203.05482)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from patientdx.merge.curve import Curve, require_parents
from patientdx.merge.method import merge_method


@merge_method(lambda_range=(0.0, 1.0), exact_ends=(0, 1))
def linear(parents: Sequence[Tensor], *, weights: Sequence[float] | None = None) -> Curve:
    """m(λ) = (1 - λ) a + λ b: base a at λ=0, pivot b at λ=1, the plain average at λ=0.5.

    With more than two parents λ is split among all beside the base: equally, or as `weights` says, one number of at
    least 0 for each of them, whatever their sum: m(λ) = (1 - λ) a + λ Σ wᵢ bᵢ / Σ wᵢ.
    Raises ValueError for fewer than two parents, two shapes, or weights that are no shares.
    """
    terms = require_parents(parents, "linear")
    others = len(terms) - 1
    weights = [1.0] * others if weights is None else weights
    if not isinstance(weights, Sequence) or not all(map(_is_share, weights)) or sum(weights) == 0:
        raise ValueError(f"merge.weights={weights} are no shares: give a list of numbers of at least 0, not all 0")
    if len(weights) != others:
        raise ValueError(
            f"merge.weights={weights} cannot be matched to the parents beside the base: give one number for each "
            f"of the {others}, in order"
        )
    parts = [number / sum(weights) for number in weights]
    return Curve(terms, lambda weight: (1.0 - weight, *(weight * part for part in parts)))


def _is_share(number: object) -> bool:
    return isinstance(number, int | float) and math.isfinite(number) and number >= 0
