"""Where every tensor of a checkpoint will lie: shards, headers and offsets, known before the first tensor exists."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patientdx.checkpoints.reader import DTYPES, TensorHeader

# Headers are padded to whole pages, so that large tensors begin on one: no page is written by two threads.
PAGE = 4096
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Shard:
    """One safetensors file to be: its name, its tensors at their places, and its bytes with the header."""

    name: str
    tensors: tuple[TensorHeader, ...]
    nbytes: int


def header_bytes(
    tensors: Sequence[TensorHeader], file: Path, metadata: Mapping[str, str]
) -> tuple[bytes, list[TensorHeader]]:
    """The first bytes of a safetensors file that holds ``tensors`` in this order, and the tensors at their places.

    Of each tensor its name, shape and dtype count. The length of the header depends on the length of ``metadata``'s
    text alone, so that values of fixed length can be filled in later.
    """
    entries: dict[str, dict] = {"__metadata__": dict(metadata)}
    end = 0
    for tensor in tensors:
        start, end = end, end + tensor.nbytes
        entries[tensor.name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % PAGE)
    head = struct.pack("<Q", len(text)) + text
    placed, end = [], len(head)
    for tensor in tensors:
        placed.append(replace(tensor, file=file, start=end))
        end += tensor.nbytes
    return head, placed


def lay_out(tensors: Sequence[TensorHeader], shard_bytes: int, metadata: Mapping[str, str]) -> tuple[Shard, ...]:
    """Shards of at most ``shard_bytes`` bytes of tensors, filled in the given order; a larger tensor has its own.

    Within a shard elements of more bytes come first, so that every tensor is aligned to its element.
    """
    parts: list[list[TensorHeader]] = [[]]
    room = shard_bytes
    for tensor in tensors:
        if parts[-1] and tensor.nbytes > room:
            parts.append([])
            room = shard_bytes
        parts[-1].append(tensor)
        room -= tensor.nbytes
    shards = []
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05d}-of-{len(parts):05d}.safetensors" if len(parts) > 1 else "model.safetensors"
        part.sort(key=lambda tensor: -tensor.dtype.itemsize)
        head, placed = header_bytes(part, Path(name), metadata)
        shards.append(Shard(name, tuple(placed), len(head) + sum(tensor.nbytes for tensor in placed)))
    return tuple(shards)


def index(shards: Sequence[Shard]) -> str | None:
    """Text of model.safetensors.index.json, which says what is where; None for a single file."""
    if len(shards) == 1:
        return None
    total = sum(tensor.nbytes for shard in shards for tensor in shard.tensors)
    where = {tensor.name: shard.name for shard in shards for tensor in shard.tensors}
    return json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=2, sort_keys=True) + "\n"


def distribute(shards: Sequence[Shard], processes: int) -> list[list[Shard]]:
    """The shards of each of several processes: largest first, each to the process with the fewest bytes so far."""
    by_process: list[list[Shard]] = [[] for _ in range(processes)]
    loads = [0] * processes
    for shard in sorted(shards, key=lambda shard: -shard.nbytes):
        least = loads.index(min(loads))
        by_process[least].append(shard)
        loads[least] += shard.nbytes
    return by_process
