"""The unfinished checkpoint beside its target folder: which merge it belongs to, and who is writing it."""

from __future__ import annotations

import fcntl
import glob
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patientdx.core.atomic_io import sync
from patientdx.core.errors import UserError

log = logging.getLogger(__name__)


class StagingFolder:
    """A folder next to the target that an interrupted merge leaves, and from which the same merge resumes.

    ``model`` holds the files of the result, ``path`` the journals beside it. The name identifies the merge: other
    parents, numbers or versions have another folder, so that nothing of theirs is continued.
    """

    def __init__(self, target: Path, key: str) -> None:
        self.target = target
        self.path = target.parent / f".{target.name}.{key[:16]}.partial"
        self.model = self.path / "model"

    @contextmanager
    def lock(self, process: tuple[int, int]) -> Iterator[None]:
        """Make the folder, or reuse the one that is there; meanwhile no other merge can write to the target.

        The processes of one merge share the lock. What an interrupted other merge left is deleted; so is this folder at
        the end if nothing in it can be resumed. Raises UserError where another
        process is writing a merge to the target at this moment.
        """
        rank, processes = process
        if rank == 0:
            self._clear_others()
        handle = self._lock(fcntl.LOCK_EX if processes == 1 else fcntl.LOCK_SH)
        try:
            yield
        finally:
            if not any(self.path.glob("journal-*")) and _try_lock(handle, fcntl.LOCK_EX):
                shutil.rmtree(self.path, ignore_errors=True)
            os.close(handle)

    @contextmanager
    def last_writer(self) -> Iterator[bool]:
        """Wait for the other processes of this merge to leave this block; False where one of them has finished."""
        try:
            handle = os.open(self.path / "finish", os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            yield False
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield self.model.is_dir()
        finally:
            os.close(handle)

    def publish(self) -> None:
        """Rename the finished model to the target, in one step, and delete the rest."""
        sync(self.model)
        self.model.rename(self.target)
        sync(self.target.parent)
        shutil.rmtree(self.path, ignore_errors=True)

    def cleanup(self) -> None:
        """Delete what is left after publishing, unless a process still uses it."""
        if self.path.is_dir():
            handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o666)
            if _try_lock(handle, fcntl.LOCK_EX):
                shutil.rmtree(self.path, ignore_errors=True)
            os.close(handle)

    def _lock(self, kind: int) -> int:
        """The open lock file; the lock ends with the process."""
        while True:
            self.model.mkdir(parents=True, exist_ok=True)
            try:
                handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:  # deleted by another process of this merge, which had nothing to do
                continue
            if not _try_lock(handle, kind):
                os.close(handle)
                raise self._taken()
            if os.fstat(handle).st_nlink:
                return handle
            os.close(handle)

    def _clear_others(self) -> None:
        for other in self.target.parent.glob(f".{glob.escape(self.target.name)}.*.partial"):
            if other == self.path:
                continue
            handle = os.open(other / "lock", os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if not _try_lock(handle, fcntl.LOCK_EX):
                    raise self._taken()
                log.warning("another merge into %s was interrupted; this one does not resume it", self.target)
                shutil.rmtree(other, ignore_errors=True)
            finally:
                os.close(handle)

    def _taken(self) -> UserError:
        return UserError(
            f"Another process is writing a merge to {self.target} at this moment: wait for its end, or choose another "
            "folder."
        )


def _try_lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
