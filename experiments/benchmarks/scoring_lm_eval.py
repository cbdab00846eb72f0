"""The timed half of scoring.py. It runs in lm-eval's environment: one process, one loaded model, all in random order.

It needs torch, transformers, accelerate and lm-eval, and from this repository only patientdx.lm.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM

from experiments.benchmarks import harness
from patientdx.lm.binary import score
from patientdx.lm.load import load_model, load_tokenizer
from patientdx.lm.prompts import Prompts

OURS, PLAIN, PLAIN_LAST = "ours", "transformers", "transformers, last row"


def load(folder: Path, dtype: torch.dtype, batch_sizes: list[int]) -> tuple[Any, Any, dict[int, HFLM]]:
    """Model, tokenizer, and lm-eval around the same model object, by batch size."""
    tokenizer = load_tokenizer(folder)
    model = load_model(folder, dtype=dtype, device=torch.device("cpu"))
    return model, tokenizer, {n: HFLM(pretrained=model, tokenizer=tokenizer, batch_size=n) for n in batch_sizes}


def machine(threads: int) -> str:
    """The machine with what the seconds depend on."""
    versions = (f"{name} {version(name)}" for name in ("torch", "transformers", "lm_eval"))
    return harness.machine(f"{threads} threads", torch.backends.cpu.get_cpu_capability(), *versions)


def ours(model: Any, prompts: Prompts) -> np.ndarray:
    """Margins (n,) by `score` as a run on a CPU calls it: one prompt at a time, prefix and head included."""
    done, option_nN = score(model, prompts, range(len(prompts.ids)), batch_tokens=1)
    margin = np.empty(len(prompts.ids))
    margin[done] = option_nN[:, 0] - option_nN[:, 1]
    return margin


@torch.inference_mode()
def plain(model: Any, prompts: Prompts, logits_to_keep: int) -> np.ndarray:
    """Margins (n,) by the model's own forward, prompt by prompt; logits_to_keep: 0 for all, 1 for the last only."""
    (yes,), (no,) = prompts.options
    inputs = (torch.tensor([ids]) for ids in prompts.ids)
    rows = [model(input_ids=ids, logits_to_keep=logits_to_keep).logits[0, -1].float() for ids in inputs]
    return np.array([float(row[yes] - row[no]) for row in rows])


def lm_eval(lm: HFLM, prompts: Prompts) -> np.ndarray:
    """Margins (n,) by lm-eval's hf backend: two one-token continuations per prompt, scored in one forward."""
    requests = [(("", ""), list(ids), list(option)) for ids in prompts.ids for option in prompts.options]
    values = np.array([value for value, _ in lm._loglikelihood_tokens(requests, disable_tqdm=True)]).reshape(-1, 2)
    return values[:, 0] - values[:, 1]


def compare(model: Any, harnesses: dict[int, HFLM], prompts: Prompts, job: dict[str, Any]) -> dict[str, Any]:
    """Seconds of every way on one prompt set, and the margins of each."""
    margins = {}

    def ways(prompts: Prompts) -> dict[str, Callable[[], None]]:
        functions = {
            OURS: partial(ours, model),
            PLAIN: partial(plain, model, logits_to_keep=0),
            PLAIN_LAST: partial(plain, model, logits_to_keep=1),
            **{f"lm-eval, batch {batch}": partial(lm_eval, lm) for batch, lm in harnesses.items()},
        }
        return {
            name: lambda name=name, way=way: margins.__setitem__(name, way(prompts=prompts).tolist())
            for name, way in functions.items()
        }

    # First calls build kernels and grow the heap.
    harness.measure(ways(Prompts(prompts.ids[:2], prompts.options, 0, prompts.limit)), 1)
    seconds = harness.measure(ways(prompts), job["rounds"], seed=job["seed"])
    return {"seconds": seconds, "margins": margins, "prefix": prompts.prefix}


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Results by prompt set and dtype, and the machine."""
    torch.set_num_threads(job["threads"])
    results: dict[str, Any] = {}
    for dtype in job["dtypes"]:
        model, _, harnesses = load(Path(job["model"]), getattr(torch, dtype), job["batch_sizes"])
        for name, prompt_set in job["sets"].items():
            ids, options = (tuple(tuple(row) for row in prompt_set[key]) for key in ("ids", "options"))
            print(f"{dtype}, {name}: {len(ids)} prompts", file=sys.stderr, flush=True)
            prompts = Prompts(ids, options, 0, max(map(len, ids)))
            results.setdefault(name, {})[dtype] = compare(model, harnesses, prompts, job)
    return {"machine": machine(job["threads"]), "results": results}


if __name__ == "__main__":
    harness.serve(sys.argv[1:], main)
