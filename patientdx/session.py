"""What the runs of one process share, each made once: parents, curves, tokenised task, live model.

A sweep is many runs in one process. Every function here remembers its last answer, so the second run of a sweep
loads nothing: it refills the live model from curves whose angles are known.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from patientdx.call import Call
from patientdx.checkpoint.recipe import Recipe
from patientdx.merge.curve import Curve, evaluate
from patientdx.opening import parents
from patientdx.refusal import Refusal
from patientdx.scoring.model import load_model, load_tokenizer, storage
from patientdx.scoring.prompts import Prompts, tokenise
from patientdx.settings import Ingredients
from patientdx.tabular import fit
from patientdx.tasks.example import TaskData
from patientdx.workers import workers


@lru_cache(maxsize=1)
def accelerator(device: str) -> Accelerator:
    """The process's place among its fellows and its device; `device` is auto or cpu."""
    # Unless told that it is to use the CPU, accelerate takes each of several processes without a GPU for the only one.
    return Accelerator(cpu=device == "cpu" or not torch.accelerator.is_available())


def agreed(value: Any) -> Any:
    """The first process's value, in every process."""
    box = [value]
    broadcast_object_list(box)
    return box[0]


def gathered(value: Any) -> list[Any]:
    """Every process's value, in the order of the processes, in every process."""
    return gather_object([value])


def together(step: Callable[[], Any]) -> Any:
    """What `step` returns in this process, once it has ended in all.

    Where it fails in one process it fails in all, so that none waits for another for ever: a Refusal everywhere,
    and any other error where it arose.
    """
    value, error = None, None
    try:
        value = step()
    except Exception as fault:
        error = fault
    faults = gathered(None if error is None else str(error))
    if error is not None:
        raise error
    told = [fault for fault in faults if fault is not None]
    if told:
        raise Refusal(told[0])
    return value


@lru_cache(maxsize=4)
def task_data(task: Call) -> TaskData:
    """The examples of a task."""
    return task()


@lru_cache(maxsize=4)
def prompts(folder: Path, chat: bool, task: Call, max_tokens: int) -> Prompts:
    """The task's examples as tokens of the tokenizer in `folder`, at most the model's context long."""
    examples = task_data(task).examples
    return tokenise(
        load_tokenizer(folder),
        [(example.before, example.record, example.after) for example in examples],
        examples[0].options,
        chat=chat,
        limit=_limit(folder, max_tokens),
    )


@lru_cache(maxsize=32)
def reworded(folder: Path, chat: bool, task: Call, max_tokens: int, probe: str, split: str) -> Prompts:
    """The prompts of one split with the question of the task's probe of that name in place of its own."""
    data = task_data(task)
    (found,) = (one for one in data.probes if one.name == probe)
    return tokenise(
        load_tokenizer(folder),
        [(example.before, example.record, found.after) for example in data.examples if example.split == split],
        found.options,
        chat=chat,
        limit=_limit(folder, max_tokens),
    )


def _limit(folder: Path, max_tokens: int) -> int:
    context = json.loads((folder / "config.json").read_text()).get("max_position_embeddings") or max_tokens
    return min(max_tokens, context)


def train_rows(data: TaskData) -> list[int]:
    """The numbers of the examples that a tabular model is fitted on."""
    return [i for i, example in enumerate(data.examples) if example.split == "train"]


@lru_cache(maxsize=8)
def fitted(task: Call, name: str, call: Call, seed: int) -> Any:
    """The tabular model that `call` makes, fitted on the task's train split."""
    data = task_data(task)
    rows = train_rows(data)
    seeded = {"seed": seed} if "seed" in inspect.signature(call.function).parameters else {}
    model = call.function(**call.given, **seeded)
    return fit(model, data.features.values[rows], [data.examples[i].label for i in rows], name=name)


class Live:
    """The one model in memory and what it holds at present."""

    def __init__(self, model: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
        self.model = model
        self.tensors = tensors
        self.holds: Any = None

    def fill(self, found: Recipe, shape: Mapping[str, Curve], key: Any) -> torch.nn.Module:
        """The model at the recipe's λ on its curves; `key` says which, so that it is not written twice."""
        if self.holds != key:
            self.holds = None  # what a failed pass leaves behind is no model
            with workers(self.model.device) as at_once:
                list(at_once(lambda name: evaluate(shape[name], found.weight_of(name), self.tensors[name]), shape))
            self.holds = key
        return self.model


@lru_cache(maxsize=1)
def live(made_of: Ingredients, cache: Path, dtype: str, device: str, device_map: str | None) -> Live:
    """The base's architecture on this process's device, to be refilled with points of the curves."""
    found = parents(made_of.models, cache, made_of.ancestor, made_of.tokenizer)
    model = load_model(
        found.checkpoints[0].folder,
        dtype=getattr(torch, dtype),
        device=accelerator(device).device,
        device_map=device_map,
    )
    return Live(model, storage(model, found.names))
