"""Child processes of merge.py; each prints one JSON line.

    python -m experiments.benchmarks.merge_children floor <file to write> <file to read> ...
    python -m experiments.benchmarks.merge_children points <base> <pivot> <λ,λ,...> [copies]

floor   the least that a merge must do: read every input tensor and write one checkpoint. Wall and CPU seconds, imports
        left out. Nothing is synchronised with the disk. Tensors are copied out of the mapped file; the first input's
        are written.
points  points of one SLERP curve in memory, by PatientDx. Seconds: `curve` for opening the parents and what does not
        depend on λ, `points` for each λ, written into existing storage; and with "copies" `copies` for a plain copy of
        the base into the same storage after each point. All that is read is in the page cache after the first pass.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from patientdx.checkpoints.merge_plan import Recipe
from patientdx.checkpoints.reader import Checkpoint
from patientdx.core.threads import workers
from patientdx.merge.curve import evaluate
from patientdx.merge.slerp import slerp


def floor(output: str, *inputs: str) -> dict[str, float]:
    """Read all of `inputs`, write the first as `output`."""
    wall, cpu = time.perf_counter(), time.process_time()
    tensors: dict[str, Tensor] = {}
    for number, file in enumerate(inputs):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                tensor = opened.get_tensor(name).clone()
                if number == 0:
                    tensors[name] = tensor
    save_file(tensors, output, metadata={"format": "pt"})
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def points(base: str, pivot: str, weights: str, *options: str) -> dict[str, list[float]]:
    """Evaluate one curve at all weights."""
    seconds: dict[str, list[float]] = {"curve": [], "points": [], "copies": []}

    def timed(part: str, work: Callable[[], None]) -> None:
        start = time.perf_counter()
        work()
        seconds[part].append(time.perf_counter() - start)

    parents = (Checkpoint(Path(base)), Checkpoint(Path(pivot)))
    names = tuple(parents[0].tensors)
    curves = {}

    # As a run does it: several tensors at a time, a thread each.
    def trace() -> None:
        recipe = Recipe(parents, names, slerp)
        with workers() as parallel:
            for group in parallel(recipe.curves, recipe.groups):
                curves.update(group)

    def point(weight: float) -> None:
        with workers() as parallel:
            list(parallel(lambda name: evaluate(curves[name], weight, into[name]), names))

    def copy() -> None:
        for name, tensor in into.items():
            tensor.copy_(parents[0].read(name))

    timed("curve", trace)
    into = {name: torch.zeros_like(parents[0].read(name)).fill_(1.0) for name in names}  # touched: pages exist
    for weight in map(float, weights.split(",")):
        timed("points", lambda weight=weight: point(weight))
        if "copies" in options:
            timed("copies", copy)
    return seconds


def main(arguments: list[str]) -> None:
    """See the module."""
    print(json.dumps({"floor": floor, "points": points}[arguments[0]](*arguments[1:])))


if __name__ == "__main__":
    main(sys.argv[1:])
