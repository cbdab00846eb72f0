"""The least that a merge must do: read every input tensor and write one checkpoint. A child process of merge.py.

    python -m experiments.benchmarks.merge_floor <file to write> <file to read> ...

Prints one JSON line: wall and CPU seconds of the reading and writing, imports left out. Nothing is synchronised with
the disk. Tensors are read with safetensors and copied out of the mapped file; the first input's are what is written.
"""

from __future__ import annotations

import json
import sys
import time

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def main(argv: list[str]) -> None:
    """See the module."""
    wall, cpu = time.perf_counter(), time.process_time()
    kept: dict[str, Tensor] = {}
    for number, file in enumerate(argv[1:]):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                tensor = opened.get_tensor(name).clone()
                if number == 0:
                    kept[name] = tensor
    save_file(kept, argv[0], metadata={"format": "pt"})
    print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}))


if __name__ == "__main__":
    main(sys.argv[1:])
