"""Results on disk: the store of scores, known by fingerprint, and one folder a run."""

from __future__ import annotations

import hashlib
import json
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from filelock import FileLock

from patientdx.core.atomic_io import write_atomically
from patientdx.core.errors import UserError
from patientdx.core.tables import csv_text

CLINICAL = "clinical.json"
TRACKED = "tracked.json"


def fingerprint(facts: Mapping[str, Any]) -> str:
    """sha256 of plain facts as canonical JSON: equal facts, equal fingerprint, whatever their order."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class Store:
    """Scores by fingerprint, below `<output>/scores`: numbers only, no text and no ids.

    A file appears whole or not at all, so what is there is finished, and is never worked out again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        """Where the scores of `key` are, or will be."""
        return self.folder / f"{key}.parquet"

    def load(self, key: str, rows: int) -> np.ndarray | None:
        """The (rows, options) float64 log masses kept under `key`, or None; a damaged file counts as absent."""
        path = self.path(key)
        if not path.exists():
            return None
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid):
            return None
        found = np.stack([column.to_numpy() for column in table.columns], axis=1)
        return found if len(found) == rows else None

    def save(self, key: str, scores: np.ndarray) -> None:
        """Keep (n, options) float64 log masses under `key`."""
        columns = {f"log_mass_{i}": scores[:, i] for i in range(scores.shape[1])}
        write_parquet(pa.table(columns), self.path(key))


def write_text(text: str, path: Path) -> None:
    """Write a text file so that it is whole or absent: temporary name, fsync, rename."""
    _whole(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def write_json(content: Any, path: Path) -> None:
    """Write JSON, indented, whole or not at all."""
    write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a parquet file, whole or not at all."""
    _whole(path, lambda aside: pq.write_table(table, aside))


def write_run(
    folder: Path,
    *,
    config: dict[str, Any],
    metrics: dict[str, Any],
    predictions: pa.Table,
    provenance: dict[str, Any],
    cohort: Sequence[Mapping[str, Any]] = (),
    clinical: dict[str, Any] | None = None,
) -> None:
    """One run's folder. `metrics.json` comes last: where it is, the run is finished."""
    write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), folder / "config.yaml")
    write_parquet(predictions, folder / "predictions.parquet")
    write_json(provenance, folder / "provenance.json")
    if cohort:
        write_text(csv_text(cohort), folder / "cohort.csv")
    if clinical is not None:
        write_json(clinical, folder / CLINICAL)
    write_json(metrics, folder / "metrics.json")


def read_run(folder: Path, key: str) -> dict[str, Any] | None:
    """The metrics of a finished run with fingerprint `key`, or None."""
    metrics = read_json(folder / "metrics.json")
    return metrics if metrics is not None and metrics.get("fingerprint") == key else None


def read_json(path: Path) -> dict[str, Any] | None:
    """What a JSON file holds; None where there is none, or no mapping in it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def hashed(ids: Sequence[str], *, open_data: bool, cache: Path) -> list[str]:
    """Ids as they may leave the machine: 16 hex digits each.

    Ids of MIMIC are eight-digit numbers, so a plain hash is undone by trying them all. Unless the data are open, the
    hash is keyed with a secret that stays in `cache`: the same on this machine, so that runs can be joined.
    """
    key = b"open" if open_data else _secret(Path(cache))
    return [hashlib.blake2b(name.encode(), key=key, digest_size=8).hexdigest() for name in ids]


def _secret(cache: Path) -> bytes:
    path = cache / "id_secret"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "id_secret.lock"):
        if not path.exists():
            write_text(secrets.token_hex(32), path)
            path.chmod(0o600)
        return bytes.fromhex(path.read_text())


def make_writable(folder: Path) -> None:
    """Make the folder that results go to; UserError where nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
            probe.flush()
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be written: {error.strerror}. Free space or set output= to another place.")


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    try:
        write_atomically(path, write)
    except OSError as error:
        raise _unwritable(path, error) from error
