"""The merges that merge.py times: the same merge as our overrides, as mergekit's config, and as a float64 formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from experiments.benchmarks import merge_rounding as exact
from experiments.benchmarks.merge_parents import MODELS
from experiments.benchmarks.merge_rounding import Exact

Formula = Callable[[Sequence[Tensor], Tensor], Exact]
LAMBDA, WEIGHTS = 0.4, (0.6, 0.4)
HALF = {"weight": 0.5}


@dataclass(frozen=True)
class Task:
    """One merge of base and pivot.

    ours: overrides for run.py, None to read mergekit's config instead. start: mergekit's base_model; each: numbers
    beside base and pivot; numbers: for all. in_mergekit: False for a method that mergekit does not have. formula:
    (base and pivot, ancestor) -> what each element should be; None where random numbers decide, or none is written.
    """

    method: str
    ours: tuple[str, ...] | None = None
    start: str | None = None
    each: tuple[Mapping[str, float], Mapping[str, float]] = ({}, {})
    numbers: Mapping[str, float] = field(default_factory=dict)
    in_mergekit: bool = True
    formula: Formula | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The models that it reads."""
        return MODELS if self.start == "ancestor" else ("base", "pivot")

    def mergekit(self, folders: Mapping[str, Path]) -> dict[str, Any]:
        """mergekit's config, without dtypes."""
        models = [
            {"model": str(folders[model]), **({"parameters": dict(numbers)} if numbers else {})}
            for model, numbers in zip(("base", "pivot"), self.each, strict=True)
        ]
        start = {} if self.start is None else {"base_model": str(folders[self.start])}
        rest = {"parameters": dict(self.numbers)} if self.numbers else {}
        return {"merge_method": self.method, **start, "models": models, **rest}


def slerp(weight: float) -> Task:
    """SLERP at λ = `weight`."""
    formula = partial(exact.slerp, weight=weight)
    return Task("slerp", (f"lambda={weight}",), "base", numbers={"t": weight}, formula=formula)


def _task_vectors(method: str, *ours: str, formula: Formula | None = None, **numbers: float) -> Task:
    """A method of task vectors: mergekit's weights and numbers stand beside each model, its lambda is 1."""
    each = tuple({"weight": weight, **numbers} for weight in WEIGHTS)
    overrides = [f"merge.{name}={number}" for name, number in numbers.items()]
    overrides += ["lambda=1.0", f"merge.weights=[{','.join(map(str, WEIGHTS))}]", *ours]
    return Task(method, tuple(overrides), "ancestor", (each[0], each[1]), formula=formula)


def _shared_config(method: str, start: str | None, each: Mapping[str, float], **numbers: float) -> Task:
    """A merge that both tools read from one config."""
    return Task(method, None, start, (each, each), numbers)


def _tasks() -> list[Task]:
    trimmed = partial(exact.ties, weights=WEIGHTS, density=0.5)
    masked = partial(exact.breadcrumbs, weights=WEIGHTS, density=0.9, gamma=0.01)
    linear = partial(exact.linear, weight=LAMBDA)
    compat = "merge.compat=mergekit"
    return [
        slerp(LAMBDA),
        Task("linear", (f"lambda={LAMBDA}",), each=({"weight": 1 - LAMBDA}, {"weight": LAMBDA}), formula=linear),
        _task_vectors("task_arithmetic", formula=partial(exact.task_arithmetic, weights=WEIGHTS)),
        _task_vectors("ties", compat, formula=trimmed, density=0.5),
        _task_vectors("breadcrumbs", formula=masked, density=0.9, gamma=0.01),
        _task_vectors("della", compat, density=0.5, epsilon=0.15),
        Task("karcher", ("lambda=0.5",), formula=exact.karcher),
        _shared_config("nuslerp", None, HALF),
        _shared_config("multislerp", None, HALF),
        _shared_config("dare_linear", "ancestor", HALF | {"density": 0.5}),
        _shared_config("dare_ties", "ancestor", HALF | {"density": 0.5}),
        _shared_config("della_linear", "ancestor", HALF | {"density": 0.5, "epsilon": 0.15}),
        _shared_config("breadcrumbs_ties", "ancestor", HALF | {"density": 0.9, "gamma": 0.01}),
        _shared_config("model_stock", "ancestor", {}),
        _shared_config("sce", "ancestor", {}, select_topk=0.5),
        _shared_config("nearswap", "base", {}, t=0.001),
        Task("hierarchical", (), "ancestor", in_mergekit=False),
    ]


TASKS = {task.method: task for task in _tasks()}
