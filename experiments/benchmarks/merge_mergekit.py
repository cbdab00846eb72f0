"""Points of one SLERP curve worked out in memory, by mergekit's own in-memory API. A child process of merge.py.

It runs in mergekit's environment and imports nothing of PatientDx:

    <mergekit's python> experiments/benchmarks/merge_mergekit.py <base.safetensors> <pivot.safetensors> <λ,λ,...>

Prints one JSON line: seconds of each point, both parents in memory before.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from mergekit.merge_methods.api import merge_state_dicts
from safetensors.torch import load_file


def main(argv: list[str]) -> None:
    """See the module."""
    models = {"base": load_file(argv[0]), "pivot": load_file(argv[1])}
    for tensors in models.values():  # load_file maps the file: read it now
        tensors.update({name: tensor.clone() for name, tensor in tensors.items()})
    points = []
    with torch.no_grad():
        for weight in map(float, argv[2].split(",")):
            start = time.perf_counter()
            merge_state_dicts(models, "slerp", base="base", parameters={"t": weight})
            points.append(time.perf_counter() - start)
    print(json.dumps({"points": points}))


if __name__ == "__main__":
    main(sys.argv[1:])
