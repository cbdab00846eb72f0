"""What training costs: seconds, peak memory, energy; measured where the machine tells, None where it does not."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

_POWERCAP = Path("/sys/class/powercap")


class Energy:
    """Joules drawn by the processor packages since this was made, from Linux's counters of Intel's and AMD's RAPL.

    A counter starts again from 0 every few minutes or hours, so `read` must be called more often than that.
    """

    def __init__(self, folder: Path = _POWERCAP) -> None:
        self._counters = [
            place
            for place in sorted(folder.glob("*/energy_uj"))
            if _words(place.with_name("name")).startswith("package")
        ]
        self._last = [_words(place) for place in self._counters]
        self._sum = 0
        # A machine that lets only some of its packages be read does not tell what was drawn.
        self.told = bool(self._last) and all(self._last)

    def read(self) -> float | None:
        """Joules until now; None where the machine does not tell."""
        if not self.told:
            return None
        now = [_words(place) for place in self._counters]
        for place, before, after in zip(self._counters, self._last, now, strict=True):
            step = int(after) - int(before)
            self._sum += step if step >= 0 else step + int(_words(place.with_name("max_energy_range_uj")))
        self._last = now
        return self._sum / 1e6


def _words(place: Path) -> str:
    try:
        return place.read_text().strip()
    except OSError:
        return ""


def peak_memory() -> int:
    """The most bytes of memory that this process has held at one time, mapped files that it read included."""
    for line in _words(Path("/proc/self/status")).splitlines():
        if line.startswith("VmHWM:"):  # of this program alone; what getrusage says begins with its parent's
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Meter:
    """Adds up what a training costs over all the starts that it takes, as plain numbers."""

    def __init__(self, before: dict[str, Any] | None = None) -> None:
        self._before = before or {}
        self._start, self._energy = time.monotonic(), Energy()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def read(self) -> dict[str, Any]:
        """Seconds, peak bytes in main memory and on the GPU (None: without), joules of the processor (None: untold)."""
        gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
        joules = self._energy.read()
        if self._before and self._before["energy_joules"] is None:
            joules = None
        return {
            "seconds": round(self._before.get("seconds", 0.0) + time.monotonic() - self._start, 2),
            "peak_memory_bytes": max(self._before.get("peak_memory_bytes", 0), peak_memory()),
            "peak_gpu_memory_bytes": gpu and max(self._before.get("peak_gpu_memory_bytes") or 0, gpu),
            "energy_joules": None if joules is None else (self._before.get("energy_joules") or 0.0) + joules,
        }
