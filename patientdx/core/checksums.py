"""SHA-256 of files, and checksums in the cache that stay valid until a file is changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from patientdx.core.cache import write_json
from patientdx.core.regular_files import is_regular


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits. UserError for a pipe and the like (see `is_regular`)."""
    is_regular(file)
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
        write_json(path, {"key": key, "hash": checksum, "seal": _seal(key, checksum)})
    return checksum


def recall_checksum(kind: str, files: Sequence[Path], cache: Path) -> str | None:
    """The stored checksum; None where there is none, it does not check out, or a file may have changed since.

    A file counts as unchanged while its path, inode, device, size and both times of change are the same: a tool may set
    the time of modification (`rsync -t`, `cp -p`), but no tool sets the time of change of the inode (ctime).
    """
    path, key = _entry(kind, files, cache)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(stored, dict) or stored.get("key") != key or stored.get("seal") != _seal(key, stored.get("hash")):
        return None
    return stored["hash"]


def _entry(kind: str, files: Sequence[Path], cache: Path) -> tuple[Path, str]:
    """The cache file of a checksum, and the key that it must hold."""
    stats = []
    for file in files:
        status = file.stat()
        times = (status.st_mtime_ns, status.st_ctime_ns)
        stats.append((str(file.resolve()), status.st_dev, status.st_ino, status.st_size, *times))
    key = json.dumps([kind, stats])
    return cache / "hashes" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json", key


def _seal(key: str, checksum: object) -> str:
    """What a damaged cache file does not reproduce: a hash over both of its parts."""
    return hashlib.sha256(f"{key} {checksum}".encode()).hexdigest()
