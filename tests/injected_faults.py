"""Faults that are made to happen inside a process that runs run.py."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What Python does to files and folders, as its audit hooks call it.
STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "tempfile.mkstemp", "shutil.rmtree"}


def inject(kind: str, **rest: Any) -> None:
    """Let the fault of that kind happen in this process from now on."""
    {
        "kill": _kill,
        "count": _count,
        "full_disk": _full_disk,
        "score": _score,
        "note_scoring": _note_scoring,
        "tracker": _tracker,
    }[kind](**rest)


def _at_each_step(below: str, then: Callable[[int], None]) -> None:
    """Call `then` with the number of every step on disk below a folder, before it is taken."""
    taken = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal taken
        if event in STEPS and any(
            isinstance(one, str | os.PathLike) and below in os.fspath(one) for one in arguments[:2]
        ):
            taken += 1
            then(taken)

    sys.addaudithook(hook)


def _kill(below: str, at: int) -> None:
    """kill -9 before the step number `at`."""
    _at_each_step(below, lambda taken: os.kill(os.getpid(), signal.SIGKILL) if taken == at else None)


def _count(below: str, into: str) -> None:
    """Write into a file how many steps there were."""
    last = [0]
    _at_each_step(below, lambda taken: last.__setitem__(0, taken))
    original = os._exit

    def leave(code: int) -> None:
        Path(into).write_text(str(last[0]))
        original(code)

    os._exit = leave


def _full_disk(after: int) -> None:
    """Nothing more reaches the disk after so many files: what fsync says of a disk that is full."""
    original, done = os.fsync, [0]

    def fsync(handle: int) -> None:
        done[0] += 1
        if done[0] > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(handle)

    os.fsync = fsync


def _score(at: int, error: str) -> None:
    """The scoring number `at` (from 1) fails with a real error."""
    import torch

    from patientdx.evaluation import inference

    original, done = inference.Request.scored, [0]

    def score(*arguments, **options):
        done[0] += 1
        if done[0] == at:
            if error == "memory":
                torch.empty(2**50)
            elif error == "gpu":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            else:
                raise KeyError("heart rate of the patient")
        return original(*arguments, **options)

    inference.Request.scored = score


def _note_scoring(into: str) -> None:
    """No fault: a line in a file for every scoring, whichever process it is in."""
    from patientdx.evaluation import inference

    original = inference.Request.scored

    def score(*arguments, **options):
        with Path(into).open("a") as file:
            file.write(f"{os.getpid()}\n")
        return original(*arguments, **options)

    inference.Request.scored = score


def _tracker(becomes: str) -> None:
    """The process is killed when the tracker is called; or the tracker records nothing; or it records a run."""
    from patientdx.tracking import publish

    def track(*arguments, **options) -> str | None:
        if becomes == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return "a run" if becomes == "recorded" else None

    publish.track = track
