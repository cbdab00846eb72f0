"""Memory that is reused for intermediates: touching fresh memory costs more than the arithmetic in it."""

from __future__ import annotations

import threading
from functools import lru_cache

import torch
from torch import Tensor

# Elements processed at a time: small enough to stay in cache, large enough that calls cost nothing.
BLOCK = 1 << 18


def scratch(slot: str, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Uninitialised memory (count,), the same at each call of one thread with this slot: one use at a time."""
    return _buffer(slot, max(count, BLOCK), dtype, device, threading.get_ident())[:count]


def like(x: Tensor, slot: str) -> Tensor:
    """Scratch of x's length, dtype and device."""
    return scratch(slot, x.numel(), x.dtype, x.device)


@lru_cache(maxsize=1024)
def _buffer(slot: str, count: int, dtype: torch.dtype, device: torch.device, thread: int) -> Tensor:
    # A tensor made in inference mode could not be written to outside it.
    with torch.inference_mode(False):
        return torch.empty(count, dtype=dtype, device=device)
