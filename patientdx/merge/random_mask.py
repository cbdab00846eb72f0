"""Random numbers by index: an element draws the same number in any order, on any thread, in any span.

SplitMix64 (Steele, Lea and Flood 2014) as a function of a counter; each of its 64-bit numbers serves two neighbours.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
from torch import Tensor

from patientdx.merge.curve import BLOCK
from patientdx.merge.scratch import like, scratch

_STEP = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, None))


def key_of(seed: int, number: int, name: str) -> int:
    """The key of one tensor of one parent: 64 bits of the SHA-256 of the seed, the parent's number and the name."""
    digest = hashlib.sha256(f"{seed}\n{number}\n{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def keep_random(x: Tensor, key: int, start: int, keep: float | Tensor) -> None:
    """Zero, in place, each element of x (n,) but with its keep probability: one for all, or float64 (n,).

    x: elements start .. start + n of the tensor with this key, float64. Element i is kept where its number u_i,
    uniform on the 2^32 steps of [0, 1), is below the keep probability; what a low probability keeps, a higher one
    keeps too. `keep` is overwritten.
    """
    drawn = like(x, "drawn").copy_(steps(key, start, x.numel(), x.device))
    if isinstance(keep, Tensor):
        # u < keep, and both sides are counted in steps
        drawn.add_(keep.mul_(2.0**32))
        keep = 0.0
    # One vectorised pass; a bool mask takes several times as long.
    torch.ops.aten.threshold_backward.grad_input(x, drawn, 2.0**31 - 1 - keep * 2.0**32, grad_input=x)


def uniform(key: int, start: int, count: int) -> Tensor:
    """The numbers u of elements start .. start + count, float64 (count,)."""
    return (2.0**31 - 1 - steps(key, start, count, torch.device("cpu")).double()).mul_(2.0**-32)


def steps(key: int, start: int, count: int, device: torch.device) -> Tensor:
    """int32 (count,), uniform over all int32: u = (2^31 - 1 - step) / 2^32 of elements start .. start + count.

    The thread's next call reuses the memory.
    """
    first = start // 2
    half = (start + count + 1) // 2 - first
    mixed, room = (scratch(slot, half, torch.int64, device) for slot in ("mixed", "shifted"))
    torch.add(_ramp(half, device), _signed(key + (first + 1) * _STEP), out=mixed)
    for shift, factor in _MIX:
        # int64 shifts copy the sign; the mask makes them unsigned shifts.
        torch.bitwise_right_shift(mixed, shift, out=room).bitwise_and_((1 << (64 - shift)) - 1)
        mixed.bitwise_xor_(room)
        if factor is not None:
            mixed.mul_(_signed(factor))
    return mixed.view(torch.int32)[start % 2 : start % 2 + count]


def _ramp(count: int, device: torch.device) -> Tensor:
    """0, 1, 2, ... times the step of the counter, modulo 2^64."""
    if count > BLOCK // 2 + 1:
        return torch.arange(count, device=device).mul_(_signed(_STEP))
    return _stored_ramp(device)[:count]


@lru_cache(maxsize=8)
def _stored_ramp(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.arange(BLOCK // 2 + 1, device=device).mul_(_signed(_STEP))


def _signed(value: int) -> int:
    """The int64 of the same 64 bits."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
