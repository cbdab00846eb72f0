"""SHA-256 of files, and checksums in the cache that stay valid until a file is changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from patientdx.core.cache import write_json


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_hash(file: Path, cache: Path) -> str:
    """`sha256` of a file, from the cache where the file has not changed since."""
    return cached_checksum("file", [file], cache, lambda: sha256(file))


def cached_checksum(kind: str, files: Sequence[Path], cache: Path, compute: Callable[[], str]) -> str:
    """A checksum that depends on `files` alone; computed where `recall_checksum` has none, and then stored."""
    checksum = recall_checksum(kind, files, cache)
    if checksum is None:
        checksum = compute()
        path, key = _entry(kind, files, cache)
        write_json(path, {"key": key, "hash": checksum})
    return checksum


def recall_checksum(kind: str, files: Sequence[Path], cache: Path) -> str | None:
    """The stored checksum; None where there is none, it cannot be read, or a path, size or time of change differs."""
    path, key = _entry(kind, files, cache)
    try:
        stored = json.loads(path.read_text())
        return stored["hash"] if stored["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _entry(kind: str, files: Sequence[Path], cache: Path) -> tuple[Path, str]:
    """The cache file of a checksum, and the key that it must hold."""
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = json.dumps([kind, stats])
    return cache / "hashes" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json", key
