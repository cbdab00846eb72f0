"""Descriptions of errors that can be stored: the kind of error and where it arose, without text of a record."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patientdx.core.errors import UserError
from patientdx.core.paths import CONF, PACKAGE, REPOSITORY

_OURS = PACKAGE if CONF.is_relative_to(PACKAGE) else REPOSITORY  # other packages lie beside an installed one

_MAX_CHARACTERS = 300  # of a message
# These packages receive numbers only, so their messages cannot quote a text.
_WITHOUT_TEXT = ("torch", "accelerate", "safetensors")
_GPU_MEMORY = (
    "out of memory: the GPU does not hold this run. Lower scoring.batch_tokens (16384 unless set), use dtype=bfloat16, "
    "or spread the model over several GPUs with device_map=auto"
)
_CPU_MEMORY = (
    "out of memory: this machine does not hold this run. Use dtype=bfloat16, fewer jobs at a time "
    "(hydra.launcher.n_jobs=1) or a machine with more; finished results are kept"
)


def describe(error: BaseException, *, open_data: bool = False) -> str:
    """One line: of a UserError its message; of any other error its class, its location and its message.

    A message of another package may quote a record. Unless the data are open it is included only where it cannot:
    errors of the operating system, and of packages that receive numbers only.
    """
    if isinstance(error, UserError):
        return str(error)
    for cause in _chain(error):
        if type(cause).__module__ == "torch" and type(cause).__name__ == "OutOfMemoryError":  # torch takes seconds
            return f"{_GPU_MEMORY} ({_location(cause)})"
        if isinstance(cause, MemoryError) or "DefaultCPUAllocator" in str(cause):
            return f"{_CPU_MEMORY} ({_location(cause)})"
    kind = f"{type(error).__name__} in {_location(error)}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{kind}: {error.strerror}"
    if open_data or _raised_without_text(error):
        return f"{kind}: {' '.join(str(error).split())[:_MAX_CHARACTERS]}"
    return f"{kind}; its message may quote a record and is not kept (HYDRA_FULL_ERROR=1 shows it on a terminal)"


@contextmanager
def logs_withheld() -> Iterator[None]:
    """Meanwhile nothing below an error is logged: counts of records of which none may be told."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


def trace(error: BaseException) -> list[str]:
    """The traceback, one line for each frame, causes first: code and locations, without values and messages."""
    lines = []
    for cause in reversed(list(_chain(error))):
        for frame in traceback.extract_tb(cause.__traceback__):
            lines.append(f"{_short(frame.filename)}:{frame.lineno} in {frame.name}: {frame.line}")
        lines.append(type(cause).__name__)
    return lines


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what caused it."""
    visited: set[int] = set()
    while error is not None and id(error) not in visited:
        visited.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _location(error: BaseException) -> str:
    """File and line of the innermost frame in this repository, or else of the innermost frame."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown location"
    frame = ([frame for frame in frames if _is_ours(frame.filename)] or list(frames))[-1]
    return f"{_short(frame.filename)}:{frame.lineno}"


def _is_ours(file: str) -> bool:
    return Path(file).is_relative_to(_OURS) and "site-packages" not in Path(file).relative_to(_OURS).parts


def _raised_without_text(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and _short(frames[-1].filename).split("/")[0] in _WITHOUT_TEXT


def _short(file: str) -> str:
    """A file's path in this repository or in its package, without where that is on this machine."""
    path = Path(file)
    if "site-packages" in path.parts:
        return Path(*path.parts[path.parts.index("site-packages") + 1 :]).as_posix()
    return path.relative_to(REPOSITORY).as_posix() if path.is_relative_to(REPOSITORY) else path.name
