"""What a merge method returns: a curve in weight space, and how a point on it is worked out.

A curve is a sum of tensors that do not depend on λ, each with a share that does. Everything costly (angles, norms,
masks) is spent when the curve is made; a point is then one pass over the weights: read each term once, write once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

# Elements worked on at a time: small enough to stay in cache, large enough that the calls cost nothing.
BLOCK = 1 << 18


@dataclass(frozen=True)
class Curve:
    """One tensor's path from λ=0 to λ=1.

    terms: tensors of one shape, any floating dtype; never written to.
    shares: λ -> one float for each term; the point at λ is the sum of share x term.
    facts: what was found when the curve was made (angle, branch taken, ...), for the report.
    """

    terms: tuple[Tensor, ...]
    shares: Callable[[float], tuple[float, ...]]
    facts: Mapping[str, float | str] = field(default_factory=dict)


@torch.no_grad()
def evaluate(curve: Curve, weight: float, out: Tensor) -> Tensor:
    """Write the point at λ = `weight` into `out` and return it.

    Arithmetic is float64 (float32 on a device without), with one rounding to `out`'s dtype at the end: where terms
    of opposite sign nearly cancel, float32 sums are thousands of bfloat16 steps off, and the pass is bound by memory,
    not by arithmetic. Where one term has share 1 and all others 0, that term is copied, so end points equal their
    parent bit for bit.
    `out` must be contiguous, of the terms' shape, and share no memory with them (ValueError); it may lie on another
    device than the terms.
    """
    _check_out(curve.terms, out)
    used = [(share, term) for share, term in zip(curve.shares(weight), curve.terms, strict=True) if share != 0.0]
    if not used:
        return out.zero_()
    if len(used) == 1 and used[0][0] == 1.0:
        return out.copy_(used[0][1])
    exact = torch.float32 if out.device.type == "mps" else torch.float64
    total, piece = _scratch(out.device, exact, threading.get_ident())
    target = out.view(-1)
    flat = [(share, term.reshape(-1)) for share, term in used]
    for start in range(0, target.numel(), BLOCK):
        stop = min(start + BLOCK, target.numel())
        acc, part = total[: stop - start], piece[: stop - start]
        # Multiplied, then added: a fused multiply-add would leave a residue where two terms cancel exactly, and the
        # result would depend on the processor.
        acc.copy_(flat[0][1][start:stop]).mul_(flat[0][0])
        for share, term in flat[1:]:
            acc.add_(part.copy_(term[start:stop]).mul_(share))
        target[start:stop].copy_(acc)
    return out


def write(curves: Mapping[str, Curve], weight: float, into: Mapping[str, Tensor]) -> None:
    """Evaluate every curve at λ = `weight` into the same-named tensors (a live model's own storage)."""
    for name, curve in curves.items():
        evaluate(curve, weight, into[name])


@dataclass(frozen=True)
class Geometry:
    """Lengths of two tensors as flat vectors and the cosine between them, accumulated in float64."""

    norm_a: float
    norm_b: float
    cosine: float


def geometry(a: Tensor, b: Tensor) -> Geometry:
    """Norms and cosine of two same-shaped tensors of any dtype; the cosine is 0 where a norm vanishes."""
    a, b = a.reshape(-1), b.reshape(-1)
    aa = bb = ab = 0.0
    for start in range(0, a.numel(), BLOCK):
        x, y = a[start : start + BLOCK].double(), b[start : start + BLOCK].double()
        aa, bb, ab = aa + torch.dot(x, x).item(), bb + torch.dot(y, y).item(), ab + torch.dot(x, y).item()
    norm_a, norm_b = aa**0.5, bb**0.5
    cosine = ab / (norm_a * norm_b) if norm_a > 0 and norm_b > 0 else 0.0
    return Geometry(norm_a, norm_b, max(-1.0, min(1.0, cosine)))


def line(weight: float) -> tuple[float, float]:
    """Shares of the straight line between two parents."""
    return 1.0 - weight, weight


def two(parents: Sequence[Tensor], method: str) -> tuple[Tensor, Tensor]:
    """The two parents of a method that joins exactly two; ValueError for another number or two shapes."""
    if len(parents) != 2:
        raise ValueError(f"merge={method} joins exactly two parents, got {len(parents)}")
    if parents[0].shape != parents[1].shape:
        raise ValueError(
            f"merge={method} joins tensors of one shape, got {tuple(parents[0].shape)} and {tuple(parents[1].shape)}"
        )
    return parents[0], parents[1]


def _check_out(terms: Sequence[Tensor], out: Tensor) -> None:
    if not out.is_contiguous():
        raise ValueError(f"a merged tensor is written to contiguous memory, got strides {out.stride()}")
    for term in terms:
        if term.shape != out.shape:
            raise ValueError(f"a tensor of shape {tuple(term.shape)} cannot be merged into {tuple(out.shape)}")
        if term.device == out.device and _overlap(term, out):
            raise ValueError("a merged tensor cannot be written over its own parents: give it memory of its own")


def _overlap(a: Tensor, b: Tensor) -> bool:
    (start_a, stop_a), (start_b, stop_b) = _span(a), _span(b)
    return start_a < stop_b and start_b < stop_a


def _span(tensor: Tensor) -> tuple[int, int]:
    if tensor.numel() == 0:
        return 0, 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


@lru_cache(maxsize=8)
def _scratch(device: torch.device, dtype: torch.dtype, thread: int) -> tuple[Tensor, Tensor]:
    # Touching fresh memory costs more than the arithmetic: the same two blocks serve every tensor of a thread.
    # Made in inference mode they could not be written to outside it.
    with torch.inference_mode(False):
        return torch.empty(BLOCK, dtype=dtype, device=device), torch.empty(BLOCK, dtype=dtype, device=device)
