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

# Elements worked on at a time: two float32 blocks of this size stay in the second-level cache.
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


def evaluate(curve: Curve, weight: float, out: Tensor) -> Tensor:
    """Write the point at λ = `weight` into `out` and return it.

    Arithmetic is float32 (float64 if a term is), with one rounding to `out`'s dtype at the end. Where one term has
    share 1 and all others 0, that term is copied, so end points equal their parent bit for bit.
    `out` must be contiguous, of the terms' shape; it may lie on another device than the terms.
    """
    used = [
        (share, term) for share, term in zip(curve.shares(weight), curve.terms, strict=True) if share != 0.0
    ]
    if len(used) == 1 and used[0][0] == 1.0:
        return out.copy_(used[0][1])
    exact = torch.float64 if any(term.dtype == torch.float64 for _, term in used) else torch.float32
    total, piece = _scratch(out.device, exact, threading.get_ident())
    target = out.view(-1)
    flat = [(share, term.reshape(-1)) for share, term in used]
    for start in range(0, target.numel(), BLOCK):
        stop = min(start + BLOCK, target.numel())
        acc, part = total[: stop - start], piece[: stop - start]
        acc.zero_()
        for share, term in flat:
            acc.add_(part.copy_(term[start:stop]), alpha=share)
        target[start:stop].copy_(acc)
    return out


def write(curves: Mapping[str, Curve], weight: float, into: Mapping[str, Tensor]) -> None:
    """Evaluate every curve at λ = `weight` into the same-named tensors (a live model's own storage)."""
    with torch.no_grad():
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
    """The two parents of a method that joins exactly two; ValueError for any other number."""
    if len(parents) != 2:
        raise ValueError(f"merge={method} joins exactly two parents, got {len(parents)}")
    return parents[0], parents[1]


@lru_cache(maxsize=8)
def _scratch(device: torch.device, dtype: torch.dtype, thread: int) -> tuple[Tensor, Tensor]:
    # Touching fresh memory costs more than the arithmetic: the same two blocks serve every tensor of a thread.
    return torch.empty(BLOCK, dtype=dtype, device=device), torch.empty(BLOCK, dtype=dtype, device=device)
