"""Safetensors files written in place: one tensor after another, or many at once into files laid out in advance."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from patientdx.checkpoints.layout import Shard, header_bytes
from patientdx.checkpoints.reader import TensorHeader
from patientdx.core.atomic_io import sync_handle

_HASHED = 1 << 26  # bytes of a file that are mapped at a time
FORMAT = {"format": "pt"}  # transformers refuses files without a format


def write_safetensors(file: Path, headers: Sequence[TensorHeader], tensor_of: Callable[[str], Tensor]) -> None:
    """Write one safetensors file with the tensors of ``headers``, in that order; memory holds one of them.

    Args:
        file: the file to make; written in place, so give a temporary name where that matters.
        headers: name, shape and dtype of every tensor; their file and place are not looked at.
        tensor_of: gives the tensor of a name, asked once per tensor in order; its shape and dtype must be the
            header's.
    """
    head, _ = header_bytes(headers, file, FORMAT)
    with file.open("wb") as handle:
        handle.write(head)
        for header in headers:
            tensor = tensor_of(header.name)
            if tuple(tensor.shape) != header.shape or tensor.dtype != header.dtype:
                raise ValueError(f"{header.name}: {tensor.dtype} {list(tensor.shape)} is not what the header promises")
            handle.write(raw(tensor))


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU: a view of its memory where that is contiguous."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data


class ShardFiles:
    """Shards of full size on disk, whose tensors come in any order and from any thread; the headers come last.

    Opening makes the files, or takes those of an interrupted merge, and reserves their blocks, so that a full disk is
    seen before the work and not in its middle. Raises OSError where the disk does not take them.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self.folder, self.shards = folder, {shard.name: shard for shard in shards}
        self.tensors = {tensor.name: tensor for shard in shards for tensor in shard.tensors}
        self._open: dict[str, int] = {}
        self._maps: dict[str, mmap.mmap] = {}
        try:
            for shard in shards:
                handle = self._open[shard.name] = os.open(folder / shard.name, os.O_RDWR | os.O_CREAT, 0o666)
                _reserve(handle, shard.nbytes)
                self._maps[shard.name] = mmap.mmap(handle, shard.nbytes, prot=mmap.PROT_READ)
        except BaseException:
            self.close()
            raise

    def put(self, name: str, first: int, data: memoryview) -> None:
        """Write bytes of a tensor from its byte ``first`` on."""
        tensor = self.tensors[name]
        self._write(tensor.file.name, tensor.start + first, data)

    def tensor_hash(self, name: str) -> str:
        """SHA-256 of a tensor's bytes as they are in the file."""
        tensor = self.tensors[name]
        return self._hash(tensor.file.name, tensor.start, tensor.nbytes)

    def shard_hash(self, shard: str) -> str:
        """SHA-256 of a whole file, as `sha256sum` gives it."""
        return self._hash(shard, 0, self.shards[shard].nbytes)

    def put_headers(self, metadata: Mapping[str, str]) -> None:
        """Write the header of every shard; until then none of them can be opened."""
        for shard in self.shards.values():
            head, placed = header_bytes(shard.tensors, Path(shard.name), metadata)
            if tuple(placed) != shard.tensors:
                raise ValueError(f"the metadata of {shard.name} are longer or shorter than they were laid out")
            self._write(shard.name, 0, memoryview(head))

    def sync(self) -> None:
        """Return once everything that was written is on disk."""
        for handle in self._open.values():
            sync_handle(handle)

    def close(self) -> None:
        """Let go of the files."""
        for mapped in self._maps.values():
            mapped.close()
        for handle in self._open.values():
            os.close(handle)
        self._maps, self._open = {}, {}

    def _write(self, shard: str, start: int, data: memoryview) -> None:
        # Not into a shared mapping: it costs the same (a full disk apart, which would then be a signal, no error).
        while len(data):
            done = os.pwrite(self._open[shard], data, start)
            data, start = data[done:], start + done

    def _hash(self, shard: str, start: int, nbytes: int) -> str:
        mapped, digest = self._maps[shard], hashlib.sha256()
        with memoryview(mapped) as view:
            for first in range(start, start + nbytes, _HASHED):
                last = min(first + _HASHED, start + nbytes)
                with view[first:last] as part:
                    digest.update(part)
                first = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
                if hasattr(mmap, "MADV_DONTNEED") and last > first:
                    mapped.madvise(mmap.MADV_DONTNEED, first, last - first)
        return digest.hexdigest()


def _reserve(handle: int, nbytes: int) -> None:
    if os.fstat(handle).st_size != nbytes:
        os.truncate(handle, nbytes)
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, nbytes)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # the file system cannot reserve
                raise
