"""Content hashes of files and checkpoints, each worked out once and remembered in the cache."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from patientdx.checkpoints.reader import Checkpoint
from patientdx.core.cache import write_json
from patientdx.core.checksums import sha256

# Beside the weights these decide what a model answers; everything else in a folder is documentation.
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
)


def file_hash(file: Path, cache: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    return _remembered("file", [file], cache, lambda: sha256(file))


def weights_hash(checkpoint: Checkpoint, cache: Path, known: Mapping[str, str] | None = None) -> str:
    """SHA-256 over every tensor's name, dtype, shape and bytes, as 64 hex digits.

    Tensors count in the order of their names and shard borders do not count: two folders with the same
    weights have the same hash however they were cut into files, and a view (an adapter applied in memory, an
    embedding in another order) has the hash of the folder that it stands for.
    known: `tensor_hash` of tensors that were read anyway; the others are read now, unless the result is remembered.
    """
    rule, files = merge_spec(checkpoint)
    return _remembered(rule, files, cache, lambda: _weights_digest(checkpoint, known or {}))


def is_remembered(checkpoint: Checkpoint, cache: Path) -> bool:
    """Whether `weights_hash` would read no weights."""
    rule, files = merge_spec(checkpoint)
    return _recalled(*_memory(rule, files, cache)) is not None


def tensor_hash(checkpoint: Checkpoint, name: str) -> str:
    """SHA-256 of one tensor's bytes, as 64 hex digits."""
    return hashlib.sha256(memoryview(checkpoint.read_bytes(name).numpy())).hexdigest()


def merge_spec(checkpoint: Checkpoint) -> tuple[str, tuple[Path, ...]]:
    """How the weights come about, and every file that they depend on: by these a hash is remembered.

    A view of other checkpoints says so itself: its tensors are worked out, and the files of its headers are not all.
    """
    if isinstance(checkpoint, Checkpoint):
        return "weights", tuple(sorted({header.file for header in checkpoint.tensors.values()}))
    return checkpoint.merge_spec


def content_hash(checkpoint: Checkpoint, cache: Path, known: Mapping[str, str] | None = None) -> str:
    """SHA-256 over the weights and the files that steer them (see BEHAVIOUR_FILES), 64 hex digits.

    known: see `weights_hash`.
    """
    lines = [f"weights {weights_hash(checkpoint, cache, known)}"]
    for name in BEHAVIOUR_FILES:
        file = checkpoint.folder / name
        if file.is_file():
            lines.append(f"{name} {sha256(file)}")
    return _digest_text(lines)


def folder_hash(folder: Path, names: Sequence[str]) -> str:
    """SHA-256 over the named files of a folder, 64 hex digits; for small folders, not remembered."""
    return _digest_text(f"{name} {sha256(folder / name)}" for name in names)


def _weights_digest(checkpoint: Checkpoint, known: Mapping[str, str]) -> str:
    """Hash tensor by tensor in threads: hashing lets go of the interpreter, so the cores share it."""

    def line(name: str) -> str:
        header = checkpoint.tensors[name]
        return f"{name} {header.dtype} {list(header.shape)} {known.get(name) or tensor_hash(checkpoint, name)}"

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return _digest_text(pool.map(line, sorted(checkpoint.tensors)))


def _remembered(kind: str, files: Sequence[Path], cache: Path, work_out: Callable[[], str]) -> str:
    """Look the hash up by the files' paths, sizes and times of change; work it out and store it otherwise."""
    sidecar, key = _memory(kind, files, cache)
    result = _recalled(sidecar, key)
    if result is None:
        result = work_out()
        write_json(sidecar, {"key": key, "hash": result})
    return result


def _memory(kind: str, files: Sequence[Path], cache: Path) -> tuple[Path, str]:
    """The file that remembers a hash, and the key that it must hold."""
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = json.dumps([kind, stats])
    return cache / "hashes" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json", key


def _recalled(sidecar: Path, key: str) -> str | None:
    """The remembered hash; None where there is none, or the memory is damaged."""
    try:
        stored = json.loads(sidecar.read_text())
        return stored["hash"] if stored["key"] == key else None
    except (OSError, ValueError, KeyError):
        return None


def _digest_text(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
