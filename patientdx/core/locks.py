"""Locks between processes of one machine, so that the same work is done once."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_log = logging.getLogger(__name__)

_LOG_AFTER = 2.0  # seconds of waiting for another process before it is logged


@contextmanager
def exclusive_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """While the block runs, no other process is in such a block for the same `path`, which the block makes.

    Check inside the block whether `path` exists: another process may just have made it. The lock is a file beside
    `path`; the operating system releases it when its process ends, and it is deleted at the end. Without `wait`, and
    on a disk that has no locks, the block runs without the lock: the work may be done twice, with the same result.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"), fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=_LOG_AFTER if wait else 0)
        except Timeout:
            if wait:
                _log.info("waiting for another process that is at the same work (%s)", path.name[:8])
                lock.acquire()
    except (OSError, NotImplementedError):
        _log.debug("%s cannot be locked", path.parent)
    try:
        yield
    finally:
        if lock.is_locked:  # a waiting process notices that the file is gone and creates it again
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
