"""The timed half of multiple_choice.py. It runs in lm-eval's environment: one process, one model, in alternation."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import lm_eval
import numpy as np
import torch
import yaml
from lm_eval.api.instance import Instance
from lm_eval.api.task import TaskConfig
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import apply_template

from experiments.benchmarks.machine import processor
from patientdx.lm.load import load_model, load_tokenizer
from patientdx.lm.multiple_choice import score_options, tokenise_options

SHORT = 256  # as patientdx.evaluation.inference has it, which cannot be imported here


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


_WRITTEN = {"medqa": "medqa/preprocess_medqa.py", "medmcqa": "medmcqa/utils_medmcqa.py",
            "pubmedqa": "pubmedqa/preprocess_pubmedqa.py"}  # fmt: skip
_KEYS = {"medqa": ("ending0", "ending1", "ending2", "ending3"), "medmcqa": ("opa", "opb", "opc", "opd")}


def own_prompt(name: str, item: dict[str, Any]) -> str | None:
    """What lm-eval's task of that name makes of a question, examples before it; None where options are texts.

    Questions and options are taken out of our prompt, and everything around them is lm-eval's.
    """
    benchmark, *how = name.split(", ")
    if "text" in how:
        return None
    if benchmark == "pubmedqa":
        asked = item["parts"][2].removeprefix("\nQuestion: ").removesuffix("\nAnswer:")
        return _module(benchmark).doc_to_text({"CONTEXTS": [item["parts"][1]], "QUESTION": asked})
    text = "".join(item["parts"])
    if benchmark == "mmlu_medical":
        about, question = text.split("\n\n", 1)
        subject = about.removesuffix(".").rpartition(" about ")[2].replace(" ", "_")
        own = _settings(f"mmlu_{subject}.yaml")
        body, *options = _apart(question)
        asked = {"question": body, "choices": options}
        return own["description"] + apply_template(_settings("_default_template_yaml")["doc_to_text"], asked)
    config = TaskConfig()
    shown = text.split("\n\nQuestion: ")
    found = []
    for place, block in enumerate(shown):
        block, answer = block.rsplit("\nAnswer:", 1)
        body, *options = _apart(block.removeprefix("Question: ").removesuffix("\nChoices:"))
        asked = {"sent1": body, "question": body, **dict(zip(_KEYS[benchmark], options, strict=True))}
        last = place + 1 == len(shown)
        found.append(
            _module(benchmark).doc_to_text(asked) + ("" if last else config.target_delimiter + answer.removeprefix(" "))
        )
    return config.fewshot_delimiter.join(found)


def _apart(question: str) -> list[str]:
    """A question's text and its four options."""
    body, *options = question.removesuffix("\nAnswer:").rsplit("\n", 4)
    return [body.removesuffix("\nChoices:"), *(one[3:] for one in options)]


@cache
def _module(benchmark: str):
    place = Path(lm_eval.__file__).parent / "tasks" / _WRITTEN[benchmark]
    spec = importlib.util.spec_from_file_location(benchmark, place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _settings(file: str) -> dict[str, Any]:
    return yaml.safe_load((Path(lm_eval.__file__).parent / "tasks" / "mmlu" / "default" / file).read_text())


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
