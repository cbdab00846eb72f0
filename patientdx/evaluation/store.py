"""Files of results: stored responses by fingerprint, JSON, text and parquet, and ids that may leave the machine."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from patientdx.core.atomic_io import write_atomically
from patientdx.core.cache import id_secret
from patientdx.core.errors import UserError
from patientdx.core.regular_files import is_regular

if TYPE_CHECKING:
    import pyarrow as pa  # imported where it is used: a merge to disk starts without it

log = logging.getLogger(__name__)

_CHECKSUM = b"patientdx_sha256"  # key in the schema's metadata


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """sha256 of plain values as canonical JSON: equal values, equal fingerprint, whatever their order."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class Store:
    """Responses by fingerprint, below `<output>/scores`: numbers only, no text and no ids.

    A file appears complete or not at all. It holds a checksum over key, shape, dtype and values; what does not check
    out counts as absent, and is computed again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        """Where the responses of `key` are, or will be."""
        return self.folder / f"{key}.parquet"

    def load(self, key: str, rows: int) -> NDArray[np.float64] | None:
        """The (rows, k) float64 responses stored under `key`, or None."""
        path = self.path(key)
        if not is_regular(path):
            return None
        scores = _read_scores(path, key)
        if scores is None or len(scores) != rows:
            log.warning("%s is damaged or of other responses: they are computed again", path.name)
            return None
        return scores

    def save(self, key: str, scores: NDArray[np.float64]) -> None:
        """Store (n, k) float64 responses under `key`."""
        import pyarrow as pa

        table = pa.table({f"log_mass_{i}": scores[:, i] for i in range(scores.shape[1])})
        write_parquet(table.replace_schema_metadata({_CHECKSUM: _checksum(key, scores)}), self.path(key))


def _read_scores(path: Path, key: str) -> NDArray[np.float64] | None:
    """The responses in a file; None where it cannot be read or its checksum is another."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        scores = np.stack([column.to_numpy() for column in table.columns], axis=1)
        checksum = _checksum(key, scores)
    except (OSError, ValueError, TypeError, pa.ArrowException):
        return None
    return scores if (table.schema.metadata or {}).get(_CHECKSUM) == checksum else None


def _checksum(key: str, scores: NDArray[np.float64]) -> bytes:
    digest = hashlib.sha256(repr((key, scores.shape, str(scores.dtype))).encode())
    digest.update(np.ascontiguousarray(scores).tobytes())
    return digest.hexdigest().encode()


def write_text(text: str, path: Path) -> None:
    """Write a text file so that it is complete or absent: temporary name, fsync, rename."""
    _write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(content: Any, path: Path) -> None:
    """Write JSON, indented, completely or not at all."""
    write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a parquet file, completely or not at all."""
    import pyarrow.parquet as pq

    _write(path, lambda temporary: pq.write_table(table, temporary))


def read_json(path: Path) -> dict[str, Any] | None:
    """What a JSON file holds; None where there is none, or no mapping in it. UserError for a pipe and the like."""
    is_regular(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def write_sealed_json(content: Mapping[str, Any], path: Path) -> None:
    """Write a JSON mapping with a checksum over it, completely or not at all."""
    plain = {key: value for key, value in content.items() if key != "sha256"}
    write_json(plain | {"sha256": fingerprint(plain)}, path)


def read_sealed_json(path: Path) -> dict[str, Any] | None:
    """The mapping that `write_sealed_json` wrote; None where there is none, or it is damaged."""
    content = read_json(path)
    if content is None or content.pop("sha256", None) != fingerprint(content):
        return None
    return content


def hashed(ids: Sequence[str], *, open_data: bool, cache: Path) -> list[str]:
    """Ids as they may leave the machine: 16 hex digits each.

    Ids of MIMIC are eight-digit numbers, so a plain hash is undone by trying them all. Unless the data are open, the
    hash is keyed with a secret that stays in `cache`: the same on this machine, so that runs can be joined.
    """
    key = b"open" if open_data else id_secret(Path(cache))
    return [hashlib.blake2b(name.encode(), key=key, digest_size=8).hexdigest() for name in ids]


def make_writable(folder: Path, key: str = "output") -> None:
    """Make a folder that is written to; UserError where nothing can be written there. key: what sets the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
            probe.flush()
    except OSError as error:
        raise _unwritable(folder, error, key) from error


def _unwritable(path: Path, error: OSError, key: str = "output") -> UserError:
    return UserError(f"{path} cannot be written: {error.strerror}. Free space or set {key}= to another folder.")


def _write(path: Path, write: Callable[[Path], object]) -> None:
    try:
        write_atomically(path, write)
    except OSError as error:
        raise _unwritable(path, error) from error
