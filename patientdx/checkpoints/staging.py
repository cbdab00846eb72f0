"""The unfinished checkpoint beside the folder that it will be: whose it is, and who is writing it."""

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


class Partial:
    """A folder next to the target that an interrupted merge leaves and the next start of the same merge takes up.

    ``model`` holds the files to be, ``path`` beside it the journals. The name says which merge it is: another one
    has another folder, so that nothing is ever continued that was begun with other parents, numbers or versions.
    """

    def __init__(self, target: Path, key: str) -> None:
        self.target = target
        self.path = target.parent / f".{target.name}.{key[:16]}.partial"
        self.model = self.path / "model"

    @contextmanager
    def claimed(self, process: tuple[int, int]) -> Iterator[None]:
        """Make the folder, or take up what is there, and keep every other merge from the target for as long.

        The processes of one merge claim it together. Where a merge of another kind was broken off, its remains are
        deleted; so is this one's folder in the end if nothing in it can be gone on with. Raises UserError where another
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
    def alone(self) -> Iterator[bool]:
        """Wait for the other processes of this merge to leave this block; False where one of them finished it."""
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
        """Give the finished model its name, in one step, and delete what it took to make it."""
        sync(self.model)
        self.model.rename(self.target)
        sync(self.target.parent)
        shutil.rmtree(self.path, ignore_errors=True)

    def sweep(self) -> None:
        """Delete what is left of it after it was published, unless a process is still at it."""
        if self.path.is_dir():
            handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o666)
            if _try_lock(handle, fcntl.LOCK_EX):
                shutil.rmtree(self.path, ignore_errors=True)
            os.close(handle)

    def _lock(self, kind: int) -> int:
        """The open lock file, which goes with the process, however that ends."""
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
                log.warning("another merge into %s was broken off; this one does not go on from it", self.target)
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
