"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a file of another name beside `path`; once it is on disk it takes `path`'s place.

    Missing folders are made. A reader sees the old content or the new one; whatever stops the work leaves no part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    aside = Path(name)
    try:
        os.close(handle)
        write(aside)
        sync(aside)
        aside.chmod(0o644)  # mkstemp's file is for its owner alone
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def sync(place: Path) -> None:
    """Return once a file's bytes, or a folder's names, are on disk."""
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
