"""What the runs of one process share, each made once: parents, curves, tokenised task, live model.

A sweep is many runs in one process. Every function here remembers its last answer, so the second run of a sweep
loads nothing: it refills the live model from curves whose angles are known.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from patientdx.checkpoints.merge_plan import Recipe
from patientdx.core.errors import UserError
from patientdx.core.functions import Call
from patientdx.core.threads import workers
from patientdx.evaluation.kinds.names import GENERATE, MULTIPLE_CHOICE, RANK
from patientdx.lm.load import load_model, load_tokenizer, storage
from patientdx.lm.multiple_choice import OptionPrompts, tokenise_options
from patientdx.lm.prompts import Prompts, tokenise
from patientdx.lm.ranking import tokenise_pairs
from patientdx.merge.curve import Curve, evaluate
from patientdx.tasks.example import TaskData
from patientdx.training.tabular import fit

# Tasks asked of one model in turn, whose texts and tokens are kept: the five clinical ones fit.
TASKS = 8


@lru_cache(maxsize=1)
def accelerator(device: str) -> Accelerator:
    """The process's place among its fellows and its device; `device` is auto or cpu."""
    # Unless told that it is to use the CPU, accelerate takes each of several processes without a GPU for the only one.
    return Accelerator(cpu=device == "cpu" or not torch.accelerator.is_available())


@lru_cache(maxsize=TASKS)
def task_data(task: Call) -> TaskData:
    """The examples of a task."""
    return task().load()


@lru_cache(maxsize=TASKS)
def prompts(folder: Path, chat: bool, task: Call, max_tokens: int) -> Prompts | OptionPrompts:
    """The task's examples as tokens of the tokenizer in `folder`, at most the model's context long.

    A task may say itself whether it is a chat. Answers in words need room of their own, and get it.
    """
    data = task_data(task)
    tokenizer, limit = load_tokenizer(folder), _limit(folder, max_tokens)
    parts = [(example.prefix, example.context, example.suffix) for example in data.examples]
    chat = chat if data.chat is None else data.chat
    if data.chat and not tokenizer.chat_template:
        raise UserError(
            f"task.chat=true asks task={data.name} as a chat, but the tokenizer in {folder} has no chat template. "
            "Leave task.chat out, or use a model whose tokenizer has one."
        )
    if data.kind == MULTIPLE_CHOICE:
        options = [[text for (text,) in example.options] for example in data.examples]
        return tokenise_options(tokenizer, parts, options, chat=chat, limit=limit)
    if data.kind == GENERATE:
        room = _limit(folder, max_tokens + data.generation.length) - data.generation.length
        if room < 1:
            raise UserError(
                f"task.new_tokens={data.generation.length} leaves no room for a question in the model's context of "
                f"{room + data.generation.length} tokens. Use fewer."
            )
        return tokenise(tokenizer, parts, (), chat=chat, limit=min(limit, room))
    if data.kind == RANK:
        documents, options = data.ranking.document, data.examples[0].options
        return tokenise_pairs(tokenizer, parts, options, documents, chat=chat, limit=limit)
    return tokenise(tokenizer, parts, data.examples[0].options, chat=chat, limit=limit)


@lru_cache(maxsize=32)
def reworded(folder: Path, chat: bool, task: Call, max_tokens: int, probe: str, split: str) -> Prompts:
    """The prompts of one split with the question of the task's probe of that name in place of its own."""
    data = task_data(task)
    (found,) = (one for one in data.prompt_variants if one.name == probe)
    return tokenise(
        load_tokenizer(folder),
        [(example.prefix, example.context, found.suffix) for example in data.examples if example.split == split],
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
    model = call.function(**call.keywords, **seeded)
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
def live(folder: Path, names: tuple[str, ...], dtype: str, device: str, device_map: str | None) -> Live:
    """The architecture in `folder` on this process's device, to be refilled with points of any curves of `names`.

    Folder and names say all of it, the vocabulary too: the merge method is not among what it depends on.
    """
    live.cache_clear()  # the former model goes before the next comes: there need not be room for two
    model = load_model(folder, dtype=getattr(torch, dtype), device=accelerator(device).device, device_map=device_map)
    return Live(model, storage(model, names))
