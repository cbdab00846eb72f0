"""The k largest magnitudes, exactly and without sorting: two histograms over the bits of float32 magnitudes."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patientdx.merge.scratch import like, scratch

Blocks = Iterable[Sequence[Tensor]]
Parts = Callable[[], Iterable[Blocks]]
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]

_LOW = 1 << 16  # the bits of a magnitude are found in two halves of 16
_WINDOW = 3 * _LOW  # where a sample says that the cutoff lies: the upper half it names, and its neighbours
# Elements outside the bucket go to so many counters in turn: adding to one counter repeatedly would wait for it.
_REST = 64


@dataclass(frozen=True)
class Cutoff:
    """Where the k largest of n magnitudes end.

    magnitude: the k-th largest, a float32. last: of the elements equal to it those count that have a flat index up
    to this; so exactly k do, the lowest indices first, and any span can be masked by itself.
    """

    magnitude: float
    last: int

    def shifted(self, elements: int) -> Cutoff:
        """The same cutoff for a span that begins after `elements` elements."""
        return Cutoff(self.magnitude, self.last - elements)


def cutoffs(
    parts: Parts, count: int, counts: Sequence[Sequence[int]], map_parts: Map = map, *, sample: Parts | None = None
) -> list[tuple[Cutoff, ...]]:
    """Cutoffs of the largest k elements of several sequences of `count` elements, for each k in its `counts`.

    parts: gives the same parts at each call, one after the other; a part gives blocks, a block for each sequence
    float32 (n,), with signs, which are overwritten. Read twice, and a third time up to the last tie that counts;
    with two tables of 64 Ki counters for each sequence and k. k <= 0 keeps nothing, k >= count everything.
    map_parts: goes through parts as `map` does, or on several threads: the order does not change the counts.
    sample: some of the blocks, from which the position of a cutoff is guessed: where that is right, one reading is
    saved; the result is the same.
    """
    ends = {
        (p, k): Cutoff(math.inf, -1) if k <= 0 else Cutoff(0.0, count)
        for p, ks in enumerate(counts)
        for k in ks
        if k <= 0 or k >= count
    }
    searches = [(p, k) for p, ks in enumerate(counts) for k in ks if (p, k) not in ends]
    if searches:
        ends |= _search(parts, count, searches, map_parts, sample)
    return [tuple(ends[p, k] for k in ks) for p, ks in enumerate(counts)]


def _search(
    parts: Parts, count: int, searches: Sequence[tuple[int, int]], map_parts: Map, sample: Parts | None
) -> dict[tuple[int, int], Cutoff]:
    located = {} if sample is None else _from_sample(parts, count, searches, map_parts, sample)
    located |= _from_counts(parts, [search for search in searches if search not in located], map_parts)
    ends, ties = {}, {}
    for (p, k), (value, rank, equal) in located.items():
        if rank == equal:
            ends[p, k] = Cutoff(_float(value), count)
        else:
            ties[p, k] = value, rank
    return ends | _last_ties(chain.from_iterable(parts()) if ties else (), ties)


def _from_counts(
    parts: Parts, searches: Sequence[tuple[int, int]], map_parts: Map
) -> dict[tuple[int, int], tuple[int, int, int]]:
    """In two readings, for each sequence and k: bits of the k-th largest magnitude, its rank among those equal to it
    (from 1), and how many are equal to it.
    """
    if not searches:
        return {}
    coarse = _sum(map_parts(partial(_coarse, sorted({p for p, _ in searches})), parts()))
    upper = {(p, k): _locate(coarse[p], k) for p, k in searches}
    fine = _sum(map_parts(partial(_fine, sorted({(p, bucket) for (p, _), (bucket, _) in upper.items()})), parts()))
    ends = {}
    for (p, k), (bucket, rank) in upper.items():
        low, rank = _locate(fine[p, bucket][:_LOW], rank)
        ends[p, k] = (bucket << 16) + low, rank, int(fine[p, bucket][low])
    return ends


def _from_sample(
    parts: Parts, count: int, searches: Sequence[tuple[int, int]], map_parts: Map, sample: Parts
) -> dict[tuple[int, int], tuple[int, int, int]]:
    """The same in one reading, of those for which the sample points to the right bucket."""
    coarse = _sum(map_parts(partial(_coarse, sorted({p for p, _ in searches})), sample()))
    first = {}
    for p, k in searches:
        sampled = int(coarse[p].sum()) if p in coarse else 0
        if sampled:
            bucket, _ = _locate(coarse[p], min(sampled, max(1, round(k * sampled / count))))
            first[p, k] = max(0, bucket - 1)
    near = _sum(map_parts(partial(_near, sorted({(p, bucket) for (p, _), bucket in first.items()})), parts()))
    ends = {}
    for (p, k), bucket in first.items():
        table = near[p, bucket]
        inside, rank = table[:_WINDOW], k - int(table[_WINDOW])
        if 1 <= rank <= int(inside.sum()):
            low, rank = _locate(inside, rank)
            ends[p, k] = (bucket << 16) + low, rank, int(inside[low])
    return ends


def _coarse(sequences: Sequence[int], part: Blocks) -> dict[int, Tensor]:
    """How many magnitudes there are with each upper half of the bits, for each of these sequences."""
    tables = {p: torch.zeros(_LOW // 2, dtype=torch.int64) for p in sequences}
    for block in part:
        for p, table in tables.items():
            key = _bits(block[p]).bitwise_right_shift_(16)
            table += torch.bincount(key, minlength=len(table)).to(table.device)
    return tables


def _fine(buckets: Sequence[tuple[int, int]], part: Blocks) -> dict[tuple[int, int], Tensor]:
    """For each sequence and upper half: how many magnitudes have each lower half; then counters of all others."""
    tables = {bucket: torch.zeros(_LOW + _REST, dtype=torch.int64) for bucket in buckets}
    for block in part:
        bits = {p: _bits(block[p]) for p, _ in buckets}
        room, rest = like(block[0].view(torch.int32), "key"), _rest(len(block[0]), block[0].device)
        for (p, upper), table in tables.items():
            key = torch.minimum(torch.bitwise_xor(bits[p], upper << 16, out=room), rest, out=room)
            table += torch.bincount(key, minlength=len(table)).to(table.device)
    return tables


def _near(buckets: Sequence[tuple[int, int]], part: Blocks) -> dict[tuple[int, int], Tensor]:
    """For each sequence and upper half: how many magnitudes there are of each in it and in the next two; last, how
    many lie above.
    """
    tables = {bucket: torch.zeros(_WINDOW + 1, dtype=torch.int64) for bucket in buckets}
    inside: dict[tuple[int, int], list[Tensor]] = {bucket: [] for bucket in buckets}
    for block in part:
        bits = {p: _bits(block[p]) for p, _ in buckets}
        for (p, upper), table in tables.items():
            keys, above = _between(bits[p], upper << 16, (upper << 16) + _WINDOW)
            table[_WINDOW] += above
            inside[p, upper].append(keys)
            # Few are inside: counting them block by block would cost more for the counters than for the elements.
            if sum(map(len, inside[p, upper])) >= _LOW:
                _count(inside[p, upper], table)
    for bucket, table in tables.items():
        _count(inside[bucket], table)
    return tables


def _between(bits: Tensor, low: int, high: int) -> tuple[Tensor, int]:
    """The bits from `low` up to `high`, minus `low`; and how many lie above."""
    if bits.device.type != "cpu":
        return bits[(bits >= low) & (bits < high)] - low, int((bits >= high).count_nonzero())
    # numpy compares, counts and chooses in a fifth of torch's time on a CPU.
    values = bits.numpy()
    inside = values[(values >= low) & (values < high)]
    return torch.from_numpy(inside) - low, int(np.count_nonzero(values >= high))


def _equal(bits: Tensor, value: int) -> Any:
    """Indices of the elements that are equal to the value, ascending."""
    return np.flatnonzero(bits.numpy() == value) if bits.device.type == "cpu" else (bits == value).nonzero()


def _count(keys: list[Tensor], table: Tensor) -> None:
    if keys:
        table += torch.bincount(torch.cat(keys), minlength=len(table)).to(table.device)
        keys.clear()


def _sum(tables: Iterable[dict[Any, Tensor]]) -> dict[Any, Tensor]:
    total: dict[Any, Tensor] = {}
    for part in tables:
        for key, table in part.items():
            total[key] = total[key].add_(table) if key in total else table
    return total


def _last_ties(blocks: Blocks, ties: dict[tuple[int, int], tuple[int, int]]) -> dict[tuple[int, int], Cutoff]:
    """ties: sequence and k -> bits of the cutoff, and how many of the elements equal to it count."""
    ends, start, left = {}, 0, dict(ties)
    for block in blocks:
        bits = {p: _bits(block[p]) for p, _ in left}
        for (p, k), (value, rank) in list(left.items()):
            places = _equal(bits[p], value)
            if len(places) < rank:
                left[p, k] = value, rank - len(places)
            else:
                ends[p, k] = Cutoff(_float(value), start + int(places[rank - 1]))
                del left[p, k]
        if not left:
            break
        start += block[0].numel()
    return ends


def keep_largest(x: Tensor, by: Tensor, start: int, cutoff: Cutoff) -> None:
    """Zero, in place, the elements of x (n,) whose `by` (n,) is not among the largest.

    x and by: elements start .. start + n, float64 (or both float32); `by` may be x itself, and only its magnitude
    counts, rounded to float32.
    """
    split = min(max(cutoff.last + 1 - start, 0), x.numel())
    bits = _bits_of(cutoff.magnitude)
    for part, score, edge in ((x[:split], by[:split], bits - 1), (x[split:], by[split:], bits)):
        if part.numel():
            # One vectorised pass that zeroes all up to the edge; a boolean mask takes several times as long.
            torch.ops.aten.hardshrink_backward.grad_input(part, score, _top(edge, x.dtype), grad_input=part)


def drop_largest(x: Tensor, by: Tensor, start: int, cutoff: Cutoff) -> None:
    """The opposite of `keep_largest`: zero the elements that are among the largest."""
    largest = like(x, "largest").copy_(x)
    keep_largest(largest, by, start, cutoff)
    x.sub_(largest)


def _rest(count: int, device: torch.device) -> Tensor:
    rest = scratch("rest", count, torch.int32, device)
    return torch.arange(count, dtype=torch.int32, device=device, out=rest).bitwise_and_(_REST - 1).add_(_LOW)


def _bits(block: Tensor) -> Tensor:
    return block.view(torch.int32).bitwise_and_(0x7FFFFFFF)


def _locate(table: Tensor, k: int) -> tuple[int, int]:
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
