"""Task vectors: the differences of the parents from their common ancestor, a block at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from patientdx.merge.curve import BLOCK, ComputedTerm, Curve, require_shape
from patientdx.merge.scratch import scratch
from patientdx.merge.thresholds import Cutoff, Map, cutoffs

_JOINED = 1 << 16  # elements joined at a time: a join goes over several tensors many times, in cache
_SAMPLED = 16  # one block in so many is enough to guess where a cutoff lies
Named = tuple[str, Sequence[Tensor], Tensor]  # one tensor of a model: name, parents, ancestor
GlobalThresholds = Mapping[str, Mapping[int, Sequence[Cutoff]]]  # by tensor and parent, one for each count
Mask = Callable[[Sequence[Tensor], int], None]  # (blocks of task vectors, start), in place
Combine = Callable[[Sequence[Tensor], Sequence[float]], Tensor]  # (masked blocks, weights) -> the joined block


@dataclass(frozen=True)
class TaskVectors:
    """The task vectors of the parents that differ from the ancestor, in the parents' order; computed block by block.

    numbers: which parents these are, from 0 (the base). A parent that is the ancestor itself, in the same memory, has
    a task vector of zeros and is left out: it is not even read.
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
        """(start, task vectors start .. start + n as float64 (n,)), block after block; by_row: of complete rows.

        They may be overwritten, and the next block reuses their memory.
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
        for start, vectors in self._differences(torch.float64 if wide else torch.float32, BLOCK, every):
            yield start, [x.float() for x in vectors]

    def magnitudes(self, every: int = 1) -> Iterator[list[Tensor]]:
        """The blocks of `rounded` without their starts, as `thresholds.cutoffs` takes them."""
        return (vectors for _, vectors in self.rounded(every))

    def cutoffs(self, counts: Sequence[int]) -> list[tuple[Cutoff, ...]]:
        """For each task vector of this tensor the cutoffs of its k largest magnitudes, one for each k of `counts`."""
        count = self.ancestor.numel()
        sample = (lambda: [self.magnitudes(_SAMPLED)]) if count > _SAMPLED * BLOCK // 2 else None
        return cutoffs(lambda: [self.magnitudes()], count, [counts] * len(self.numbers), sample=sample)

    def global_cutoffs(self, name: str, thresholds: GlobalThresholds | None) -> list[Sequence[Cutoff]]:
        """What `cutoffs` gives, for this tensor as part of whole models; ValueError without `thresholds`."""
        if thresholds is None:
            raise ValueError(
                "merge.trim=model needs whole models first: give what MethodSpec.fit_global_thresholds returns as "
                "cutoffs"
            )
        return [thresholds[name][number] for number in self.numbers]

    def _differences(self, dtype: torch.dtype, step: int, every: int = 1) -> Iterator[tuple[int, list[Tensor]]]:
        flat = [tensor.reshape(-1) for tensor in (self.ancestor, *self.parents)]
        count = flat[0].numel()
        for start in range(0, count, step * every):
            stop = min(start + step, count)
            rooms = [scratch(f"delta {i}", stop - start, dtype, x.device) for i, x in enumerate(flat)]
            zero, *vectors = (room.copy_(x[start:stop]) for room, x in zip(rooms, flat, strict=True))
            yield start, [x.sub_(zero) for x in vectors]

    def curve(
        self, mask: Mask, combine: Combine, diagnostics: Mapping[str, float | str], *, by_row: bool = False
    ) -> Curve:
        """m(λ) = ancestor + λ · combine(masked task vectors, weights); at λ=0 the ancestor bit for bit.

        mask: of task vectors start .. start + n as float64 (n,), in place. combine: these and `weights` -> float64
        (n,); it may overwrite them.
        """
        if not self.parents:
            return Curve((self.ancestor,), lambda weight: (1.0,), diagnostics)

        def block(pieces: Sequence[Tensor], start: int, weight: float) -> Tensor:
            origin, *parents = pieces
            step = len(origin) if by_row else _JOINED
            for first in range(0, len(origin), step):
                here = slice(first, first + step)
                vectors = [x[here].sub_(origin[here]) for x in parents]
                mask(vectors, start + first)
                origin[here].copy_(combine(vectors, self.weights))
            return origin

        joined = ComputedTerm((self.ancestor, *self.parents), block)
        return Curve((self.ancestor, joined), lambda weight: (1.0, weight), diagnostics, by_row=by_row)


def task_vectors(
    parents: Sequence[Tensor], ancestor: Tensor, weights: Sequence[float] | None, method: str, *, every: bool = False
) -> TaskVectors:
    """The task vectors of one tensor. every: parents that are the ancestor itself are kept, too.

    Raises ValueError for no parent, tensors of two shapes, or weights that are not one number for each parent.
    """
    if not parents:
        raise ValueError(f"merge={method} joins one parent or more, got none")
    require_shape((ancestor, *parents), method)
    numbers = [number for number, parent in enumerate(parents) if every or not _is_memory_of(parent, ancestor)]
    by_parent = check_weights(weights, len(parents))
    return TaskVectors(
        ancestor.detach(),
        tuple(parents[number].detach() for number in numbers),
        tuple(numbers),
        tuple(by_parent[number] for number in numbers),
    )


def model_cutoffs(
    tensors: Callable[[], Iterable[Named]],
    counts: Callable[[int], Sequence[int]],
    method: str,
    map_parts: Map = map,
) -> dict[str, dict[int, tuple[Cutoff, ...]]]:
    """Cutoffs of the task vectors of whole models: by tensor and by number of each parent that differs, one for each k.

    tensors: gives all tensors of the models, in the same order at each call; those that hold no floats are left out.
    counts: number of elements of a model -> the ks. Elements count as one long vector in that order. Reads the models
    twice, and a third time up to the last tie that counts. map_parts: see `thresholds.cutoffs`.
    """

    def floating() -> Iterator[Named]:
        return (named for named in tensors() if named[2].is_floating_point())

    starts: dict[str, int] = {}
    differing: set[int] = set()
    count = 0
    for name, parents, ancestor in floating():
        starts[name] = count
        count += ancestor.numel()
        differing |= set(task_vectors(parents, ancestor, None, method).numbers)
    numbers = tuple(sorted(differing))

    def parts(every: int = 1) -> Iterator[Iterator[list[Tensor]]]:
        for _, parents, ancestor in floating():
            chosen = tuple(parents[number].detach() for number in numbers)
            yield TaskVectors(ancestor.detach(), chosen, numbers, (1.0,) * len(numbers)).magnitudes(every)

    sample = partial(parts, _SAMPLED) if count > _SAMPLED * BLOCK else None
    ends = cutoffs(parts, count, [counts(count)] * len(numbers), map_parts, sample=sample)
    by_number = dict(zip(numbers, ends, strict=True))
    return {
        name: {number: tuple(cutoff.shifted(start) for cutoff in by_number[number]) for number in numbers}
        for name, start in starts.items()
    }


def check_weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """One weight for each of `count` parents, 1 for None; ValueError for anything else."""
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


def check_choice(value: str, key: str, allowed: Iterable[str]) -> None:
    """ValueError where a value of the config is not one of those allowed."""
    if value not in allowed:
        raise ValueError(f"merge.{key}={value}: it is one of {', '.join(allowed)}")


def check_density(density: float) -> None:
    """ValueError where a number is no share of the elements that can be kept."""
    if not 0.0 < density <= 1.0:
        raise ValueError(f"merge.density={density:g} is no share of the elements: give a number above 0 and up to 1")


def weighted_sum(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Σ wᵢ τᵢ, written over the first; multiplied, then added, as curve.py does."""
    for x, weight in zip(vectors, weights, strict=True):
        x.mul_(weight)
    for x in vectors[1:]:
        vectors[0].add_(x)
    return vectors[0]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_memory_of(a: Tensor, b: Tensor) -> bool:
    return (a.data_ptr(), a.dtype, a.device, a.stride()) == (b.data_ptr(), b.dtype, b.device, b.stride())
