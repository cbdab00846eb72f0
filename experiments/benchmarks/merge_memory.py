"""Points of one SLERP curve worked out in memory, by PatientDx. A child process of merge.py.

    python -m experiments.benchmarks.merge_memory <base> <pivot> <λ,λ,...> [copies]

Prints one JSON line with seconds: `curve` for opening the parents and what does not depend on λ, `points` for each λ,
written into storage that is already there; and `copies` for a plain copy of the base into the same storage after each
point, where "copies" is asked for. Everything read is in the page cache after the first pass.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from patientdx.checkpoints.merge_plan import Recipe
from patientdx.checkpoints.reader import Checkpoint
from patientdx.core.threads import workers
from patientdx.merge.curve import evaluate
from patientdx.merge.slerp import slerp


def main(argv: list[str]) -> None:
    """See the module."""
    spent: dict[str, list[float]] = {"curve": [], "points": [], "copies": []}

    def timed(part: str, work: Callable[[], None]) -> None:
        start = time.perf_counter()
        work()
        spent[part].append(time.perf_counter() - start)

    parents = tuple(Checkpoint(Path(folder)) for folder in argv[:2])
    names = tuple(parents[0].tensors)
    curves = {}

    # As a run does it: several tensors at a time, a thread each.
    def trace() -> None:
        recipe = Recipe(parents, names, slerp)
        with workers() as at_once:
            for found in at_once(recipe.curves, recipe.groups):
                curves.update(found)

    def point(weight: float) -> None:
        with workers() as at_once:
            list(at_once(lambda name: evaluate(curves[name], weight, into[name]), names))

    def copy() -> None:
        for name, tensor in into.items():
            tensor.copy_(parents[0].read(name))

    timed("curve", trace)
    into = {name: torch.zeros_like(parents[0].read(name)).fill_(1.0) for name in names}  # touched: pages are there
    for weight in map(float, argv[2].split(",")):
        timed("points", lambda weight=weight: point(weight))
        if argv[3:] == ["copies"]:
            timed("copies", copy)
    print(json.dumps(spent))


if __name__ == "__main__":
    main(sys.argv[1:])
