"""The timed half of multiple_choice.py. It runs in lm-eval's environment: one process, one model, in random order."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from functools import cache
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

from experiments.benchmarks import harness
from experiments.benchmarks.scoring_lm_eval import load, machine
from patientdx.lm.multiple_choice import score_options, tokenise_options

BATCH_TOKENS = 256  # as patientdx.evaluation.inference has it on a CPU, which cannot be imported here
Items = Sequence[dict[str, Any]]


def ours(model: Any, tokenizer: Any, items: Items) -> np.ndarray:
    """Sums of log-probabilities (n, options) as a run on a CPU computes them, from texts."""
    prompts = tokenise_options(tokenizer, [item["parts"] for item in items], [item["options"] for item in items])
    indices, values = score_options(model, prompts, range(len(items)), batch_tokens=BATCH_TOKENS)
    sums = np.empty_like(values)
    sums[indices] = values
    return sums


def reference(lm: HFLM, items: Items) -> np.ndarray:
    """The same by lm-eval's own requests."""
    requests = [
        Instance("loglikelihood", item, ("".join(item["parts"]), f" {option}"), k)
        for item in items
        for k, option in enumerate(item["options"])
    ]
    return np.array([value for value, _ in lm.loglikelihood(requests, disable_tqdm=True)]).reshape(len(items), -1)


def chosen(sums: np.ndarray, items: Items) -> list[np.ndarray]:
    """Answers by acc, acc_norm and acc_bytes, as lm-eval defines them: lengths of the option without its blank."""
    characters = np.array([[len(option) for option in item["options"]] for item in items], dtype=float)
    octets = np.array([[len(option.encode()) for option in item["options"]] for item in items], dtype=float)
    return [np.argmax(sums, 1), np.argmax(sums / characters, 1), np.argmax(sums / octets, 1)]


def compare(model: Any, tokenizer: Any, harnesses: dict[int, HFLM], items: Items, rounds: int) -> dict[str, Any]:
    """Agreement on every item, and median CPU seconds of each way."""
    sums: dict[str, np.ndarray] = {}

    def ways(items: Items) -> dict[str, Callable[[], None]]:
        return {"ours": lambda: sums.__setitem__("ours", ours(model, tokenizer, items))} | {
            str(batch): lambda batch=batch, lm=lm: sums.__setitem__(str(batch), reference(lm, items))
            for batch, lm in harnesses.items()
        }

    harness.measure(ways(items[:1]), 1)  # first calls build kernels and grow the heap
    seconds = harness.measure(ways(items), rounds)
    others = [name for name in seconds if name != "ours"]
    medians = {name: median(clocks["cpu"]) for name, clocks in seconds.items()}
    choices, references = chosen(sums["ours"], items), chosen(sums[others[0]], items)
    prompts = tokenise_options(tokenizer, [item["parts"] for item in items], [item["options"] for item in items])
    return {
        "items": len(items),
        "tokens": sum(map(len, prompts.ids)),
        "option_tokens": sum(len(option) for options in prompts.continuations for option in options),
        "difference": max(float(np.abs(sums["ours"] - sums[name]).max()) for name in others),
        "answers_differ": sum(int((a != b).sum()) for a, b in zip(choices, references, strict=True)),
        "acc": float(np.mean(choices[0] == [item["right"] for item in items])),
        "seconds": {"ours": medians["ours"], "lm-eval": {name: medians[name] for name in others}},
        **harness.ratio_of_medians(seconds, harness.fastest(seconds, others), "ours"),
    }


_PREPROCESS = {"medqa": "medqa/preprocess_medqa.py", "medmcqa": "medmcqa/utils_medmcqa.py",
            "pubmedqa": "pubmedqa/preprocess_pubmedqa.py"}  # fmt: skip
_KEYS = {"medqa": ("ending0", "ending1", "ending2", "ending3"), "medmcqa": ("opa", "opb", "opc", "opd")}


def lm_eval_prompt(name: str, item: dict[str, Any]) -> str | None:
    """The prompt that lm-eval's task of that name makes of a question and its shots; None where options are texts.

    Questions and options are taken from our prompt; everything around them is lm-eval's.
    """
    benchmark, *how = name.split(", ")
    if "text" in how:
        return None
    if benchmark == "pubmedqa":
        question = item["parts"][2].removeprefix("\nQuestion: ").removesuffix("\nAnswer:")
        return _module(benchmark).doc_to_text({"CONTEXTS": [item["parts"][1]], "QUESTION": question})
    text = "".join(item["parts"])
    if benchmark == "mmlu_medical":
        about, question = text.split("\n\n", 1)
        subject = about.removesuffix(".").rpartition(" about ")[2].replace(" ", "_")
        settings = _settings(f"mmlu_{subject}.yaml")
        body, *options = _question_and_options(question)
        doc = {"question": body, "choices": options}
        return settings["description"] + apply_template(_settings("_default_template_yaml")["doc_to_text"], doc)
    config = TaskConfig()
    shown = text.split("\n\nQuestion: ")
    blocks = []
    for index, block in enumerate(shown):
        block, answer = block.rsplit("\nAnswer:", 1)
        body, *options = _question_and_options(block.removeprefix("Question: ").removesuffix("\nChoices:"))
        doc = {"sent1": body, "question": body, **dict(zip(_KEYS[benchmark], options, strict=True))}
        last = index + 1 == len(shown)
        blocks.append(
            _module(benchmark).doc_to_text(doc) + ("" if last else config.target_delimiter + answer.removeprefix(" "))
        )
    return config.fewshot_delimiter.join(blocks)


def _question_and_options(question: str) -> list[str]:
    """A question's text and its four options."""
    body, *options = question.removesuffix("\nAnswer:").rsplit("\n", 4)
    return [body.removesuffix("\nChoices:"), *(option[3:] for option in options)]


@cache
def _module(benchmark: str):
    path = Path(lm_eval.__file__).parent / "tasks" / _PREPROCESS[benchmark]
    spec = importlib.util.spec_from_file_location(benchmark, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _settings(file: str) -> dict[str, Any]:
    return yaml.safe_load((Path(lm_eval.__file__).parent / "tasks" / "mmlu" / "default" / file).read_text())


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Results by set, and the machine."""
    torch.set_num_threads(1)
    model, tokenizer, harnesses = load(Path(job["model"]), torch.float32, job["batch_sizes"])
    sets = {}
    for name, items in job["sets"].items():
        print(f"{name}: {len(items)} items", file=sys.stderr, flush=True)
        sets[name] = compare(model, tokenizer, harnesses, items, job["rounds"])
        prompts = [("".join(item["parts"]), lm_eval_prompt(name, item)) for item in items]
        compared = [(prompt, other) for prompt, other in prompts if other is not None]
        sets[name]["prompts_compared"] = len(compared)
        sets[name]["prompts_differ"] = sum(prompt != other for prompt, other in compared)
    return {"sets": sets, "machine": machine(1)}


if __name__ == "__main__":
    harness.serve(sys.argv[1:], main)
