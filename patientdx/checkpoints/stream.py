"""The pass over the weights: every tensor of a merge computed once, in blocks, by several threads.

Reading, arithmetic and writing overlap: while one thread waits for the disk another computes. Memory holds blocks, no
complete tensor (except those of a view, which are computed, as with an adapter).
"""

from __future__ import annotations

import ctypes
import mmap
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from threading import local
from typing import Any

import torch
from torch import Tensor

from patientdx.checkpoints.identity import tensor_hash
from patientdx.checkpoints.manifest import sources_of
from patientdx.checkpoints.merge_plan import Recipe
from patientdx.checkpoints.reader import Checkpoint, TensorHeader
from patientdx.checkpoints.writer import raw
from patientdx.core.errors import UserError
from patientdx.merge.curve import BLOCK, Curve, evaluate

Put = Callable[[str, int, memoryview], None]
_LIBC = ctypes.CDLL(None)


@dataclass
class Merged:
    """One tensor, done.

    diagnostics: of its curve. result: of `after`. hashes: SHA-256 of the same tensor in the sources that were
    to be hashed, by their number.
    """

    name: str
    nbytes: int
    diagnostics: Mapping[str, Any]
    result: Any = None
    hashes: dict[int, str] = field(default_factory=dict)


def stream(
    recipe: Recipe,
    tensors: Mapping[str, TensorHeader],
    put: Put,
    after: Callable[[str], Any],
    *,
    threads: int,
    device: str = "cpu",
    hashed: Sequence[int] = (),
) -> Generator[Merged]:
    """Compute the named tensors of a recipe, in the dtype of their headers; yields them as they are done.

    put: (name, first, bytes) takes a tensor's bytes from its byte `first` on; called from several threads, for parts
    of one tensor too. after: called once all bytes of a tensor were taken. hashed: numbers of the sources (see
    `sources_of`) whose tensors are hashed on the way, while they are in memory.
    The bytes do not depend on `threads`, on the order, or on the other tensors. Arithmetic runs on `device`.
    Raises UserError where the method cannot join the tensors, or a result does not fit float16.
    """
    recipe.prepare()
    work = _Pass(recipe, tensors, put, after, threads, torch.device(device), hashed)
    before = torch.get_num_threads()
    try:
        # One thread each: nested pools would only wait for cores.
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                yield from work.run(pool)
            finally:
                pool.shutdown(cancel_futures=True)
    finally:
        torch.set_num_threads(before)


@dataclass
class _Group:
    """Tensors that were opened together, and how many of them are not done."""

    names: tuple[str, ...]
    left: int


class _Pass:
    """The steps of `stream`. Threads of the pool do them; this object's own state belongs to the calling thread."""

    def __init__(self, recipe, tensors, put, after, threads, device, hashed) -> None:
        self.recipe, self.tensors, self.put, self.after = recipe, tensors, put, after
        self.threads, self.device, self.hashed = threads, device, hashed
        self.sources = sources_of(recipe)
        self.local = local()  # .rooms: this thread's blocks, by dtype
        # A tensor is divided where it would keep one thread busy while the others have nothing left to do.
        self.largest = sum(header.nbytes for header in tensors.values()) // (4 * threads)
        self.running: dict[Future, Callable[[Any], None]] = {}
        self.done: list[Merged] = []

    def run(self, pool: ThreadPoolExecutor) -> Iterator[Merged]:
        self.pool = pool
        queue = deque(self._groups())
        while queue or self.running:
            # No more than the threads can start: open groups are in memory.
            while queue and len(self.running) <= self.threads:
                group = queue.popleft()
                self._start(partial(self._opened, group), self._open, group, queue[0] if queue else ())
            finished, _ = wait(self.running, return_when=FIRST_COMPLETED)
            for future in finished:
                self.running.pop(future)(future.result())
            yield from self.done
            self.done.clear()

    def _start(self, then: Callable[[Any], None], step: Callable[..., Any], *arguments: Any) -> None:
        """Have a thread do `step`, and `then` go on with its result here."""
        self.running[self.pool.submit(step, *arguments)] = then

    def _groups(self) -> list[tuple[str, ...]]:
        """Groups with a tensor to compute, largest first, so that the last to end is small."""
        base = self.sources[0].tensors
        floating = tuple(name for name in self.recipe.names if base[name].dtype.is_floating_point)
        groups = [*replace(self.recipe, names=floating).groups]
        groups += [(name,) for name in self.recipe.names if not base[name].dtype.is_floating_point]
        groups = [group for group in groups if any(name in self.tensors for name in group)]
        return sorted(groups, key=lambda group: -sum(base[name].nbytes for name in group))

    def _open(self, group: tuple[str, ...], following: tuple[str, ...]) -> dict[str, Curve]:
        """The curves of a group, while the disk already reads the next one."""
        self._advise(following, "MADV_WILLNEED")
        base = self.sources[0]
        if not base.tensors[group[0]].dtype.is_floating_point:
            # Positions and masks are no weights: the base's are kept.
            return {group[0]: Curve((base.read(group[0]),), lambda weight: (1.0,), {"kept": "base"})}
        return self.recipe.curves(group)

    def _opened(self, names: tuple[str, ...], curves: Mapping[str, Curve]) -> None:
        names_here = [name for name in names if name in self.tensors]
        group = _Group(names, len(names_here))
        for name in names_here:
            curve, header = curves[name], self.tensors[name]
            merged = Merged(name, header.nbytes, dict(curve.diagnostics))
            spans = self._spans(curve, header)
            steps = [len(spans) + len(self.hashed)]
            ended = partial(self._ended, group, merged, steps)
            for span in spans:
                self._start(ended, self._evaluate, curve, header, span)
            for number in self.hashed:
                self._start(partial(ended, number), tensor_hash, self.sources[number], name)

    def _ended(self, group: _Group, merged: Merged, steps: list[int], *result: Any) -> None:
        if len(result) == 2:
            merged.hashes[result[0]] = result[1]
        steps[0] -= 1
        if not steps[0]:
            self._start(partial(self._finished, group, merged), self.after, merged.name)

    def _finished(self, group: _Group, merged: Merged, result: Any) -> None:
        merged.result = result
        self.done.append(merged)
        group.left -= 1
        if not group.left:
            self._advise(group.names, "MADV_DONTNEED")

    def _spans(self, curve: Curve, header: TensorHeader) -> list[tuple[int, int]]:
        """Elements of a tensor that one thread computes at a time: all, or complete rows of a large tensor."""
        count = header.nbytes // header.dtype.itemsize
        if header.nbytes <= self.largest or len(header.shape) < 2:
            return [(0, count)]
        row = header.shape[-1]
        step = max(1, self.largest // header.dtype.itemsize // row) * row
        return [(start, min(start + step, count)) for start in range(0, count, step)]

    def _evaluate(self, curve: Curve, header: TensorHeader, span: tuple[int, int]) -> None:
        """Compute elements of a tensor block by block, and hand over their bytes."""
        weight = self.recipe.weight_of(header.name)
        row = header.shape[-1] if header.shape and curve.by_row else 1
        step = max(1, BLOCK // row) * row
        here, there = self._rooms(header.dtype, min(step, span[1] - span[0]))
        for start in range(*span, step):
            stop = min(start + step, span[1])
            out = evaluate(curve, weight, there[: stop - start], span=(start, stop))
            if header.dtype == torch.float16 and not torch.isfinite(out).all():
                raise UserError(
                    f"{header.name} has values beyond float16's largest, 65504, or parents that are not numbers: "
                    "choose save_dtype=bfloat16 or save_dtype=float32."
                )
            block = here[: stop - start]
            if here is not there:
                block.copy_(out)
            self.put(header.name, start * header.dtype.itemsize, raw(block))

    def _rooms(self, dtype: torch.dtype, count: int) -> tuple[Tensor, Tensor]:
        """This thread's memory for one block, on the CPU and on the device: used again for every block."""
        rooms: dict[torch.dtype, tuple[Tensor, Tensor]] = self.local.__dict__.setdefault("rooms", {})
        if dtype not in rooms or len(rooms[dtype][0]) < count:
            here = torch.empty(count, dtype=dtype)
            rooms[dtype] = here, (here if self.device.type == "cpu" else here.to(self.device))
        return rooms[dtype]

    def _advise(self, names: Sequence[str], advice: str) -> None:
        """Tell the operating system that pages of the sources' files will be read, or can be dropped."""
        number = getattr(mmap, advice, None)
        for source in self.sources:
            if number is None or not isinstance(source, Checkpoint):
                continue
            for name in names:
                pages = source.read_bytes(name)
                start = -(-pages.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
                length = pages.data_ptr() + pages.numel() - start
                if length > 0:
                    _LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), number)
