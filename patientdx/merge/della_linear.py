"""DELLA's MagPrune without its election: drop small elements more often than large ones (arXiv 2406.11617)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from patientdx.merge.curve import Curve
from patientdx.merge.dare_linear import COMPAT, l1_factors, scaled
from patientdx.merge.method import merge_method
from patientdx.merge.random_mask import keep_random, key_of
from patientdx.merge.scratch import like, scratch
from patientdx.merge.task_vectors import Mask, TaskVectors, check_choice, task_vectors, weighted_sum


@merge_method(lambda_range=(0.0, math.inf))  # the paper's scaling coefficient
def della_linear(
    parents: Sequence[Tensor],
    *,
    ancestor: Tensor,
    name: str,
    seed: int,
    density: float = 0.5,
    epsilon: float = 0.15,
    weights: Sequence[float] | None = None,
    compat: str = "paper",
) -> Curve:
    """m(λ) = ancestor + λ Σ wᵢ pruned(parentᵢ - ancestor); the ancestor bit for bit at λ=0.

    Inside each row (the elements along the last axis; a tensor of one axis is one row) elements are ranked by
    magnitude, the lower index first among equal ones. The keep probability runs from density - epsilon for the
    smallest to density + epsilon for the largest, linearly in the rank; the paper writes epsilon for the whole span.
    With epsilon=0 it is dare_linear under the same seed.
    weights: one number for each parent, base first; null: 1 each.
    compat: what the kept elements are multiplied by. "paper": 1 / the keep probability of each element. "mergekit"
    (0.1.5): the ratio of L1 norms, as in dare_linear.
    Raises ValueError for tensors of two shapes or numbers that do not fit.
    """
    check_choice(compat, "compat", COMPAT)
    deltas = task_vectors(parents, ancestor, weights, "della_linear")
    rescale = "L1" if compat == "mergekit" else "element"
    prune, diagnostics = pruning(deltas, name, seed, density, epsilon, rescale=rescale)
    return deltas.curve(prune, weighted_sum, diagnostics, by_row=True)


def pruning(
    deltas: TaskVectors, name: str, seed: int, density: float, epsilon: float, *, rescale: str
) -> tuple[Mask, dict[str, float]]:
    """MagPrune as a mask for blocks of complete rows, and its diagnostics.

    rescale: "element", 1 / keep probability; "L1", see dare_linear.l1_factors: on a CPU the masks are then stored.
    Raises ValueError where keep probabilities leave (0, 1).
    """
    low, high = density - epsilon, density + epsilon
    if not 0.0 < low <= high < 1.0:
        raise ValueError(
            f"merge.density={density:g} with merge.epsilon={epsilon:g} gives keep probabilities from {low:g} to "
            f"{high:g}, and they must lie between 0 and 1, ends excluded: lower epsilon or move density"
        )
    keys = [key_of(seed, number, name) for number in deltas.numbers]
    ends = (low, high) if deltas.row > 1 else (density, density)
    ramp = torch.linspace(*ends, deltas.row, dtype=torch.float64)

    def prune(vectors: Sequence[Tensor], start: int) -> None:
        for x, key in zip(vectors, keys, strict=True):
            keep = by_rank(x, ramp)
            scale = like(keep, "scale").copy_(keep) if rescale == "element" else None
            keep_random(x, key, start, keep)
            if scale is not None:
                x.div_(scale)

    if rescale == "element":
        return prune, {}
    if deltas.ancestor.device.type != "cpu":
        factors, diagnostics = l1_factors(deltas, prune, by_row=True)
        return scaled(prune, factors), diagnostics
    # Ranking takes most of the time, so the masks are stored, a bit for each element.
    masks = [np.zeros((deltas.ancestor.numel() // deltas.row, -(-deltas.row // 8)), np.uint8) for _ in keys]

    def prune_and_store(vectors: Sequence[Tensor], start: int) -> None:
        prune(vectors, start)
        for x, mask in zip(vectors, masks, strict=True):
            rows = x.numpy().reshape(-1, deltas.row)
            mask[start // deltas.row : start // deltas.row + len(rows)] = np.packbits(rows != 0, axis=1)

    def apply_stored(vectors: Sequence[Tensor], start: int) -> None:
        for x, mask in zip(vectors, masks, strict=True):
            rows = mask[start // deltas.row : (start + x.numel()) // deltas.row]
            kept = torch.from_numpy(np.unpackbits(rows, axis=1, count=deltas.row).reshape(-1))
            torch.ops.aten.threshold_backward.grad_input(x, like(x, "kept").copy_(kept), 0.5, grad_input=x)

    factors, diagnostics = l1_factors(deltas, prune_and_store, by_row=True)
    return scaled(apply_stored, factors), diagnostics


def by_rank(x: Tensor, ramp: Tensor) -> Tensor:
    """For each element of x (rows * row,) the value of `ramp` (row,) at its magnitude's rank in its row, from the
    smallest; equal magnitudes in the order of their indices. Float64 (rows * row,).
    """
    rows = x.numel() // len(ramp)
    bits = scratch("float32", x.numel(), torch.float32, x.device).copy_(x).view(torch.int32).bitwise_and_(0x7FFFFFFF)
    key, values, order = (scratch(slot, x.numel(), torch.int64, x.device) for slot in ("key", "values", "order"))
    # Row and magnitude in one integer: one radix sort of the block instead of a sort for each row.
    row = torch.arange(rows, device=x.device).bitwise_left_shift_(31)[:, None]
    torch.add(bits.view(rows, -1), row, out=key.view(rows, -1))
    torch.sort(key, stable=True, out=(values, order))
    return like(x, "keep").scatter_(0, order, ramp.to(x.device, x.dtype).repeat(rows))
