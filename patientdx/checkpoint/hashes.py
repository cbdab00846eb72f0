"""Content hashes of files and checkpoints, each worked out once and remembered in the cache."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from patientdx.checkpoint.cache import write_json
from patientdx.checkpoint.read import Checkpoint

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
    return _remembered("file", [file], cache, lambda: _digest_of(file))


def weights_hash(checkpoint: Checkpoint, cache: Path) -> str:
    """SHA-256 over every tensor's name, dtype, shape and bytes, as 64 hex digits.

    Tensors count in the order of their names and shard borders do not count: two folders with the same
    weights have the same hash however they were cut into files.
    """
    files = sorted({header.file for header in checkpoint.tensors.values()})
    return _remembered("weights", files, cache, lambda: _weights_digest(checkpoint))


def content_hash(checkpoint: Checkpoint, cache: Path) -> str:
    """SHA-256 over the weights and the files that steer them (see BEHAVIOUR_FILES), 64 hex digits."""
    lines = [f"weights {weights_hash(checkpoint, cache)}"]
    for name in BEHAVIOUR_FILES:
        file = checkpoint.folder / name
        if file.is_file():
            lines.append(f"{name} {_digest_of(file)}")
    return _digest_text(lines)


def folder_hash(folder: Path, names: Sequence[str]) -> str:
    """SHA-256 over the named files of a folder, 64 hex digits; for small folders, not remembered."""
    return _digest_text(f"{name} {_digest_of(folder / name)}" for name in names)


def _weights_digest(checkpoint: Checkpoint) -> str:
    """Hash tensor by tensor in threads: hashing lets go of the interpreter, so the cores share it."""

    def line(name: str) -> str:
        header = checkpoint.tensors[name]
        data = memoryview(checkpoint.read_bytes(name).numpy())
        return f"{name} {header.dtype} {list(header.shape)} {hashlib.sha256(data).hexdigest()}"

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return _digest_text(pool.map(line, sorted(checkpoint.tensors)))


def _remembered(kind: str, files: Sequence[Path], cache: Path, work_out: Callable[[], str]) -> str:
    """Look the hash up by the files' paths, sizes and times of change; work it out and store it otherwise."""
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = json.dumps([kind, stats])
    sidecar = cache / "hashes" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    try:
        stored = json.loads(sidecar.read_text())
        if stored["key"] == key:
            return stored["hash"]
    except (OSError, ValueError, KeyError):
        pass  # absent or damaged: work it out again
    result = work_out()
    write_json(sidecar, {"key": key, "hash": result})
    return result


def _digest_of(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _digest_text(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
