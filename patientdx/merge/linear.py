"""Model Soup of two parents: the straight line between their weights (Wortsman et al. 2022, arXiv 2203.05482)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from patientdx.merge.curve import Curve, line, two

LAMBDA = (0.0, 1.0)  # where λ may lie
ENDS = (0, 1)  # the parent that λ=0 and λ=1 give back, bit for bit


def linear(parents: Sequence[Tensor]) -> Curve:
    """m(λ) = (1 - λ) a + λ b: base a at λ=0, pivot b at λ=1, the plain average at λ=0.5."""
    return Curve(two(parents, "linear"), line)
