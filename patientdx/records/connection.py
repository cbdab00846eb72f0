"""A DuckDB connection within a memory limit, and the folder that takes what does not fit."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
from filelock import FileLock, Timeout

from patientdx.core.disk import WITHOUT_LOCKS
from patientdx.core.errors import UserError


@contextmanager
def connected(*, memory_limit: str, threads: int | None, spill: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty DuckDB database in memory, closed at the end.

    What does not fit in `memory_limit` (such as "2GB") goes to a folder inside `spill` that is gone afterwards.
    Raises UserError on limits that DuckDB does not know, and where memory or disk are too small for a query inside the
    block.
    """
    with _spill_folder(spill) as folder:
        settings = {
            "memory_limit": memory_limit,
            "temp_directory": str(folder),
            "threads": threads or os.cpu_count() or 1,
        }
        try:
            con = duckdb.connect(":memory:", config=settings)
        except duckdb.Error as error:
            raise UserError(
                f"task.memory_limit={memory_limit!r}, task.threads={threads!r}: DuckDB takes a size such as "
                "2GB and a whole number of threads, 1 or more."
            ) from error
        try:
            yield con
        except duckdb.OutOfMemoryException:
            raise UserError(f"task.memory_limit={memory_limit} is too little for these tables; raise it.") from None
        except duckdb.IOException as error:
            raise UserError(_no_spill(spill, _cause(error))) from None
        finally:
            con.close()


@contextmanager
def _spill_folder(spill: Path) -> Iterator[Path]:
    """A new folder in `spill` for its owner alone; those that killed processes left there are removed."""
    folder = spill / f"duckdb.{uuid.uuid4().hex}"
    lock = FileLock(f"{folder}.lock")
    try:
        spill.mkdir(parents=True, exist_ok=True)
        _sweep(spill)
        with contextlib.suppress(NotImplementedError):
            try:
                lock.acquire()
            except OSError as error:
                if error.errno not in WITHOUT_LOCKS:
                    raise
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise UserError(_no_spill(spill, error.strerror)) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _sweep(spill: Path) -> None:
    """Remove folders whose process is gone: their lock can be had."""
    for lock_file in spill.glob("duckdb.*.lock"):
        try:
            with FileLock(lock_file, timeout=0):
                shutil.rmtree(lock_file.with_suffix(""), ignore_errors=True)
                lock_file.unlink(missing_ok=True)
        except (Timeout, OSError):
            continue


def _cause(error: duckdb.Error) -> str | None:
    """What the operating system said, of an error whose message may quote a row."""
    return next((os.strerror(number) for number in errno.errorcode if os.strerror(number) in str(error)), None)


def _no_spill(spill: Path, cause: str | None) -> str:
    return (
        f"DuckDB cannot write what exceeds task.memory_limit to {spill}{f': {cause}' if cause else ''}. "
        "Free some space there, or set cache=… (or PATIENTDX_CACHE) to a folder on another disk."
    )
