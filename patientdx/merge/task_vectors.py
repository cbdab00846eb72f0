"""Task vectors: the differences of the parents from their common ancestor, a block at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from patientdx.merge.curve import BLOCK, ComputedTerm, Curve
from patientdx.merge.scratch import scratch
from patientdx.merge.thresholds import Cutoff, Each, cutoffs

_JOINED = 1 << 16  # elements joined at a time: a join goes over several tensors many times, in cache
_SAMPLED = 16  # one block in so many is enough to guess by where a cutoff lies
# One tensor of a model, as the recipe hands it over when a method looks at whole models: name, parents, ancestor.
Named = tuple[str, Sequence[Tensor], Tensor]


@dataclass(frozen=True)
class Deltas:
    """The task vectors of the parents that moved, in the parents' order; never stored whole.

    numbers: their places among all parents, from 0 (the base). A parent that is the ancestor itself, in the same
    memory, has a task vector of zeros and is left out: it is not even read.
    weights: one for each of them.
    """

    ancestor: Tensor
    parents: tuple[Tensor, ...]
    numbers: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def row(self) -> int:
        """Elements along the last axis; 1 for a tensor of shape ()."""
        return max(1, self.ancestor.shape[-1] if self.ancestor.ndim else 1)

    def blocks(self, *, by_row: bool = False) -> Iterator[tuple[int, list[Tensor]]]:
        """(start, task vectors start .. start + n as float64 (n,)), block after block; by_row: of whole rows.

        They may be overwritten, and are gone with the next block.
        """
        step = max(1, BLOCK // self.row) * self.row if by_row else BLOCK
        yield from self._differences(torch.float64, step)

    def rounded(self, every: int = 1) -> Iterator[tuple[int, list[Tensor]]]:
        """The same as float32, as which magnitudes are compared; of each `every` blocks the first.

        For parents of 32 bits or fewer the float32 difference is the float64 difference rounded to float32, bit for
        bit: either is exact, or the smaller number is too small to move the larger one near a point where roundings
        differ.
        """
        wide = any(tensor.dtype == torch.float64 for tensor in (self.ancestor, *self.parents))
        for start, moved in self._differences(torch.float64 if wide else torch.float32, BLOCK, every):
            yield start, [x.float() for x in moved]

    def magnitudes(self, every: int = 1) -> Iterator[list[Tensor]]:
        """`rounded` without the places, as select.py takes it."""
        return (moved for _, moved in self.rounded(every))

    def cutoffs(self, wanted: Sequence[int]) -> list[tuple[Cutoff, ...]]:
        """Cutoffs of the k largest magnitudes, each k wanted, of each task vector of this tensor (see select.py)."""
        count = self.ancestor.numel()
        sample = (lambda: [self.magnitudes(_SAMPLED)]) if count > _SAMPLED * BLOCK // 2 else None
        return cutoffs(lambda: [self.magnitudes()], count, [wanted] * len(self.numbers), sample=sample)

    def _differences(self, dtype: torch.dtype, step: int, every: int = 1) -> Iterator[tuple[int, list[Tensor]]]:
        flat = [tensor.reshape(-1) for tensor in (self.ancestor, *self.parents)]
        count = flat[0].numel()
        for start in range(0, count, step * every):
            stop = min(start + step, count)
            rooms = [scratch(f"delta {i}", stop - start, dtype, x.device) for i, x in enumerate(flat)]
            zero, *moved = (room.copy_(x[start:stop]) for room, x in zip(rooms, flat, strict=True))
            yield start, [x.sub_(zero) for x in moved]

    def curve(
        self,
        join: Callable[[Sequence[Tensor], int], Tensor],
        facts: Mapping[str, float | str],
        *,
        by_row: bool = False,
    ) -> Curve:
        """m(λ) = ancestor + λ · join(task vectors); at λ=0 the ancestor bit for bit.

        join: (task vectors start .. start + n as float64 (n,), free to be overwritten; start) -> float64 (n,).
        """
        if not self.parents:
            return Curve((self.ancestor,), lambda weight: (1.0,), facts)

        def block(pieces: Sequence[Tensor], start: int, weight: float) -> Tensor:
            origin, *moved = pieces
            step = len(origin) if by_row else _JOINED
            for first in range(0, len(origin), step):
                here = slice(first, first + step)
                joined = join([x[here].sub_(origin[here]) for x in moved], start + first)
                origin[here].copy_(joined)
            return origin

        joined = ComputedTerm((self.ancestor, *self.parents), block)
        return Curve((self.ancestor, joined), lambda weight: (1.0, weight), facts, by_row=by_row)


def deltas(
    parents: Sequence[Tensor], ancestor: Tensor, weights: Sequence[float] | None, method: str, *, every: bool = False
) -> Deltas:
    """The task vectors of one tensor. every: parents that are the ancestor itself are kept, too.

    Raises ValueError for no parent, tensors of two shapes, or weights that are not one number for each parent.
    """
    if not parents:
        raise ValueError(f"merge={method} joins one parent or more, got none")
    for parent in parents:
        if parent.shape != ancestor.shape:
            raise ValueError(
                f"merge={method} joins tensors of one shape, got {tuple(ancestor.shape)} and {tuple(parent.shape)}"
            )
    given = weights_of(weights, len(parents))
    numbers = [number for number, parent in enumerate(parents) if every or not _is_memory_of(parent, ancestor)]
    return Deltas(
        ancestor.detach(),
        tuple(parents[number].detach() for number in numbers),
        tuple(numbers),
        tuple(given[number] for number in numbers),
    )


def model_cutoffs(
    tensors: Callable[[], Iterable[Named]], wanted: Callable[[int], Sequence[int]], method: str, each: Each = map
) -> dict[str, dict[int, tuple[Cutoff, ...]]]:
    """Cutoffs of whole task vectors: for each tensor's name, by each moved parent's number, one for each k wanted.

    tensors: gives all tensors of the models, in the same order at each call; those that hold no floats are left out.
    wanted: number of elements of a model -> the ks. Elements count as one long vector in that order. Reads the models
    twice, and a third time up to the last tie that counts. each: see select.cutoffs.
    """

    def floating() -> Iterator[Named]:
        return (found for found in tensors() if found[2].is_floating_point())

    places, moved, count = {}, set(), 0
    for name, parents, ancestor in floating():
        places[name] = count
        count += ancestor.numel()
        moved |= set(deltas(parents, ancestor, None, method).numbers)
    numbers = tuple(sorted(moved))

    def parts(every: int = 1) -> Iterator[Iterator[list[Tensor]]]:
        for _, parents, ancestor in floating():
            chosen = tuple(parents[number].detach() for number in numbers)
            yield Deltas(ancestor.detach(), chosen, numbers, (1.0,) * len(numbers)).magnitudes(every)

    sample = partial(parts, _SAMPLED) if count > _SAMPLED * BLOCK else None
    all_wanted = [wanted(count)] * len(numbers)
    found = dict(zip(numbers, cutoffs(parts, count, all_wanted, each, sample=sample), strict=True))
    return {
        name: {number: tuple(cutoff.shifted(place) for cutoff in found[number]) for number in numbers}
        for name, place in places.items()
    }


def weights_of(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """One weight for each of `count` parents, 1 where none are given; ValueError for anything else."""
    if weights is None:
        return (1.0,) * count
    if not isinstance(weights, Sequence) or not all(map(_is_number, weights)):
        raise ValueError(f"merge.weights={weights}: give a list of numbers, one for each parent, base first, or null")
    if len(weights) != count:
        raise ValueError(
            f"merge.weights={list(weights)} has {len(weights)} for {count} parents: give one number for each, "
            "base first"
        )
    return tuple(float(number) for number in weights)


def one_of(value: str, where: str, allowed: Iterable[str]) -> None:
    """ValueError where a word of the config is none of the allowed ones."""
    if value not in allowed:
        raise ValueError(f"merge.{where}={value}: it is one of {', '.join(allowed)}")


def share_of(value: float, where: str) -> None:
    """ValueError where a number is no share of the elements that can be kept."""
    if not 0.0 < value <= 1.0:
        raise ValueError(f"merge.{where}={value:g} is no share of the elements: give a number above 0 and up to 1")


def total(moved: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Σ wᵢ τᵢ, written over the first; multiplied, then added, as curve.py does."""
    for x, weight in zip(moved, weights, strict=True):
        x.mul_(weight)
    for x in moved[1:]:
        moved[0].add_(x)
    return moved[0]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_memory_of(a: Tensor, b: Tensor) -> bool:
    return (a.data_ptr(), a.dtype, a.device, a.stride()) == (b.data_ptr(), b.dtype, b.device, b.stride())
