"""The timed half of multiple_choice.py. It runs in lm-eval's environment: one process, one model, in alternation."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from experiments.benchmarks.machine import processor
from patientdx.scoring.model import load_model, load_tokenizer
from patientdx.scoring.options import score_options, tokenise_options

SHORT = 256  # as patientdx.answers has it, which cannot be imported here


def ours(model, tokenizer, items: Sequence[dict[str, Any]]) -> np.ndarray:
    """Sums of log-probabilities (n, options) as a run on a CPU works them out, from texts."""
    prompts = tokenise_options(tokenizer, [one["parts"] for one in items], [one["options"] for one in items])
    places, values = score_options(model, prompts, range(len(items)), batch_tokens=SHORT)
    found = np.empty_like(values)
    found[places] = values
    return found


def theirs(lm: HFLM, items: Sequence[dict[str, Any]]) -> np.ndarray:
    """The same by lm-eval's own requests."""
    asked = [
        Instance("loglikelihood", one, ("".join(one["parts"]), f" {option}"), k)
        for one in items
        for k, option in enumerate(one["options"])
    ]
    found = [value for value, _ in lm.loglikelihood(asked, disable_tqdm=True)]
    return np.array(found).reshape(len(items), -1)


def chosen(sums: np.ndarray, items: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    """Answers by acc, acc_norm and acc_bytes, as lm-eval defines them: lengths of the option without its blank."""
    characters = np.array([[len(option) for option in one["options"]] for one in items], dtype=float)
    octets = np.array([[len(option.encode()) for option in one["options"]] for one in items], dtype=float)
    return [np.argmax(sums, 1), np.argmax(sums / characters, 1), np.argmax(sums / octets, 1)]


def compare(model, tokenizer, harnesses: dict[int, HFLM], items: list[dict[str, Any]], rounds: int) -> dict[str, Any]:
    """Agreement on every item, and median CPU seconds of each way."""
    ways: dict[str, Callable[[], np.ndarray]] = {"ours": lambda: ours(model, tokenizer, items)}
    ways |= {str(batch): lambda lm=lm: theirs(lm, items) for batch, lm in harnesses.items()}
    ours(model, tokenizer, items[:1])  # first calls build kernels and grow the heap
    theirs(next(iter(harnesses.values())), items[:1])
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    sums: dict[str, np.ndarray] = {}
    for turn in range(rounds):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            start = time.process_time()
            sums[name] = ways[name]()
            seconds[name].append(time.process_time() - start)
    others = [name for name in ways if name != "ours"]
    best = min(others, key=lambda name: median(seconds[name]))
    each = [b / a for a, b in zip(seconds["ours"], seconds[best], strict=True)]
    mine = chosen(sums["ours"], items)
    differ = sum(int((a != b).sum()) for a, b in zip(mine, chosen(sums[others[0]], items), strict=True))
    prompts = tokenise_options(tokenizer, [one["parts"] for one in items], [one["options"] for one in items])
    return {
        "items": len(items),
        "tokens": sum(map(len, prompts.ids)),
        "option_tokens": sum(len(option) for options in prompts.continuations for option in options),
        "difference": max(float(np.abs(sums["ours"] - sums[name]).max()) for name in others),
        "answers_differ": differ,
        "acc": float(np.mean(mine[0] == [one["right"] for one in items])),
        "seconds": {"ours": median(seconds["ours"]), "lm-eval": {name: median(seconds[name]) for name in others}},
        "ratio": median(seconds[best]) / median(seconds["ours"]),
        "ratio_rounds": [min(each), max(each)],
    }


def own_prompt(name: str, item: dict[str, Any]) -> str | None:
    """What lm-eval's task of that name makes of a question that it is shown without examples; None where it is not."""
    import importlib.util

    import lm_eval

    text = "".join(item["parts"])
    file = {"medqa, letter": "medqa/preprocess_medqa.py", "medmcqa, letter": "medmcqa/utils_medmcqa.py",
            "pubmedqa": "pubmedqa/preprocess_pubmedqa.py"}.get(name)  # fmt: skip
    if file is None:
        return None
    spec = importlib.util.spec_from_file_location("prompts", Path(lm_eval.__file__).parent / "tasks" / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if name == "pubmedqa":
        asked = item["parts"][2].removeprefix("\nQuestion: ").removesuffix("\nAnswer:")
        return module.doc_to_text({"CONTEXTS": [item["parts"][1]], "QUESTION": asked})
    body, *texts = text.removesuffix("\nAnswer:").rsplit("\n", 4)
    question = body.removeprefix("Question: ").removesuffix("\nChoices:")
    options = [one[3:] for one in texts]
    keys = ["ending0", "ending1", "ending2", "ending3"] if name.startswith("medqa") else ["opa", "opb", "opc", "opd"]
    return module.doc_to_text({"sent1": question, "question": question, **dict(zip(keys, options, strict=True))})


def main(argv: Sequence[str]) -> None:
    """Reads the job's file, writes the result's file (both JSON, named in argv)."""
    job = json.loads(Path(argv[0]).read_text())
    torch.set_num_threads(1)
    folder = Path(job["model"])
    tokenizer = load_tokenizer(folder)
    model = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    harnesses = {batch: HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch) for batch in job["batch_sizes"]}
    sets = {}
    for name, items in job["sets"].items():
        print(f"{name}: {len(items)} items", file=sys.stderr, flush=True)
        sets[name] = compare(model, tokenizer, harnesses, items, job["rounds"])
        theirs_own = [own_prompt(name, one) for one in items]
        sets[name]["prompts_compared"] = sum(one is not None for one in theirs_own)
        pairs = zip(theirs_own, items, strict=True)
        sets[name]["prompts_differ"] = sum(one not in (None, "".join(item["parts"])) for one, item in pairs)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "lm_eval"))
    load = os.getloadavg()[0]
    machine = f"{processor()}, {os.cpu_count()} cores, 1 thread, {versions}, load {load:.1f} at the end"
    Path(argv[1]).write_text(json.dumps({"sets": sets, "machine": machine}))


if __name__ == "__main__":
    main(sys.argv[1:])
