"""The merges that merge.py times: the same one in our words, in mergekit's, and as a float64 formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from experiments.benchmarks import merge_rounding as exact
from experiments.benchmarks.merge_rounding import Exact

Formula = Callable[[Sequence[Tensor], Tensor], Exact]
LAMBDA, WEIGHTS = 0.4, (0.6, 0.4)


@dataclass(frozen=True)
class Task:
    """One merge. inputs: the models that it reads; ours: overrides for run.py.

    mergekit: the model folders -> its config, without dtypes. formula: (base and pivot, ancestor) -> what each element
    should be; None where random numbers decide.
    """

    method: str
    inputs: tuple[str, ...]
    ours: tuple[str, ...]
    mergekit: Callable[[Mapping[str, Path]], dict[str, Any]]
    formula: Formula | None


def slerp(weight: float) -> Task:
    """SLERP at λ = `weight`."""

    def config(places: Mapping[str, Path]) -> dict[str, Any]:
        models = [{"model": str(places[model])} for model in ("base", "pivot")]
        return _config("slerp", models, base=places["base"], t=weight)

    return Task("slerp", ("base", "pivot"), (f"lambda={weight}",), config, partial(exact.slerp, weight=weight))


def _linear() -> Task:
    def config(places: Mapping[str, Path]) -> dict[str, Any]:
        return _config("linear", _models(places, [{"weight": 1 - LAMBDA}, {"weight": LAMBDA}]))

    formula = partial(exact.linear, weight=LAMBDA)
    return Task("linear", ("base", "pivot"), (f"lambda={LAMBDA}",), config, formula)


def _karcher() -> Task:
    def config(places: Mapping[str, Path]) -> dict[str, Any]:
        return _config("karcher", _models(places, [{}, {}]))

    return Task("karcher", ("base", "pivot"), ("lambda=0.5",), config, exact.karcher)


def _of_deltas(method: str, ours: Sequence[str], formula: Formula | None, **numbers: float) -> Task:
    """A method of task vectors: mergekit's weights and numbers stand beside each model, its lambda is 1."""

    def config(places: Mapping[str, Path]) -> dict[str, Any]:
        models = _models(places, [{"weight": weight, **numbers} for weight in WEIGHTS])
        return _config(method, models, base=places["ancestor"])

    said = [f"merge.{name}={number}" for name, number in numbers.items()]
    said += ["lambda=1.0", f"merge.weights=[{','.join(map(str, WEIGHTS))}]", *ours]
    return Task(method, ("ancestor", "base", "pivot"), tuple(said), config, formula)


def _models(places: Mapping[str, Path], numbers: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    return [
        {"model": str(places[model]), **({"parameters": dict(own)} if own else {})}
        for model, own in zip(("base", "pivot"), numbers, strict=True)
    ]


def _config(method: str, models: list[dict[str, Any]], base: Path | None = None, **numbers: float) -> dict[str, Any]:
    start = {} if base is None else {"base_model": str(base)}
    rest = {"parameters": numbers} if numbers else {}
    return {"merge_method": method, **start, "models": models, **rest}


def _tasks() -> dict[str, Task]:
    trimmed = partial(exact.ties, weights=WEIGHTS, density=0.5)
    masked = partial(exact.breadcrumbs, weights=WEIGHTS, density=0.9, gamma=0.01)
    return {
        "slerp": slerp(LAMBDA),
        "linear": _linear(),
        "task_arithmetic": _of_deltas("task_arithmetic", (), partial(exact.task_arithmetic, weights=WEIGHTS)),
        "ties": _of_deltas("ties", ("merge.compat=mergekit",), trimmed, density=0.5),
        "breadcrumbs": _of_deltas("breadcrumbs", (), masked, density=0.9, gamma=0.01),
        "della": _of_deltas("della", ("merge.compat=mergekit",), None, density=0.5, epsilon=0.15),
        "karcher": _karcher(),
    }


TASKS = _tasks()
