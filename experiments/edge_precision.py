"""One model in one precision: its size, its speed, its answers. A child process of edge.py.

    python -m experiments.edge_precision <model folder> <precision> <new tokens> [overrides of run.py, with a task]

Prints one JSON line. Precisions: float32, bfloat16; int8: weights of the linear layers as 8-bit numbers with a scale
for each row, worked out in bfloat16; int8_dynamic: the layers' inputs, too, by torchao. Embedding and output head stay
bfloat16.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.permuted_heads import asked_of
from patientdx.core import extras
from patientdx.core.errors import UserError
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.kinds.multiple_choice import KIND
from patientdx.evaluation.prompting import prompt_spec, prompts_of
from patientdx.evaluation.session import Session
from patientdx.lm.generate import generate
from patientdx.lm.load import load_model
from patientdx.lm.multiple_choice import OptionPrompts, score_options
from patientdx.lm.prompts import Prompts

PRECISIONS = ("float32", "bfloat16", "int8", "int8_dynamic")


def in_precision(folder: Path, precision: str) -> torch.nn.Module:
    """The model in `folder`, on the CPU. UserError as `check`."""
    check(precision)
    eight = precision.startswith("int8")
    dtype = torch.bfloat16 if eight else getattr(torch, precision)
    model = load_model(folder, dtype=dtype, device=torch.device("cpu"))
    if eight:
        quantize(model, precision)
    return model


def check(precision: str) -> None:
    """UserError for a precision that is none, and for int8 without torchao."""
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision} does not exist; it is one of {', '.join(PRECISIONS)}.")
    if precision.startswith("int8") and (absent := extras.absence(["torchao"])):
        raise UserError(f"{precision} needs {absent} Or leave it out, as in --precisions float32,bfloat16.")


def quantize(model: torch.nn.Module, precision: str) -> None:
    """Turn the weights of a model's linear layers, the head aside, into 8 bits in place."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_

    config = Int8WeightOnlyConfig() if precision == "int8" else Int8DynamicActivationInt8WeightConfig()
    head = model.get_output_embeddings()
    quantize_(model, config, filter_fn=lambda one, _: isinstance(one, torch.nn.Linear) and one is not head)


def stored(tensor: Tensor) -> Iterator[Tensor]:
    """The plain tensors that a tensor is made of: itself, or 8-bit numbers and scales."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from stored(getattr(tensor, name))


def sizes(model: torch.nn.Module) -> dict[str, int]:
    """Bytes of all weights in memory, each memory once, and of a file that holds them."""
    found = {one.data_ptr(): one.nbytes for weight in model.parameters() for one in stored(weight.data)}
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "weights.pt"
        torch.save(model.state_dict(), file)
        return {"memory": sum(found.values()), "file": file.stat().st_size}


def questions(config: RunConfig) -> tuple[OptionPrompts, list[int], list[int], list[str]]:
    """Tokens, rows of the reported split, the right option of each and its set. UserError for another kind of task."""
    if config.task_config.kind != KIND.name:
        raise UserError(f"task={config.task.name} is not multiple choice: use task=medical_qa or one of its sets.")
    session = Session()
    data = session.task_data(config.task_config.call)
    spec = prompt_spec(config, session.parents(config.merge_config.spec, config.cache))
    tokens = prompts_of(session, KIND, spec)
    rows = [i for i, one in enumerate(data.examples) if one.split == config.inference.reported]
    sets = data.groups.get("set", (data.name,) * len(data.examples))
    return tokens, rows, [int(data.examples[i].gold) for i in rows], [sets[i] for i in rows]


def answered(model, tokens: OptionPrompts, rows: Sequence[int]) -> tuple[list[int], float]:
    """The option that each question gets, by the sum of its log-probability, and the seconds that all took."""
    score_options(model, tokens, rows[:1], batch_tokens=KIND.cpu_batch_tokens)  # what is set up once is not the speed
    start = time.perf_counter()
    places, values = score_options(model, tokens, rows, batch_tokens=KIND.cpu_batch_tokens, label="questions")
    seconds = time.perf_counter() - start
    ordered = np.empty_like(values)
    ordered[places] = values
    return np.where(np.isnan(ordered), -np.inf, ordered).argmax(1).tolist(), seconds


def writing(model, ids: Sequence[int], length: int) -> float:
    """Seconds from one new token to the next behind a prompt, at batch size 1: the median over `length` of them."""
    seen: list[float] = []
    generate(
        model, Prompts((tuple(ids),), (), 0, len(ids)), [0], length=length + 1, ends=(), batch_tokens=1,
        stopped=lambda _: seen.append(time.perf_counter()),  # asked after every token, and never stops
    )  # fmt: skip
    return float(np.median(np.diff(seen)))


def measure(folder: Path, precision: str, length: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Everything about one precision, as edge.py shows it; times in seconds, sizes in bytes."""
    config = asked_of(*overrides)
    alone = replace(config.merge.base, source=str(folder), adapter=None, gguf=None)
    tokens, rows, right, sets = questions(
        config.with_merge(config.weight, base=alone, pivot=alone, extra=(), ancestor=None)
    )
    start = time.perf_counter()
    model = in_precision(folder, precision)
    loaded = time.perf_counter() - start
    chosen, seconds = answered(model, tokens, rows)
    return {
        "precision": precision, "load": loaded, **sizes(model), "questions": seconds / len(rows),
        "token": writing(model, tokens.ids[rows[0]], length), "chosen": chosen, "right": right, "sets": sets,
        "threads": torch.get_num_threads(),
    }  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """See the module."""
    folder, precision, length, *overrides = arguments
    print(json.dumps(measure(Path(folder), precision, int(length), overrides)))


if __name__ == "__main__":
    main(sys.argv[1:])
