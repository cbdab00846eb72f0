"""What the jobs of a sweep leave on disk, so that its end finds it, whichever process a job was in.

A running sweep has a folder of its own, `<study>/.sweeps/<id>`, with one small file a job; at its end the folder
becomes `<study>/sweep`. Two sweeps of one study do not mix, and `sweep` is always the last one that ended. Its lock
says that a sweep runs; the system drops it with the process, so what a killed sweep left is known, and cleared.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from patientdx.evaluation.store import write_json, write_text

PUBLISHED = "sweep"
_RUNNING = ".sweeps"
_JOBS = "jobs.txt"
_held: dict[Path, FileLock] = {}  # of this process's own sweep; not in an object that launchers pickle


def running(study: Path) -> Path:
    """Where the study's running sweeps have their folders."""
    return study / _RUNNING


def begin(study: Path, jobs: int) -> Path:
    """The folder of a new sweep of so many jobs, locked until `publish` or `drop`; clears those of killed sweeps."""
    place = running(study)
    place.mkdir(parents=True, exist_ok=True)
    for former in [path for path in place.iterdir() if path.is_dir()]:
        _clear(former)
    folder = place / secrets.token_hex(4)
    _held[folder] = FileLock(f"{folder}.lock", fallback_to_soft=False)
    with contextlib.suppress(OSError):  # where a disk has no locks nothing is cleared either
        _held[folder].acquire()
    folder.mkdir()
    write_text(f"{jobs}\n", folder / _JOBS)
    return folder


def _clear(folder: Path) -> None:
    """Take away what a sweep left, unless it is running."""
    lock = FileLock(f"{folder}.lock", fallback_to_soft=False)
    with contextlib.suppress(OSError), lock.acquire(timeout=0):  # a Timeout is one
        shutil.rmtree(folder, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)


def leave(folder: Path, job: int, content: dict[str, Any]) -> None:
    """Say what became of job number `job`."""
    write_json(content, folder / f"{job}.json")


def left(folder: Path) -> dict[int, dict[str, Any]]:
    """What the jobs of a sweep left, by their number."""
    files = sorted(folder.glob("*.json"), key=lambda path: int(path.stem))
    return {int(path.stem): json.loads(path.read_text(encoding="utf-8")) for path in files}


def jobs(folder: Path) -> int:
    """How many jobs the sweep has, whether they ran or not."""
    return int((folder / _JOBS).read_text(encoding="utf-8"))


def progress(folder: Path, now: float | None = None) -> str:
    """How far the sweep is, and how long the rest takes if no job of it is found finished."""
    found, total = left(folder), jobs(folder)
    worked = sum(not one.get("reused", False) for one in found.values())
    said = f"{len(found)} of {total} jobs done"
    if worked == 0 or len(found) == total:
        return said
    spent = (now or time.time()) - (folder / _JOBS).stat().st_mtime
    minutes = spent / worked * (total - len(found)) / 60
    return f"{said}, at most about {f'{max(1, round(minutes))} min' if minutes < 90 else f'{minutes / 60:.1f} h'} left"


def publish(folder: Path, study: Path) -> Path:
    """Make the folder of a finished sweep the study's last one; returns its new place."""
    place, former = study / PUBLISHED, study / _RUNNING / "former"
    (folder / _JOBS).unlink(missing_ok=True)
    shutil.rmtree(former, ignore_errors=True)
    if place.exists():
        place.rename(former)
    folder.rename(place)
    shutil.rmtree(former, ignore_errors=True)
    _let_go(folder)
    return place


def drop(folder: Path) -> None:
    """Forget a sweep of which no job ended."""
    shutil.rmtree(folder, ignore_errors=True)
    _let_go(folder)


def _let_go(folder: Path) -> None:
    lock = _held.pop(folder, None)
    if lock is not None:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
