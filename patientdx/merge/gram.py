"""Inner products among a few tensors: all that the methods on the sphere need from the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from patientdx.merge.curve import BLOCK


@torch.no_grad()
def gram(tensors: Sequence[Tensor], origin: Tensor | None = None, *, by_row: bool = False) -> Tensor:
    """Inner products of n tensors of one shape and any dtype, or of their differences from `origin`; float64, on CPU.

    (1, n, n) for tensors as flat vectors; `by_row`: (rows, n, n), one matrix for each row, a row being the
    elements along the last axis (a tensor of shape () is one row of one element). Differences are taken in float64,
    a block at a time.
    """
    shape = tensors[0].shape
    width = max(1, shape[-1] if shape else 1) if by_row else tensors[0].numel()
    rows = tensors[0].numel() // width if by_row else 1
    flat = [tensor.reshape(rows, width) for tensor in tensors]
    start = None if origin is None else origin.reshape(rows, width)
    products = torch.zeros(rows, len(flat), len(flat), dtype=torch.float64, device=flat[0].device)
    tall = max(1, BLOCK // max(1, width))
    for top in range(0, rows, tall):
        for left in range(0, width, BLOCK):
            block = slice(top, top + tall), slice(left, left + BLOCK)
            pieces = [_exact(tensor[block]) for tensor in flat]
            if start is not None:
                zero = _exact(start[block])
                pieces = [piece - zero for piece in pieces]
            for i, x in enumerate(pieces):
                for j, y in enumerate(pieces[: i + 1]):
                    products[block[0], i, j] += _dots(x, y)
    lower = products.tril(-1)
    return (products + lower.mT).cpu()


def _exact(piece: Tensor) -> Tensor:
    # Sums over memory with gaps run in another order.
    return piece.to(torch.float64, memory_format=torch.contiguous_format)


def _dots(x: Tensor, y: Tensor) -> Tensor:
    # torch.dot, and the sum of one long row, are split among threads: their last bits depend on how many there are.
    # Each row is summed by one thread, and a short row is not split.
    return torch.stack([part.sum(-1) for part in (x * y).split(1 << 14, -1)]).sum(0)


def cosines(inner: Tensor) -> tuple[Tensor, Tensor]:
    """Norms (..., n) and cosines (..., n, n) of n vectors from their inner products; cosine 0 where a norm is 0."""
    norms = inner.diagonal(dim1=-2, dim2=-1).sqrt()
    scale = torch.where(norms > 0, norms, torch.inf)
    return norms, (inner / scale[..., :, None] / scale[..., None, :]).clamp(-1.0, 1.0)
