"""What a checkpoint is: hashes of its weights and of the files that decide what the model answers."""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patientdx.checkpoints.reader import Checkpoint, TensorHeader
from patientdx.core.checksums import cached_checksum, recall_checksum, sha256
from patientdx.core.errors import UserError

_BLOCK = 1 << 19  # bytes that are hashed at a time; a multiple of every element's size
# Beside the weights these decide what a model answers; everything else in a folder is documentation.
TEMPLATES = "additional_chat_templates"  # folder of the named templates beside the default one
BEHAVIOUR_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.txt",
    "spiece.model",
    "tekken.json",
)


@runtime_checkable
class View(Protocol):
    """Other checkpoints' weights with a change (an adapter, another vocabulary); read wherever a checkpoint is read."""

    folder: Path
    config: dict
    tensors: dict[str, TensorHeader]
    tied: bool

    @property
    def derivation(self) -> tuple[str, tuple[Path, ...]]:
        """See the function `derivation`."""
        ...

    def read(self, name: str) -> Tensor:
        """See `Checkpoint.read`."""
        ...

    def read_bytes(self, name: str) -> Tensor:
        """See `Checkpoint.read_bytes`."""
        ...


Source = Checkpoint | View


def weights_hash(checkpoint: Source, cache: Path | None, known: Mapping[str, str] | None = None) -> str:
    """SHA-256 over every tensor's name, dtype, shape and bytes, as 64 hex digits.

    Tensors count in the order of their names, and shards do not count: two folders with the same weights have the same
    hash, and a view has the hash of the folder that would hold its tensors.
    known: `tensor_hash` of tensors that were read before; the others are read, unless the result is in the cache.
    cache: None where no earlier result is to be believed.
    """
    if cache is None:
        return _weights_digest(checkpoint, known or {})
    rule, files = derivation(checkpoint)
    return cached_checksum(rule, files, cache, lambda: _weights_digest(checkpoint, known or {}))


def is_hashed(checkpoint: Source, cache: Path) -> bool:
    """Whether `weights_hash` would read no weights."""
    return recall_checksum(*derivation(checkpoint), cache) is not None


def tensor_hash(checkpoint: Source, name: str) -> str:
    """SHA-256 of one tensor's bytes, as 64 hex digits; UserError where it holds NaN or an infinite number.

    A hash of a tensor in the cache so says that its numbers are finite too.
    """
    tensor = checkpoint.read(name).contiguous().reshape(-1)
    content, digest = tensor.view(torch.uint8).numpy(), hashlib.sha256()
    for start in range(0, len(content), _BLOCK):
        block = content[start : start + _BLOCK]
        digest.update(block.data)
        # Checked while the block is in the processor's cache.
        if tensor.is_floating_point() and not _is_finite(block, tensor.dtype):
            raise UserError(
                f"{checkpoint.folder}: {name} holds numbers that are NaN or infinite. Nothing is merged or scored with "
                "them: download or write this model again."
            )
    return digest.hexdigest()


def _is_finite(block: NDArray[np.uint8], dtype: torch.dtype) -> bool:
    """Whether no element of these bytes is NaN or infinite.

    The bits of NaN and infinity, read as an integer, are the largest of their sign. Two maxima of integers take half
    the time of a maximum of 16-bit floats.
    """
    bits = 8 * dtype.itemsize
    infinity = int.from_bytes(torch.tensor([math.inf], dtype=dtype).view(torch.uint8).numpy().tobytes(), sys.byteorder)
    negative = infinity + (1 << (bits - 1))
    return bool(block.view(f"int{bits}").max() < infinity and block.view(f"uint{bits}").max() < negative)


def derivation(checkpoint: Source) -> tuple[str, tuple[Path, ...]]:
    """The rule by which the weights are derived, and every file that they depend on: the key of a hash in the cache.

    A view gives its own: its tensors are computed, and the files of its headers are not all that it depends on.
    """
    if isinstance(checkpoint, Checkpoint):
        return "weights", tuple(sorted({header.file for header in checkpoint.tensors.values()}))
    return checkpoint.derivation


def content_hash(checkpoint: Source, cache: Path | None, known: Mapping[str, str] | None = None) -> str:
    """SHA-256 over the weights and BEHAVIOUR_FILES, 64 hex digits; `known` and `cache` as in `weights_hash`."""
    files = [name for name in BEHAVIOUR_FILES if (checkpoint.folder / name).is_file()]
    files += sorted(f"{TEMPLATES}/{path.name}" for path in (checkpoint.folder / TEMPLATES).glob("*.jinja"))
    lines = (f"{name} {sha256(checkpoint.folder / name)}" for name in files)
    return _digest_lines([f"weights {weights_hash(checkpoint, cache, known)}", *lines])


def folder_hash(folder: Path, names: Sequence[str]) -> str:
    """SHA-256 over the named files of a folder, 64 hex digits; for small folders, not cached."""
    return _digest_lines(f"{name} {sha256(folder / name)}" for name in names)


def _weights_digest(checkpoint: Source, known: Mapping[str, str]) -> str:
    def line(name: str) -> str:
        header = checkpoint.tensors[name]
        return f"{name} {header.dtype} {list(header.shape)} {known.get(name) or tensor_hash(checkpoint, name)}"

    # hashlib releases the interpreter lock, so threads share the work.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return _digest_lines(pool.map(line, sorted(checkpoint.tensors)))


def _digest_lines(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
