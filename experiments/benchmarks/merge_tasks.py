"""The merges that merge.py times: the same one in our words, in mergekit's, and as a float64 formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from experiments.benchmarks import merge_rounding as exact
from experiments.benchmarks.merge_parents import MODELS
from experiments.benchmarks.merge_rounding import Exact

Formula = Callable[[Sequence[Tensor], Tensor], Exact]
LAMBDA, WEIGHTS = 0.4, (0.6, 0.4)


@dataclass(frozen=True)
class Task:
    """One merge. inputs: the models that it reads; ours: overrides for run.py, None to read mergekit's config instead.

    mergekit: the model folders -> its config, without dtypes; None for a method that it does not have. formula: (base
    and pivot, ancestor) -> what each element should be; None where random numbers decide, or where there is none here.
    """

    method: str
    inputs: tuple[str, ...]
    ours: tuple[str, ...] | None
    mergekit: Callable[[Mapping[str, Path]], dict[str, Any]] | None
    formula: Formula | None = None


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
    return Task(method, MODELS, tuple(said), config, formula)


def _recipe(method: str, ancestor: bool, own: Mapping[str, float], **numbers: float) -> Task:
    """A merge that both read from one config: `own` beside each model, `numbers` for all."""

    def config(places: Mapping[str, Path]) -> dict[str, Any]:
        start = places["ancestor"] if ancestor else None
        return _config(method, _models(places, [own, own]), base=start, **numbers)

    return Task(method, MODELS if ancestor else ("base", "pivot"), None, config)


def _nearswap() -> Task:
    def config(places: Mapping[str, Path]) -> dict[str, Any]:
        models = [{"model": str(places[model])} for model in ("base", "pivot")]
        return _config("nearswap", models, base=places["base"], t=0.001)

    return Task("nearswap", ("base", "pivot"), None, config)


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
        "nuslerp": _recipe("nuslerp", False, {"weight": 0.5}),
        "multislerp": _recipe("multislerp", False, {"weight": 0.5}),
        "dare_linear": _recipe("dare_linear", True, {"weight": 0.5, "density": 0.5}),
        "dare_ties": _recipe("dare_ties", True, {"weight": 0.5, "density": 0.5}),
        "della_linear": _recipe("della_linear", True, {"weight": 0.5, "density": 0.5, "epsilon": 0.15}),
        "breadcrumbs_ties": _recipe("breadcrumbs_ties", True, {"weight": 0.5, "density": 0.9, "gamma": 0.01}),
        "model_stock": _recipe("model_stock", True, {}),
        "sce": _recipe("sce", True, {}, select_topk=0.5),
        "nearswap": _nearswap(),
        "hierarchical": Task("hierarchical", MODELS, (), None),
    }


TASKS = _tasks()
