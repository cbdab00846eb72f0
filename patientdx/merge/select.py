"""The k largest magnitudes, exactly and without sorting: two histograms over the bits of float32 magnitudes."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from patientdx.merge.scratch import like, scratch

Blocks = Iterable[Sequence[Tensor]]
Parts = Callable[[], Iterable[Blocks]]
Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]

_LOW = 1 << 16  # the bits of a magnitude are found in two halves of 16
# Elements outside the bucket looked at go to so many counters in turn: adding to one again and again would wait for it.
_REST = 64


@dataclass(frozen=True)
class Cutoff:
    """Where the k largest of n magnitudes end.

    magnitude: the k-th largest, a float32. last: of the elements equal to it those count that have a flat index up
    to this; so exactly k do, the lowest indices first, and any span can be judged by itself.
    """

    magnitude: float
    last: int

    def shifted(self, elements: int) -> Cutoff:
        """The same cutoff for a span that begins after `elements` elements."""
        return Cutoff(self.magnitude, self.last - elements)


def cutoffs(parts: Parts, count: int, wanted: Sequence[Sequence[int]], each: Each = map) -> list[tuple[Cutoff, ...]]:
    """Cutoffs of the largest k elements of several sequences of `count` elements, for each k wanted of each sequence.

    parts: gives the same parts at each call, one after the other; a part gives blocks, a block for each sequence
    float32 (n,), signs left in, which this overwrites. Read twice, and a third time up to the last tie that counts;
    with two tables of 64 Ki counters for each sequence and k. k <= 0 keeps nothing, k >= count everything.
    each: goes through parts as `map` does, or on several threads: the order makes no difference to what is counted.
    """
    found = {
        (p, k): Cutoff(math.inf, -1) if k <= 0 else Cutoff(0.0, count)
        for p, ks in enumerate(wanted)
        for k in ks
        if k <= 0 or k >= count
    }
    open_ = [(p, k) for p, ks in enumerate(wanted) for k in ks if (p, k) not in found]
    if open_:
        found |= _search(parts, count, open_, each)
    return [tuple(found[p, k] for k in ks) for p, ks in enumerate(wanted)]


def _search(parts: Parts, count: int, open_: Sequence[tuple[int, int]], each: Each) -> dict[tuple[int, int], Cutoff]:
    coarse = _sum(each(partial(_coarse, sorted({p for p, _ in open_})), parts()))
    upper = {(p, k): _place(coarse[p], k) for p, k in open_}
    fine = _sum(each(partial(_fine, sorted({(p, bucket) for (p, _), (bucket, _) in upper.items()})), parts()))
    found, ties = {}, {}
    for (p, k), (bucket, rank) in upper.items():
        table = fine[p, bucket][:_LOW]
        low, rank = _place(table, rank)
        value = (bucket << 16) + low
        if rank == table[low]:
            found[p, k] = Cutoff(_float(value), count)
        else:
            ties[p, k] = value, rank
    return found | _last_ties(chain.from_iterable(parts()) if ties else (), ties)


def _coarse(sequences: Sequence[int], part: Blocks) -> dict[int, Tensor]:
    """How many magnitudes there are with each upper half of the bits, for each of these sequences."""
    found = {p: torch.zeros(_LOW // 2, dtype=torch.int64) for p in sequences}
    for block in part:
        for p, table in found.items():
            key = _bits(block[p]).bitwise_right_shift_(16)
            table += torch.bincount(key, minlength=len(table)).to(table.device)
    return found


def _fine(buckets: Sequence[tuple[int, int]], part: Blocks) -> dict[tuple[int, int], Tensor]:
    """For each sequence and upper half: how many magnitudes there are with each lower half; then what is no use."""
    found = {bucket: torch.zeros(_LOW + _REST, dtype=torch.int64) for bucket in buckets}
    for block in part:
        bits = {p: _bits(block[p]) for p, _ in buckets}
        room, rest = like(block[0].view(torch.int32), "key"), _rest(len(block[0]), block[0].device)
        for (p, upper), table in found.items():
            key = torch.minimum(torch.bitwise_xor(bits[p], upper << 16, out=room), rest, out=room)
            table += torch.bincount(key, minlength=len(table)).to(table.device)
    return found


def _sum(tables: Iterable[dict[Any, Tensor]]) -> dict[Any, Tensor]:
    whole: dict[Any, Tensor] = {}
    for found in tables:
        for key, table in found.items():
            whole[key] = whole[key].add_(table) if key in whole else table
    return whole


def _last_ties(blocks: Blocks, ties: dict[tuple[int, int], tuple[int, int]]) -> dict[tuple[int, int], Cutoff]:
    """ties: sequence and k -> bits of the cutoff, and how many of the elements equal to it count."""
    found, start, left = {}, 0, dict(ties)
    for block in blocks:
        bits = {p: _bits(block[p]) for p, _ in left}
        for (p, k), (value, rank) in list(left.items()):
            equal = bits[p] == value
            here = int(equal.count_nonzero())
            if here < rank:
                left[p, k] = value, rank - here
            else:
                found[p, k] = Cutoff(_float(value), start + int(equal.nonzero()[rank - 1]))
                del left[p, k]
        if not left:
            break
        start += block[0].numel()
    return found


def keep_largest(x: Tensor, by: Tensor, start: int, cutoff: Cutoff) -> None:
    """Zero, in place, the elements of x (n,) whose `by` (n,) is not among the largest.

    x and by: elements start .. start + n, float64 (or both float32); `by` may be x itself, and only its magnitude
    counts, rounded to float32.
    """
    split = min(max(cutoff.last + 1 - start, 0), x.numel())
    bits = _bits_of(cutoff.magnitude)
    for part, score, edge in ((x[:split], by[:split], bits - 1), (x[split:], by[split:], bits)):
        if part.numel():
            # One vectorised pass that zeroes all up to the edge; a bool mask takes several times as long.
            torch.ops.aten.hardshrink_backward.grad_input(part, score, _top(edge, x.dtype), grad_input=part)


def drop_largest(x: Tensor, by: Tensor, start: int, cutoff: Cutoff) -> None:
    """The opposite of `keep_largest`: zero the elements that are among the largest."""
    largest = like(x, "largest").copy_(x)
    keep_largest(largest, by, start, cutoff)
    x.sub_(largest)


def _rest(count: int, device: torch.device) -> Tensor:
    found = scratch("rest", count, torch.int32, device)
    return torch.arange(count, dtype=torch.int32, device=device, out=found).bitwise_and_(_REST - 1).add_(_LOW)


def _bits(block: Tensor) -> Tensor:
    return block.view(torch.int32).bitwise_and_(0x7FFFFFFF)


def _place(table: Tensor, k: int) -> tuple[int, int]:
    """Bucket that holds the k-th largest element, and its rank among those of the bucket, from 1."""
    above = table.flip(0).cumsum(0)
    at = int(torch.searchsorted(above, k))
    bucket = len(table) - 1 - at
    return bucket, k - int(above[at] - table[bucket])


def _top(bits: int, dtype: torch.dtype) -> float:
    """The largest number of `dtype` that rounds to no more than the float32 of these bits; below 0 for bits < 0."""
    if bits < 0:
        return -1.0
    if bits >= _bits_of(math.inf):
        return math.inf
    value = _float(bits)
    if dtype == torch.float32:
        return value
    following = min(_float(bits + 1), 2.0**128)
    middle = (value + following) / 2
    # Halfway goes to the even neighbour.
    return middle if bits % 2 == 0 else math.nextafter(middle, 0.0)


def _float(bits: int) -> float:
    return struct.unpack("<f", struct.pack("<i", bits))[0]


def _bits_of(value: float) -> int:
    return struct.unpack("<i", struct.pack("<f", value))[0]
