"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from patientdx.core.disk import WITHOUT_SYNC
from patientdx.core.paths import short_name

_RANDOM = 8  # letters that a temporary name adds


def write_atomically(path: Path, write: Callable[[Path], object], *, mode: int = 0o666) -> None:
    """Call `write` with a temporary file beside `path`; once its content is on disk it is renamed to `path`.

    Missing folders are made. A reader sees the old content or the new content; an interruption leaves no partial file.
    What a killed process left is deleted by the next that writes the same path. mode: who may read and write it, as far
    as the umask lets them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stem = f".{short_name(path.name)}."
    for left in path.parent.glob(f"{glob.escape(stem)}{'?' * _RANDOM}"):
        _delete_unless_locked(left)
    handle, aside = _temporary(path.parent, stem, mode)
    try:
        write(aside)
        sync(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
        os.close(handle)


def _temporary(folder: Path, stem: str, mode: int) -> tuple[int, Path]:
    """A new file, open and locked as long as its process lives, where the disk has locks."""
    while True:
        name = folder / f"{stem}{secrets.token_hex(_RANDOM // 2)}"
        try:
            handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a disk without locks; then nothing is deleted there either
            return handle, name
        if os.fstat(handle).st_nlink:  # else another process took it for one that was left, before it was locked
            return handle, name
        os.close(handle)


def _delete_unless_locked(file: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(file, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink(missing_ok=True)
        finally:
            os.close(handle)


def sync(path: Path) -> None:
    """Return once a file's bytes, or a folder's names, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        sync_handle(handle)
    finally:
        os.close(handle)


def sync_handle(handle: int) -> None:
    """Return once the bytes of an open file are on disk, or at once where its file system knows no such operation."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in WITHOUT_SYNC:
            raise
