"""Which tensors of an unfinished checkpoint are on disk, so that an interrupted merge resumes."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

from patientdx.core.atomic_io import sync, sync_handle

# At most so many bytes and seconds of work can be lost. Each time all files are synchronised.
SYNC_BYTES = 1 << 29
SYNC_SECONDS = 10.0
# Of each tensor: its hash, the diagnostics of its curve, and its hashes in the sources that were hashed, by number.
KEYS = ("sha256", "facts", "sources")


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    """The entries of each tensor in the journals of a folder; an incomplete line is skipped."""
    by_name: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("journal-*.jsonl")):
        for line in file.read_bytes().splitlines():
            try:
                entry = json.loads(line)
                by_name[entry["name"]] = {key: entry[key] for key in KEYS}
            except (ValueError, KeyError, TypeError):
                continue
    return by_name


class Journal:
    """The journal of one process; its file is made with its first line.

    An entry is written only once the bytes that it describes are on disk, by ``sync``. This happens in the
    background, while the next tensors are computed. Raises OSError, in `add` or `close`, where the disk is full.
    """

    def __init__(self, folder: Path, sync: Callable[[], None]) -> None:
        self._folder, self._sync = folder, sync
        self._handle: int | None = None
        self._waiting: list[str] = []
        self._bytes, self._since = 0, monotonic()
        self._pool = ThreadPoolExecutor(1)
        self._under_way: Future | None = None

    def add(self, name: str, nbytes: int, entry: Mapping[str, Any]) -> None:
        """Note that ``nbytes`` of a tensor were written; they need not be on disk yet."""
        self._waiting.append(json.dumps({"name": name, **entry}))
        self._bytes += nbytes
        due = self._bytes >= SYNC_BYTES or monotonic() - self._since >= SYNC_SECONDS
        if due and (self._under_way is None or self._under_way.done()):
            self._commit()

    def close(self) -> None:
        """Return once every entry is on disk."""
        try:
            self._commit().result()
        finally:
            self._pool.shutdown()
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None

    def _commit(self) -> Future:
        if self._under_way is not None:
            self._under_way.result()
        lines, self._waiting = self._waiting, []
        self._bytes, self._since = 0, monotonic()
        self._under_way = self._pool.submit(self._write, lines)
        return self._under_way

    def _write(self, lines: list[str]) -> None:
        self._sync()
        if not lines:
            return
        if self._handle is None:
            # A new file, so that no line follows an incomplete one.
            self._handle, _ = tempfile.mkstemp(".jsonl", "journal-", self._folder)
            sync(self._folder)
        data = memoryview("".join(f"{line}\n" for line in lines).encode())
        while len(data):
            data = data[os.write(self._handle, data) :]
        sync_handle(self._handle)
