"""What a benchmark ran on, in words, beside its figures."""

from __future__ import annotations

import os
from pathlib import Path


def machine(*more: str) -> str:
    """Processor, cores, memory, what `more` says, and the load at this moment."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    facts = [processor(), f"{os.cpu_count()} cores", f"{memory:.0f} GiB", *more, f"load {os.getloadavg()[0]:.1f} now"]
    return ", ".join(facts)


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown processor"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
