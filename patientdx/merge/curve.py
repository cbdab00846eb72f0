"""What a merge method returns: a curve in weight space, and how a point on it is computed.

A curve is a sum of tensors that do not depend on λ, each with a coefficient that does. Everything expensive (angles,
norms, masks) is computed when the curve is made; a point is then one pass over the weights: read each term once, write
once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor

from patientdx.merge.scratch import BLOCK, scratch


@dataclass(frozen=True)
class ComputedTerm:
    """A term that is not stored but computed when it is needed, a block at a time; for example a trimmed task vector.

    sources: stored tensors of one shape, any floating dtype; never written to.
    block: (pieces, start, λ) -> float64 (n,). `pieces` are the sources' elements start .. start + n as float64 (n,),
    that may be overwritten. A pure function, called from several threads: no state, and randomness by index only.
    """

    sources: tuple[Tensor, ...]
    block: Callable[[Sequence[Tensor], int, float], Tensor]


@dataclass(frozen=True)
class Curve:
    """One tensor's path in λ.

    terms: tensors of one shape, any floating dtype, never written to; or rules that compute one.
    coefficients: λ -> for each term one float, or a float64 tensor (rows,) with one for each row, a row being the
    elements along the last axis; the point at λ is the sum of coefficient x term.
    diagnostics: what was measured when the curve was made (angle, branch taken, ...), for the report.
    by_row: blocks hold complete rows (elements along the last axis), because a term or its coefficients need them.
    """

    terms: tuple[Tensor | ComputedTerm, ...]
    coefficients: Callable[[float], tuple[float | Tensor, ...]]
    diagnostics: Mapping[str, float | str] = field(default_factory=dict)
    by_row: bool = False


@torch.no_grad()
def evaluate(curve: Curve, weight: float, out: Tensor, *, span: tuple[int, int] | None = None) -> Tensor:
    """Write the point at λ = `weight` into `out` and return it.

    Arithmetic is float64 (float32 on a device without), with one rounding to `out`'s dtype at the end: where terms
    of opposite sign nearly cancel, float32 sums are thousands of bfloat16 steps off, and the pass is bound by memory,
    not by arithmetic. Where one stored term has coefficient 1 and all others 0, that term is copied, so end points
    equal their parent bit for bit.
    span: (start, stop), flat elements: only these are computed, into `out` (stop - start,); for a curve `by_row` both
    are multiples of a row. Spans give the same bits as the complete tensor.
    `out` must be contiguous, of the terms' shape (or the span's length), and share no memory with them (ValueError);
    it may lie on another device than the terms.
    """
    stored = tuple(chain.from_iterable(t.sources if isinstance(t, ComputedTerm) else (t,) for t in curve.terms))
    _check_out(stored, out, span)
    first, last = span or (0, out.numel())
    row = max(1, stored[0].shape[-1] if stored[0].ndim else 1)
    flat = [
        (
            coefficient,
            tuple(source.reshape(-1) for source in (term.sources if isinstance(term, ComputedTerm) else (term,))),
            term,
        )
        for coefficient, term in zip(curve.coefficients(weight), curve.terms, strict=True)
        if not _equals(coefficient, 0.0)
    ]
    target = out.view(-1)
    if not flat:
        return out.zero_()
    if len(flat) == 1 and _equals(flat[0][0], 1.0) and not isinstance(flat[0][2], ComputedTerm):
        target.copy_(flat[0][1][0][first:last])
        return out
    exact = torch.float32 if out.device.type == "mps" else torch.float64
    step = max(1, BLOCK // row) * row if curve.by_row else BLOCK
    for start in range(first, last, step):
        stop = min(start + step, last)
        acc: Tensor | None = None
        for coefficient, sources, term in flat:
            # Multiplied, then added: a fused multiply-add would leave a residue where two terms cancel exactly, and
            # the result would depend on the processor.
            room = scratch("sum" if acc is None else "term", stop - start, exact, out.device)
            piece = _times(_piece(term, sources, start, stop, weight, room), coefficient, start, row)
            acc = piece if acc is None else acc.add_(piece)
        if acc is not None:
            target[start - first : stop - first].copy_(acc)
    return out


def _piece(
    term: Tensor | ComputedTerm, sources: Sequence[Tensor], start: int, stop: int, weight: float, room: Tensor
) -> Tensor:
    """Elements start .. stop of a term, written to `room` (stop - start,)."""
    if not isinstance(term, ComputedTerm):
        return room.copy_(sources[0][start:stop])
    rooms = [scratch(f"source {i}", stop - start, room.dtype, room.device) for i in range(len(sources))]
    pieces = [buffer.copy_(source[start:stop]) for buffer, source in zip(rooms, sources, strict=True)]
    return room.copy_(term.block(pieces, start, weight))


def _times(piece: Tensor, coefficient: float | Tensor, start: int, row: int) -> Tensor:
    if isinstance(coefficient, Tensor):
        rows = coefficient[start // row : start // row + piece.numel() // row].to(piece.device, piece.dtype)
        return piece.view(-1, row).mul_(rows[:, None]).view(-1)
    return piece.mul_(coefficient)


def _equals(coefficient: float | Tensor, value: float) -> bool:
    return not isinstance(coefficient, Tensor) and coefficient == value


def write(curves: Mapping[str, Curve], weight: float, into: Mapping[str, Tensor]) -> None:
    """Evaluate every curve at λ = `weight` into the same-named tensors (the storage of a live model)."""
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
        stop = min(start + BLOCK, a.numel())
        x, y = (
            scratch(slot, stop - start, torch.float64, a.device).copy_(part[start:stop])
            for slot, part in (("x", a), ("y", b))
        )
        aa, bb, ab = aa + torch.dot(x, x).item(), bb + torch.dot(y, y).item(), ab + torch.dot(x, y).item()
    norm_a, norm_b = aa**0.5, bb**0.5
    cosine = ab / (norm_a * norm_b) if norm_a > 0 and norm_b > 0 else 0.0
    return Geometry(norm_a, norm_b, max(-1.0, min(1.0, cosine)))


def line(weight: float) -> tuple[float, float]:
    """Coefficients of the straight line between two parents."""
    return 1.0 - weight, weight


def require_pair(parents: Sequence[Tensor], method: str) -> tuple[Tensor, Tensor]:
    """The two parents of a method that joins exactly two; ValueError for another number or two shapes."""
    if len(parents) != 2:
        raise ValueError(f"merge={method} joins exactly two parents, got {len(parents)}")
    require_shape(parents, method)
    return parents[0], parents[1]


def require_parents(parents: Sequence[Tensor], method: str) -> tuple[Tensor, ...]:
    """The parents of a method that joins two or more; ValueError for fewer, or for tensors of two shapes."""
    if len(parents) < 2:
        raise ValueError(f"merge={method} joins two or more parents, got {len(parents)}")
    require_shape(parents, method)
    return tuple(parents)


def require_shape(tensors: Sequence[Tensor], method: str) -> None:
    """ValueError for tensors of two shapes."""
    for tensor in tensors[1:]:
        if tensor.shape != tensors[0].shape:
            raise ValueError(
                f"merge={method} joins tensors of one shape, got {tuple(tensors[0].shape)} and {tuple(tensor.shape)}"
            )


def _check_out(terms: Sequence[Tensor], out: Tensor, span: tuple[int, int] | None) -> None:
    if not out.is_contiguous():
        raise ValueError(f"a merged tensor is written to contiguous memory, got strides {out.stride()}")
    shape = out.shape if span is None else terms[0].shape
    if span is not None and out.numel() != span[1] - span[0]:
        raise ValueError(f"{span[1] - span[0]} merged elements cannot be written into {out.numel()}")
    for term in terms:
        if term.shape != shape:
            raise ValueError(f"a tensor of shape {tuple(term.shape)} cannot be merged into {tuple(out.shape)}")
        if term.device == out.device and _overlap(term, out):
            raise ValueError("a merged tensor cannot be written over its parents: give it other memory")


def _overlap(a: Tensor, b: Tensor) -> bool:
    (start_a, stop_a), (start_b, stop_b) = _span(a), _span(b)
    return start_a < stop_b and start_b < stop_a


def _span(tensor: Tensor) -> tuple[int, int]:
    if tensor.numel() == 0:
        return 0, 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()
