"""Cost of a training: seconds, peak memory, energy; None where the machine does not report it."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

_POWERCAP = Path("/sys/class/powercap")


class Energy:
    """Joules drawn by the processor packages since construction, from Linux's counters of Intel's and AMD's RAPL.

    A counter starts again from 0 every few minutes or hours, so `read` must be called more often than that.
    """

    def __init__(self, folder: Path = _POWERCAP) -> None:
        self._counters = [
            counter
            for counter in sorted(folder.glob("*/energy_uj"))
            if _read_text(counter.with_name("name")).startswith("package")
        ]
        self._last = [_read_text(counter) for counter in self._counters]
        self._sum = 0
        # Without the counters of some packages the sum would be too small.
        self.available = bool(self._last) and all(self._last)

    def read(self) -> float | None:
        """Joules until now; None where the machine does not report them."""
        if not self.available:
            return None
        now = [_read_text(counter) for counter in self._counters]
        for counter, before, after in zip(self._counters, self._last, now, strict=True):
            step = int(after) - int(before)
            self._sum += step if step >= 0 else step + int(_read_text(counter.with_name("max_energy_range_uj")))
        self._last = now
        return self._sum / 1e6


def _read_text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def peak_memory() -> int:
    """The most bytes of memory that this process has held at one time, mapped files that it read included."""
    for line in _read_text(Path("/proc/self/status")).splitlines():
        if line.startswith("VmHWM:"):  # of this program alone; getrusage's number starts with the parent's
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Meter:
    """Sums the cost of a training over all the starts that it takes, as plain numbers."""

    def __init__(self, before: dict[str, Any] | None = None) -> None:
        self._before = before or {}
        self._start, self._energy = time.monotonic(), Energy()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def read(self) -> dict[str, Any]:
        """Seconds, peak bytes in main memory and on the GPU (None: without), joules of the processor (or None)."""
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
