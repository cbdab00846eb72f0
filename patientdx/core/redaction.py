"""What went wrong in a run, in words that may be kept: the kind of error, where it arose, and nothing of a record."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from patientdx.core.errors import UserError

_REPOSITORY = Path(__file__).resolve().parents[2]
_LONGEST = 300  # characters of a message
# Whatever these packages raise, they were handed numbers: none of them sees a text.
_WITHOUT_TEXT = ("torch", "accelerate", "safetensors")
_GPU_FULL = (
    "out of memory: the GPU does not hold this run. Lower scoring.batch_tokens (16384 unless set), use dtype=bfloat16, "
    "or spread the model over several GPUs with device_map=auto"
)
_MACHINE_FULL = (
    "out of memory: this machine does not hold this run. Use dtype=bfloat16, fewer jobs at a time "
    "(hydra.launcher.n_jobs=1) or a machine with more; what was finished is kept"
)


def told(error: BaseException, *, open_data: bool = False) -> str:
    """One line on an error: of a UserError its message, of any other its class, its place and what it says.

    Messages of other packages may quote a record. Unless the data are open, only those are told that cannot: of the
    operating system, and of packages that see numbers alone.
    """
    if isinstance(error, UserError):
        return str(error)
    for one in _chain(error):
        if isinstance(one, torch.OutOfMemoryError):
            return f"{_GPU_FULL} ({_place(one)})"
        if isinstance(one, MemoryError) or "DefaultCPUAllocator" in str(one):
            return f"{_MACHINE_FULL} ({_place(one)})"
    kind = f"{type(error).__name__} in {_place(error)}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{kind}: {error.strerror}"
    if open_data or _raised_without_text(error):
        return f"{kind}: {' '.join(str(error).split())[:_LONGEST]}"
    return f"{kind}; what it says may quote a record and is not kept (HYDRA_FULL_ERROR=1 shows it on the screen)"


def trace(error: BaseException) -> list[str]:
    """Where an error arose, one line a frame, its causes first; code and places only, no values and no messages."""
    lines = []
    for one in reversed(list(_chain(error))):
        for frame in traceback.extract_tb(one.__traceback__):
            lines.append(f"{_short(frame.filename)}:{frame.lineno} in {frame.name}: {frame.line}")
        lines.append(type(one).__name__)
    return lines


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _place(error: BaseException) -> str:
    """File and line of the innermost frame that is ours, or of the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown place"
    own = [frame for frame in frames if _is_ours(frame.filename)] or list(frames)
    return f"{_short(own[-1].filename)}:{own[-1].lineno}"


def _is_ours(file: str) -> bool:
    return Path(file).is_relative_to(_REPOSITORY) and "site-packages" not in Path(file).parts


def _raised_without_text(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and _short(frames[-1].filename).split("/")[0] in _WITHOUT_TEXT


def _short(file: str) -> str:
    """A file's place in this repository or in its package; never where on this machine that is."""
    path = Path(file)
    if "site-packages" in path.parts:
        return Path(*path.parts[path.parts.index("site-packages") + 1 :]).as_posix()
    return path.relative_to(_REPOSITORY).as_posix() if path.is_relative_to(_REPOSITORY) else path.name
