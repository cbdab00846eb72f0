"""Model Stock: fine-tuned models drawn towards their ancestor as far as they disagree (Jang et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from patientdx.merge.curve import Curve, require_parents, require_shape
from patientdx.merge.gram import cosines, gram
from patientdx.merge.method import merge_method
from patientdx.merge.task_vectors import check_choice


@merge_method(lambda_range=None)  # the angle between the parents decides
def model_stock(
    parents: Sequence[Tensor], *, ancestor: Tensor, filter_wise: bool = False, compat: str = "paper"
) -> Curve:
    """m = r · mean(parents) + (1 - r) · ancestor,    r = n c / (1 + (n - 1) c)

    with c the cosine between the parents' differences from the ancestor, averaged over the pairs of n parents: parents
    that agree are kept, parents at right angles leave the ancestor. filter_wise: one c and r for each row (the elements
    along the last axis) instead of one for the tensor as a flat vector. Source: arXiv 2403.19522.
    compat: "paper" takes a negative c for 0, because the paper derives r for models scattered around a common centre,
    where c >= 0; "mergekit" (0.1.5) takes c as it is, which steps back past the ancestor, by any length as c nears
    -1 / (n - 1), and keeps the ancestor only where the denominator is below 1e-6.
    Raises ValueError for fewer than two parents, two shapes, or an unknown `compat`.
    """
    check_choice(compat, "compat", ("paper", "mergekit"))
    count = len(require_parents(parents, "model_stock"))
    require_shape((*parents, ancestor), "model_stock")
    cosine_pairs = cosines(gram(parents, ancestor, by_row=filter_wise))[1]
    pairs = [cosine_pairs[:, i, j] for i in range(count) for j in range(i)]
    mean = sum(pairs, torch.zeros((), dtype=torch.float64)) / len(pairs)
    cosine = mean.clamp(min=0.0) if compat == "paper" else mean
    below = 1.0 + (count - 1) * cosine
    ratio = torch.where(below.abs() < 1e-6, 0.0, count * cosine / below)
    if filter_wise:
        values = ratio.tolist() or [0.0]
        diagnostics = {"ratio_min": min(values), "ratio_max": max(values)}
        coefficients = (1.0 - ratio, *[ratio / count] * count)
    else:
        diagnostics = {"cosine_mean": mean.item(), "ratio": ratio.item()}
        coefficients = (1.0 - ratio.item(), *[ratio.item() / count] * count)
    return Curve((ancestor, *parents), lambda weight: coefficients, diagnostics, by_row=filter_wise)
