"""The state of a sweep on disk, so that its end can read it, whichever process a job was in.

A running sweep has its folder `<study>/.sweeps/<id>`, with one small file a job; at its end the folder becomes
`<study>/sweep`. Two sweeps of one study do not mix, and `sweep` is always the last one that ended. A lock is held while
a sweep runs; the system drops it with the process, so the folders of killed sweeps are known, and deleted.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from patientdx.evaluation.store import read_sealed_json, write_sealed_json, write_text

PUBLISHED = "sweep"
_RUNNING = ".sweeps"
_JOBS = "jobs.txt"
CHUNKS = "chunks.txt"  # JSON: the points of each job, where a job has several
_locks: dict[Path, FileLock] = {}  # of this process's sweep; not in an object that launchers pickle


def running_folder(study: Path) -> Path:
    """The folder that holds the folders of the study's running sweeps."""
    return study / _RUNNING


def begin(study: Path, jobs: int) -> Path:
    """The folder of a new sweep of so many jobs, locked until `publish` or `drop`; clears those of killed sweeps."""
    parent = running_folder(study)
    parent.mkdir(parents=True, exist_ok=True)
    for former in [path for path in parent.iterdir() if path.is_dir()]:
        _clear(former)
    folder = parent / secrets.token_hex(4)
    _locks[folder] = FileLock(f"{folder}.lock", fallback_to_soft=False)
    with contextlib.suppress(OSError):  # where a disk has no locks nothing is cleared either
        _locks[folder].acquire()
    folder.mkdir()
    write_text(f"{jobs}\n", folder / _JOBS)
    return folder


def _clear(folder: Path) -> None:
    """Delete the folder of a sweep, unless it is running."""
    lock = FileLock(f"{folder}.lock", fallback_to_soft=False)
    with contextlib.suppress(OSError), lock.acquire(timeout=0):  # a Timeout is one
        shutil.rmtree(folder, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)


def write_job(folder: Path, job: int, content: dict[str, Any]) -> None:
    """Write the state of job number `job`."""
    write_sealed_json(content, folder / f"{job}.json")


def read_jobs(folder: Path) -> dict[int, dict[str, Any]]:
    """The states of the jobs that wrote one, by their number."""
    files = sorted(folder.glob("*.json"), key=lambda path: int(path.stem))
    states = {int(path.stem): read_sealed_json(path) for path in files}
    return {job: state for job, state in states.items() if state is not None}


def job_count(folder: Path) -> int:
    """How many jobs the sweep has, whether they ran or not."""
    return int((folder / _JOBS).read_text(encoding="utf-8"))


def progress(folder: Path, now: float | None = None) -> str:
    """How far the sweep is, and how long the rest takes if no job of it is found finished."""
    states, total = read_jobs(folder), job_count(folder)
    computed = sum(not state.get("reused", False) for state in states.values())
    done = f"{len(states)} of {total} jobs done"
    if computed == 0 or len(states) == total:
        return done
    spent = (now or time.time()) - (folder / _JOBS).stat().st_mtime
    minutes = spent / computed * (total - len(states)) / 60
    return f"{done}, at most about {f'{max(1, round(minutes))} min' if minutes < 90 else f'{minutes / 60:.1f} h'} left"


def publish(folder: Path, study: Path) -> Path:
    """Make the folder of a finished sweep the study's last one; returns its new path."""
    published, former = study / PUBLISHED, study / _RUNNING / "former"
    for name in (_JOBS, CHUNKS):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(former, ignore_errors=True)
    if published.exists():
        published.rename(former)
    folder.rename(published)
    shutil.rmtree(former, ignore_errors=True)
    _unlock(folder)
    return published


def drop(folder: Path) -> None:
    """Delete a sweep of which no job ended."""
    shutil.rmtree(folder, ignore_errors=True)
    _unlock(folder)


def _unlock(folder: Path) -> None:
    lock = _locks.pop(folder, None)
    if lock is not None:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
