"""A child process watched from outside: seconds, CPU seconds, peak of anonymous memory, when its work began."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patientdx.core.errors import UserError

EVERY = 0.02  # seconds between two samples
WRITES = 1 << 20  # bytes: more than a command writes before it writes weights


@dataclass(frozen=True)
class Watched:
    """One finished command. Seconds; peak in bytes.

    cpu: user and system, of the process and the children it waited for.
    peak: most anonymous memory (RssAnon) of the process and its children; mapped files, which can be dropped at any
    time, are not in it. Sampled every 20 ms: a shorter peak is missed.
    resident: most memory in RAM of one of these processes, mapped files that it read included.
    opened: when it first had a parent's file open or mapped; wrote: when it had written more than 1 MiB. None where
    no sample showed it.
    """

    wall: float
    cpu: float
    peak: int
    opened: float | None
    wrote: float | None
    output: str
    resident: int = 0


def watch(command: Sequence[str | Path], inputs: Sequence[Path], cwd: Path, env: Mapping[str, str]) -> Watched:
    """Run a command to its end; UserError with its last words where it fails. Linux only (/proc)."""
    samples: dict[str, float] = {"peak": 0}
    started = time.perf_counter()
    with subprocess.Popen(
        [str(word) for word in command],
        cwd=cwd,
        env=dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        done = threading.Event()
        sampled = (child.pid, [str(path) for path in inputs], samples, started, done)
        sampler = threading.Thread(target=_sample, args=sampled)
        sampler.start()
        try:
            assert child.stdout is not None
            output = child.stdout.read()
            _, status, used = os.wait4(child.pid, 0)
            wall = time.perf_counter() - started
            child.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if child.returncode is None:
                child.kill()  # interrupted: it must not outlive its watcher
            done.set()
            sampler.join()
    if child.returncode != 0:
        raise UserError(f"{' '.join(map(str, command))}\nended with {child.returncode}:\n{output[-2000:]}")
    cpu = used.ru_utime + used.ru_stime
    resident = used.ru_maxrss * 1024
    return Watched(wall, cpu, int(samples["peak"]), samples.get("opened"), samples.get("wrote"), output, resident)


def _sample(
    process: int, inputs: Sequence[str], samples: dict[str, float], started: float, done: threading.Event
) -> None:
    while not done.wait(EVERY):
        family = list(_family(process))
        now = time.perf_counter() - started
        samples["peak"] = max(samples["peak"], sum(_anonymous(member) for member in family))
        if "opened" not in samples and any(_holds(member, inputs) for member in family):
            samples["opened"] = now
        if "wrote" not in samples and any(_field(member, "io", "wchar") > WRITES for member in family):
            samples["wrote"] = now


def _family(process: int) -> Iterator[int]:
    """The process and its children, and theirs."""
    yield process
    for thread in _listed(f"/proc/{process}/task"):
        for child in _text(f"/proc/{process}/task/{thread}/children").split():
            yield from _family(int(child))


def _anonymous(process: int) -> int:
    """Bytes of anonymous memory that a process has in RAM; 0 where it is gone."""
    return 1024 * _field(process, "status", "RssAnon")


def _holds(process: int, inputs: Sequence[str]) -> bool:
    mapped = _text(f"/proc/{process}/maps")
    if any(path in mapped for path in inputs):
        return True
    folder = f"/proc/{process}/fd"
    return any(_link(f"{folder}/{number}").startswith(tuple(inputs)) for number in _listed(folder))


def _field(process: int, file: str, name: str) -> int:
    for line in _text(f"/proc/{process}/{file}").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:  # the process has ended since it was listed
        return ""


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
