"""Spherical interpolation without SLERP's threshold: of whole tensors, of rows, or of task vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from patientdx.merge.curve import Curve, require_pair, require_shape
from patientdx.merge.gram import cosines, gram
from patientdx.merge.method import merge_method
from patientdx.merge.task_vectors import check_choice


@merge_method(lambda_range=(0.0, 1.0), exact_ends=(0, 1))
def nuslerp(
    parents: Sequence[Tensor], *, row_wise: bool = False, of: str = "weights", ancestor: Tensor | None = None
) -> Curve:
    """Great-circle path from the base a (λ=0) to the pivot b (λ=1), at every angle but 0° and 180°.

        m(λ) = sin((1 - λ) θ) / sin θ · a  +  sin(λ θ) / sin θ · b        (see slerp)

    row_wise: one θ for each row (the elements along the last axis) instead of one for the tensor as a flat vector.
    of: "weights", or "deltas": a and b are then the differences from the `ancestor`, which is added back.
    The line (1 - λ) a + λ b is taken only where sin θ < 1e-6, below the accuracy of an angle from float64
    products, or where a norm is 0. `row_wise` is nuslerp_flatten=false in mergekit 0.1.5.
    Raises ValueError for other than two parents, two shapes, an unknown `of`, or deltas without an ancestor.
    """
    a, b = require_pair(parents, "nuslerp")
    check_choice(of, "of", ("weights", "deltas"))
    if of == "deltas" and ancestor is None:
        raise ValueError(
            "merge.of=deltas joins differences from the parents' common ancestor, and none is given: set "
            "base_model@ancestor=<its yaml>, or merge.of=weights"
        )
    origin = ancestor if of == "deltas" else None
    if origin is not None:
        require_shape((a, b, origin), "nuslerp")
    norms, cosine = cosines(gram((a, b), origin, by_row=row_wise))
    angle = torch.acos(cosine[:, 0, 1])
    sine = torch.sin(angle)
    straight = (sine < 1e-6) | (norms.amin(-1) == 0)

    def coefficients(weight: float) -> tuple[float | Tensor, ...]:
        pair: list[float | Tensor] = [1.0 - weight, weight]
        if 0.0 < weight < 1.0:
            rows = [torch.where(straight, part, torch.sin(part * angle) / sine) for part in pair]
            pair = [*rows] if row_wise else [part.item() for part in rows]
        return tuple(pair) if origin is None else (1.0 - pair[0] - pair[1], *pair)

    terms = (a, b) if origin is None else (origin, a, b)
    return Curve(terms, coefficients, _diagnostics(cosine[:, 0, 1], norms, straight, row_wise), by_row=row_wise)


def _diagnostics(cosine: Tensor, norms: Tensor, straight: Tensor, row_wise: bool) -> dict[str, float | str]:
    if not row_wise:
        return {
            "cosine": cosine.item(),
            "angle_degrees": math.degrees(math.acos(cosine.item())),
            "norm_base": norms[0, 0].item(),
            "norm_pivot": norms[0, 1].item(),
            "branch": "line" if straight.item() else "sphere",
        }
    values = cosine.tolist() or [0.0]
    return {
        "rows": len(cosine),
        "straight_rows": int(straight.sum()),
        "cosine_min": min(values),
        "cosine_max": max(values),
    }
