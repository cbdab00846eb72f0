"""What the runs of one process share, each made once: parents, curves, task data, prompts, fitted and live models.

A sweep is many runs in one process. They get the same `Session`, which remembers its last results, so the second run of
a sweep loads nothing: it refills the live model from curves whose angles are known. Heavy libraries are imported where
they are needed: a merge to disk starts without transformers and accelerate.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from patientdx.checkpoints.architecture import config_differences
from patientdx.checkpoints.compatibility import align
from patientdx.checkpoints.identity import Source, content_hash
from patientdx.checkpoints.known_models import check_name
from patientdx.checkpoints.merge_plan import Recipe
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.source import ModelSource, locate, open_checkpoint
from patientdx.checkpoints.vocabulary import common_vocabulary
from patientdx.core.errors import UserError
from patientdx.core.functions import Call
from patientdx.core.threads import workers
from patientdx.evaluation.config.merge import MergeSpec
from patientdx.merge.curve import Curve, evaluate
from patientdx.merge.schedule import Schedule, depth

if TYPE_CHECKING:
    from accelerate import Accelerator

    from patientdx.evaluation.config.inference import InferenceConfig
    from patientdx.lm.quantised import Blank
    from patientdx.records.features import Features
    from patientdx.tasks.example import TaskData

# How many results of each kind are remembered. Tasks asked of one model in turn: the five clinical ones fit.
_SIZES = {"accelerator": 1, "parents": 4, "curves": 4, "task_data": 8, "prompts": 8, "variants": 32, "fitted": 8}


_log = logging.getLogger(__name__)
_LINE = Call("patientdx.merge.linear.linear", "{}")


@dataclass(frozen=True)
class Parents:
    """Parents opened by their headers, base first, and the names of the tensors to merge.

    `ancestor` is None where the method asks for none.
    """

    checkpoints: tuple[Source, ...]
    names: tuple[str, ...]
    ancestor: Source | None
    cache: Path
    models: tuple[ModelSource, ...] = ()
    ancestor_model: ModelSource | None = None

    @property
    def names_of_models(self) -> list[str]:
        """The names of the parents."""
        return [model.name for model in self.models]

    @cached_property
    def differences(self) -> list[str]:
        """Where the parents' configurations make another forward pass of the same weights; see `architecture`."""
        return config_differences(self.checkpoints, self.names_of_models)

    def number_of(self, config_from: str | None) -> int | None:
        """Number of the parent whose configuration a model has; None where all compute alike.

        Raises UserError where they do not, and `config_from` does not say which to take.
        """
        if not self.differences:
            return None
        if config_from is None:
            raise UserError(
                f"{' and '.join(self.names_of_models)} compute differently with the same weights:\n- "
                + "\n- ".join(self.differences)
                + "\nA merge has one configuration. Set config_from=base or config_from=pivot to say whose, or choose "
                "parents that agree."
            )
        return ("base", "pivot").index(config_from)

    def spec_of(self, role: str, spec: MergeSpec) -> MergeSpec:
        """The straight line whose end is the parent `role`, base or pivot, as it is alone; it needs no statistics."""
        config_from = role if self.differences else None
        return MergeSpec(spec.models[:2], _LINE, tokenizer=spec.tokenizer, config_from=config_from)

    @cached_property
    def ancestor_hash(self) -> str | None:
        """Content hash of the ancestor, None without one. UserError as `hashes`."""
        if self.ancestor is None:
            return None
        digest = content_hash(self.ancestor, self.cache)
        if self.ancestor_model is not None:
            check_name(self.ancestor_model, self.ancestor, self.cache)
        return digest

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """Content hash of each parent; computed once and remembered in the cache. Says which two are one model.

        UserError where a parent is known as a model of another name.
        """
        hashes = tuple(content_hash(checkpoint, self.cache) for checkpoint in self.checkpoints)
        for model, checkpoint in zip(self.models, self.checkpoints, strict=False):
            check_name(model, checkpoint, self.cache)
        named: dict[str, str] = {}
        for name, digest in zip(self.names_of_models, hashes, strict=False):
            if named.setdefault(digest, name) != name:
                _log.warning("%s has the content of %s: the two are one model", name, named[digest])
        return hashes


class LiveModel:
    """The one model in memory and what it holds at present."""

    def __init__(self, model: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
        self.model = model
        self.device: torch.device = next(iter(model.parameters())).device
        self.tensors = tensors
        self.holds: Any = None

    def fill(self, recipe: Recipe, curves: Mapping[str, Curve], key: Any) -> torch.nn.Module:
        """The model at the recipe's λ on its curves; `key` identifies these weights, so that none are written twice."""
        if self.holds != key:
            self.holds = None  # a pass that fails leaves no model behind
            with workers(self.device) as parallel:
                list(parallel(lambda name: evaluate(curves[name], recipe.weight_of(name), self.tensors[name]), curves))
            self.holds = key
        return self.model


class QuantisedModel:
    """In place of `LiveModel`: quantised weights cannot be filled again, so every point on a curve is a new model."""

    def __init__(self, blank: Blank) -> None:
        self.blank = blank
        self.model: torch.nn.Module | None = None
        self.holds: Any = None

    def fill(self, recipe: Recipe, curves: Mapping[str, Curve], key: Any) -> torch.nn.Module:
        """As `LiveModel.fill`: the point is computed in floating point and quantised, tensor by tensor."""
        if self.model is None or self.holds != key:
            self.model = None  # the former model goes before the next comes
            self.model = self.blank.quantised(lambda name, out: evaluate(curves[name], recipe.weight_of(name), out))
            self.holds = key
        return self.model


class Session:
    """The only owner of what is expensive to make; one for a process, passed on by whoever starts a run."""

    def __init__(self) -> None:
        self._results: dict[str, OrderedDict[Hashable, Any]] = {}
        self._live: tuple[Hashable, LiveModel | QuantisedModel] | None = None

    def remember(self, name: str, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` returned for this key, made now unless it is among the last results under `name`."""
        results = self._results.setdefault(name, OrderedDict())
        if key not in results:
            results[key] = make()
            if len(results) > _SIZES.get(name, 1):
                results.popitem(last=False)
        results.move_to_end(key)
        return results[key]

    def accelerator(self, device: str) -> Accelerator:
        """This process's rank and its device; `device` is auto, cpu, or what auto takes."""

        def make() -> Accelerator:
            from accelerate import Accelerator

            # Unless told to use the CPU, accelerate takes each of several processes without a GPU for the only one.
            return Accelerator(cpu=device == "cpu" or not torch.accelerator.is_available())

        return self.remember("accelerator", device, make)

    def parents(self, spec: MergeSpec, cache: Path, *, adapt: bool = False) -> Parents:
        """The parents of a merge, opened once for all merges that have the same; see `open_parents`."""
        key = (spec.models, cache, spec.ancestor, spec.tokenizer, adapt)
        return self.remember("parents", key, lambda: open_parents(*key))

    def recipe(self, spec: MergeSpec, weight: Schedule | None, cache: Path, *, adapt: bool = False) -> Recipe:
        """The merge of the parents at λ = `weight`; UserError where the method lacks something.

        adapt: see `open_parents`.
        """
        parents = self.parents(spec, cache, adapt=adapt)
        if spec.layers not in (None, depth(parents.names)):
            raise UserError(
                f"the mergekit recipe is for models of {spec.layers} layers, but {spec.models[0].name} has "
                f"{depth(parents.names)}: give the parents that it was written for."
            )
        merge = spec.call
        return Recipe(
            parents.checkpoints,
            parents.names,
            merge.function,
            merge.keywords,
            weight,
            ancestor=parents.ancestor,
            seed=spec.seed,
            config_from=parents.number_of(spec.config_from),
        )

    def curves(self, spec: MergeSpec, cache: Path) -> dict[str, Curve]:
        """One curve for each tensor, over the memory-mapped parents, for every λ."""

        def make() -> dict[str, Curve]:
            recipe = self.recipe(spec, None, cache)
            recipe.prepare()
            with workers() as parallel:
                groups = parallel(recipe.curves, recipe.groups)
                return {name: curve for group in groups for name, curve in group.items()}

        return self.remember("curves", (spec, cache), make)

    def task_data(self, task: Call, without: str | None = None) -> TaskData:
        """The examples of a task; `without` a split, as if nobody were in it."""
        if without is not None:
            from patientdx.tasks.example import without_split  # not at the top: a merge reads no records

            return self.remember("task_data", (task, without), lambda: without_split(self.task_data(task), without))
        return self.remember("task_data", task, lambda: task().load())

    def fitted(self, task: Call, name: str, model: Call, seed: int) -> Any:
        """The tabular model that `model` makes, fitted on the splits of the task that it names, by default train."""

        def make() -> Any:
            from patientdx.training.tabular import fit

            data = self.task_data(task)
            rows = fit_rows(data, fitted_on(model))
            examples = [data.examples[i] for i in rows]
            seeded = {"seed": seed} if "seed" in inspect.signature(model.function).parameters else {}
            values, labels = inputs_of(data, model).values[rows], [example.label or 0 for example in examples]
            patients = [example.subject for example in examples]
            return fit(model.function(**model.keywords, **seeded), values, labels, patients=patients, name=name)

        return self.remember("fitted", (task, name, model, seed), make)

    def live(
        self, parents: Parents, inference: InferenceConfig, number: int | None = None
    ) -> LiveModel | QuantisedModel:
        """The parents' architecture on this process's device, to be refilled with models on any of their curves.

        number: of the parent whose configuration it has; None: the base's. Folder, names and configuration determine
        all of it, the vocabulary too; the merge method does not matter.
        """
        folder, names = parents.checkpoints[0].folder, parents.names
        config = parents.checkpoints[number].config if number else None
        load, device_map = inference.load, inference.device_map
        key = (folder, names, inference.precision, inference.device, device_map, json.dumps(config, sort_keys=True))
        if self._live is None or self._live[0] != key:
            from patientdx.lm.load import load_model, storage
            from patientdx.lm.quantised import Blank

            self._live = None  # the former model goes before the next comes: there need not be room for two
            target, dtype = self.accelerator(inference.device).device, getattr(torch, inference.dtype)
            if load is None:
                model = load_model(folder, dtype=dtype, device=target, device_map=device_map, config=config)
                self._live = key, LiveModel(model, storage(model, names))
            else:
                blank = Blank(folder, names, load=load, dtype=dtype, device=target, config=config)
                self._live = key, QuantisedModel(blank)
        return self._live[1]

    def release(self) -> None:
        """Free the live model's memory."""
        self._live = None


def open_parents(
    models: tuple[ModelSource, ...],
    cache: Path,
    ancestor: ModelSource | None = None,
    tokenizer: str | None = None,
    adapt: bool = False,
) -> Parents:
    """Locate and open the parents; UserError unless every tensor and the vocabulary agree.

    tokenizer: base, pivot or union map their vocabularies to one.
    adapt: apply LoRA adapters as tensors are read, instead of opening an adapted copy on disk. It costs a model's
    memory where all tensors are held, and saves a model's disk where each is read once.
    """
    sources = (*models, *(() if ancestor is None or ancestor in models else (ancestor,)))
    checkpoints: tuple[Source, ...] = tuple(
        open_checkpoint(model, cache) if adapt else Checkpoint(locate(model, cache)) for model in sources
    )
    names = [model.name for model in sources]
    if tokenizer is not None:
        vocabulary = common_vocabulary(checkpoints[: len(models)], names[: len(models)], tokenizer, cache)
        checkpoints = tuple(vocabulary.view(part, name) for part, name in zip(checkpoints, names, strict=True))
    tensors = align(checkpoints, names)
    origin = None if ancestor is None else checkpoints[sources.index(ancestor)]
    return Parents(checkpoints[: len(models)], tuple(tensors), origin, cache, models, ancestor)


def has_inputs(data: TaskData, model: Call) -> bool:
    """Whether the task has what a tabular model is fitted on: its features, or the points of a severity score."""
    return (data.severity if "score" in model.keywords else data.features) is not None


def inputs_of(data: TaskData, model: Call) -> Features:
    """The task's features, or the points of the score that `model` names, (n, 1); ValueError where it has none."""
    score = model.keywords.get("score")
    table = data.features if score is None else data.severity_points
    if table is None:
        raise ValueError(f"{data.name} has nothing to fit {model.target} on")
    return table if score is None else table.column(score)


def fitted_on(model: Call) -> tuple[str, ...]:
    """The splits that a tabular model is fitted on: its argument `fit_on`, else train."""
    return tuple(model.keywords.get("fit_on", ("train",)))


def fit_rows(data: TaskData, splits: Sequence[str]) -> list[int]:
    """The numbers of the examples that a tabular model is fitted on."""
    return [i for i, example in enumerate(data.examples) if example.split in splits]
