"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from patientdx.core.disk import WITHOUT_SYNC
from patientdx.core.paths import short_name


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary file beside `path`; once its content is on disk it is renamed to `path`.

    Missing folders are made. A reader sees the old content or the new content; an interruption leaves no partial file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{short_name(path.name)}.")
    aside = Path(name)
    try:
        os.close(handle)
        write(aside)
        sync(aside)
        aside.chmod(0o644)  # mkstemp gives access to the owner only
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


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
