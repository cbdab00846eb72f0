"""Locks between processes of one machine, so that the same work is done once."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patientdx.core.disk import WITHOUT_LOCKS, disk_error
from patientdx.core.errors import UserError
from patientdx.core.paths import short_name

LONGEST_WAIT = "PATIENTDX_LOCK_SECONDS"  # the environment variable with the longest wait; without it there is no end
_log = logging.getLogger(__name__)

_LOG_AFTER = 2.0  # seconds of waiting for another process before it is logged
_POLL = 0.05  # seconds between attempts


@contextmanager
def exclusive_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """While the block runs, no other process is in such a block for the same `path`, which the block makes.

    Check inside the block whether `path` exists: another process may just have made it. Without `wait`, and on a disk
    that has no locks, the block runs without the lock: the work may be done twice, with the same result. Raises
    UserError where the folder cannot be made, and after the longest wait.
    """
    with locked(path.with_name(f".{short_name(path.name)}.lock"), wait=wait):
        yield


@contextmanager
def locked(file: Path, *, wait: bool = True, required: bool = False) -> Iterator[None]:
    """The same by a lock file, which is made, and deleted at the end; the system drops the lock with its process.

    The file says which process holds it. required: UserError on a disk that has no locks.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = _acquire(file, wait)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS or required:
            raise disk_error(error, file) or UserError(f"{file} cannot be locked: {error.strerror}.") from error
        _log.debug("%s cannot be locked: %s", file.parent, error.strerror)
        handle = None
    try:
        yield
    finally:
        if handle is not None:
            file.unlink(missing_ok=True)  # a waiting process notices that the file is gone and makes it again
            os.close(handle)


def _acquire(file: Path, wait: bool) -> int | None:
    """The open lock file, locked; None where another process has the lock and there is no `wait`."""
    limit, begun, logged = _longest_wait(), time.monotonic(), False
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_nlink:  # else it was deleted by its last holder meanwhile
                os.ftruncate(handle, 0)
                os.write(handle, f"{os.getpid()} {socket.gethostname()} {time.time():.0f}".encode())
                return handle
        except BlockingIOError:
            waited = time.monotonic() - begun
            if not wait:
                os.close(handle)
                return None
            if waited > limit:
                os.close(handle)
                raise UserError(f"{_holder(file)}, and {LONGEST_WAIT}={limit:g} is over.") from None
            if waited > _LOG_AFTER and not logged:
                logged = True
                _log.warning("waiting: %s. %s=<seconds> sets the longest wait.", _holder(file), LONGEST_WAIT)
            time.sleep(_POLL)
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _longest_wait() -> float:
    text = os.environ.get(LONGEST_WAIT, "inf")
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{LONGEST_WAIT}={text}: give a number of seconds.") from None


def _holder(file: Path) -> str:
    """Which process has the lock, since when, and whether it is stopped."""
    try:
        pid, host, since = file.read_text(encoding="utf-8").split()
        begun = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(since)))
    except (OSError, ValueError):  # it has just taken the lock, or just released it
        return f"another process holds {file}"
    words = f"process {pid} on {host} holds {file} since {begun}"
    stopped = host == socket.gethostname() and _state(pid) in ("T", "t")
    return f"{words} and is stopped (kill -CONT {pid} lets it go on)" if stopped else words


def _state(pid: str) -> str:
    """The letter of a process's state in Linux; empty where it is unknown."""
    try:
        return (
            Path(f"/proc/{int(pid)}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
        )
    except (OSError, ValueError, IndexError):
        return ""
