"""Folders and small files in the cache, made once: written under a temporary name, then renamed."""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from patientdx.core.atomic_io import sync, write_atomically
from patientdx.core.disk import disk_error
from patientdx.core.errors import UserError
from patientdx.core.locks import exclusive_lock, locked
from patientdx.core.paths import expanded

_ELSEWHERE = (
    "Nothing half-written is left. Free some space, or set PATIENTDX_CACHE to a folder on a larger disk that you can "
    "write to."
)


def build_folder(final: Path, build: Callable[[Path], None], need_bytes: int = 0) -> Path:
    """Return ``final``, calling ``build(temporary folder)`` first if ``final`` does not exist.

    Of several processes only the first builds; the others wait at a lock. The folder gets its name only when it is
    complete and on disk, so an interruption leaves nothing that looks finished.

    Args:
        final: the folder to make; its parents are made too.
        build: writes all files into the folder that it receives.
        need_bytes: free space that must be there before ``build`` starts.

    Raises:
        UserError: the disk has less than ``need_bytes`` free or fills up; the cache cannot be written.
    """
    if final.is_dir():
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(final):
            if not final.is_dir():
                _build_locked(final, build, need_bytes)
    except OSError as error:
        if (mended := disk_error(error, final, _ELSEWHERE)) is not None:
            raise mended from error
        raise
    return final


def _build_locked(final: Path, build: Callable[[Path], None], need_bytes: int) -> None:
    """Build and rename. The caller holds the lock, so any older temporary folder is an orphan."""
    for orphan in final.parent.glob(f".{final.name}.*.tmp"):
        shutil.rmtree(orphan, ignore_errors=True)
    free = shutil.disk_usage(final.parent).free
    if free < need_bytes:
        raise UserError(
            f"{final.name} needs {_gb(need_bytes)} in the cache, but {final.parent} has {_gb(free)} free: "
            "free some space, or set PATIENTDX_CACHE to a folder on a larger disk."
        )
    aside = final.parent / f".{final.name}.{os.getpid()}.tmp"
    aside.mkdir()
    try:
        build(aside)
        for file in aside.rglob("*"):
            if file.is_file():
                sync(file)
        aside.rename(final)
    except Exception as error:
        # safetensors reports a full disk in an exception of its own, without an errno.
        if not isinstance(error, OSError) and "No space left on device" in str(error):
            raise OSError(errno.ENOSPC, str(error)) from error
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_json(path: Path, content: dict) -> None:
    """Write a small JSON file atomically. UserError where the disk is full or the folder cannot be written."""
    try:
        write_atomically(path, lambda aside: aside.write_text(json.dumps(content, indent=1), encoding="utf-8"))
    except OSError as error:
        if (mended := disk_error(error, path, _ELSEWHERE)) is not None:
            raise mended from error
        raise


def _new_secret() -> str:
    return secrets.token_hex(32)


def id_secret(cache: Path) -> bytes:
    """32 random bytes that stay in the cache, for its owner alone: what keys hashes of ids, and draws by id."""
    path = cache / "id_secret"
    with locked(cache / "id_secret.lock"):
        if not path.exists():
            text = _new_secret()
            write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"), mode=0o600)
        return bytes.fromhex(path.read_text(encoding="utf-8"))


def draw_secret(cache: Path, *, open_data: bool) -> bytes:
    """What keys the draws of splits and orders of rows; empty for open data, whose draws anybody may repeat."""
    return b"" if open_data else id_secret(expanded(cache))


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
