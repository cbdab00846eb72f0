"""The timed half of scoring.py. It runs in lm-eval's environment: one process, one loaded model, all in alternation.

It needs torch, transformers, accelerate and lm-eval, and from this repository only patientdx.lm.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM

from experiments.benchmarks.machine import processor
from patientdx.lm.binary import score
from patientdx.lm.load import load_model, load_tokenizer
from patientdx.lm.prompts import Prompts

OURS, PLAIN, PLAIN_LAST = "ours", "transformers", "transformers, last row"


def theirs(batch: int) -> str:
    """The name of lm-eval at a batch size."""
    return f"lm-eval, batch {batch}"


def ours(model, prompts: Prompts) -> np.ndarray:
    """Margins (n,) by `score` as a run on a CPU calls it: one prompt at a time, prefix and head included."""
    done, option_nN = score(model, prompts, range(len(prompts.ids)), batch_tokens=1)
    margin = np.empty(len(prompts.ids))
    margin[done] = option_nN[:, 0] - option_nN[:, 1]
    return margin


@torch.inference_mode()
def plain(model, prompts: Prompts, keep: int) -> np.ndarray:
    """Margins (n,) by the model's own forward, prompt by prompt; keep: 0 for all logits, 1 for the last only."""
    (yes,), (no,) = prompts.options
    rows = [model(input_ids=torch.tensor([ids]), logits_to_keep=keep).logits[0, -1].float() for ids in prompts.ids]
    return np.array([float(row[yes] - row[no]) for row in rows])


def harness(lm: HFLM, prompts: Prompts) -> np.ndarray:
    """Margins (n,) by lm-eval's hf backend: two one-token continuations a prompt, which it scores in one forward."""
    asked = [(("", ""), list(ids), list(option)) for ids in prompts.ids for option in prompts.options]
    found = np.array([value for value, _ in lm._loglikelihood_tokens(asked, disable_tqdm=True)]).reshape(-1, 2)
    return found[:, 0] - found[:, 1]


def measure(ways: dict[str, Callable[[], Any]], rounds: int, seed: int) -> dict[str, dict[str, list[float]]]:
    """CPU (user and system, all threads) and wall seconds of each way, `rounds` times, each round in another order."""
    shuffle = random.Random(seed)
    seconds = {name: {"cpu": [], "wall": []} for name in ways}
    for _ in range(rounds):
        for name in shuffle.sample(list(ways), len(ways)):
            wall, cpu = time.perf_counter(), time.process_time()
            ways[name]()
            seconds[name]["cpu"].append(time.process_time() - cpu)
            seconds[name]["wall"].append(time.perf_counter() - wall)
    return seconds


def compare(model, harnesses: dict[int, HFLM], prompts: Prompts, job: dict[str, Any]) -> dict[str, Any]:
    """Seconds of every way on one prompt set, and the margins of those that may differ."""
    few = Prompts(prompts.ids[:2], prompts.options, 0, prompts.limit)
    margins = {}
    for name, way in _ways(model, harnesses, few).items():  # first calls build kernels and grow the heap
        way()
        margins[name] = []
    ways = _ways(model, harnesses, prompts)

    def kept(name: str) -> Callable[[], None]:
        return lambda: margins.__setitem__(name, ways[name]().tolist())

    seconds = measure({name: kept(name) for name in ways}, job["rounds"], job["seed"])
    return {"seconds": seconds, "margins": margins, "prefix": prompts.prefix}


def _ways(model, harnesses: dict[int, HFLM], prompts: Prompts) -> dict[str, Callable[[], np.ndarray]]:
    ways = {
        OURS: lambda: ours(model, prompts),
        PLAIN: lambda: plain(model, prompts, 0),
        PLAIN_LAST: lambda: plain(model, prompts, 1),
    }
    for batch, lm in harnesses.items():
        ways[theirs(batch)] = lambda lm=lm: harness(lm, prompts)
    return ways


def machine(threads: int) -> dict[str, Any]:
    """What the seconds depend on."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "vector_unit": torch.backends.cpu.get_cpu_capability(),
        "versions": {name: version(name) for name in ("torch", "transformers", "lm_eval")},
    }


def main(argv: Sequence[str]) -> None:
    """Reads the job's file, writes the result's file (both JSON, named in argv)."""
    job = json.loads(Path(argv[0]).read_text())
    torch.set_num_threads(job["threads"])
    tokenizer = load_tokenizer(Path(job["model"]))
    load_before = os.getloadavg()[0]
    results: dict[str, Any] = {}
    for dtype in job["dtypes"]:
        model = load_model(Path(job["model"]), dtype=getattr(torch, dtype), device=torch.device("cpu"))
        harnesses = {
            batch: HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch) for batch in job["batch_sizes"]
        }
        for name, found in job["sets"].items():
            ids, options = (tuple(tuple(row) for row in found[key]) for key in ("ids", "options"))
            print(f"{dtype}, {name}: {len(ids)} prompts", file=sys.stderr, flush=True)
            prompts = Prompts(ids, options, 0, max(map(len, ids)))
            results.setdefault(name, {})[dtype] = compare(model, harnesses, prompts, job)
    facts = machine(job["threads"]) | {"load_before": load_before, "load_after": os.getloadavg()[0]}
    Path(argv[1]).write_text(json.dumps({"machine": facts, "results": results}))


if __name__ == "__main__":
    main(sys.argv[1:])
