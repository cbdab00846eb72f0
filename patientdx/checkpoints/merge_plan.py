"""One merge of whole models: which parents, which method with which numbers, which λ for each tensor."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from patientdx.checkpoints.identity import Source
from patientdx.core.errors import UserError
from patientdx.core.threads import workers
from patientdx.merge.curve import Curve
from patientdx.merge.method import method_spec
from patientdx.merge.schedule import Schedule, depth, layer_of, weight_at

# Parameters of a method that the recipe supplies; all others are its numbers in the yaml.
SUPPLIED = ("parents", "ancestor", "name", "seed", "config", "cutoffs")


@dataclass(frozen=True)
class Recipe:
    """Parents are opened checkpoints that agree in every tensor, base first; their common `ancestor` may be None.

    method: a function of `patientdx.merge`; arguments: its numbers. weight: λ, None for a method without.
    names: the tensors to merge, in the order of the base's files. config_from: number of the parent whose configuration
    the merged model has; None for the base's, where all parents compute alike.
    """

    parents: tuple[Source, ...]
    names: tuple[str, ...]
    method: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weight: Schedule | None = None
    ancestor: Source | None = None
    seed: int = 0
    config_from: int | None = None

    def __post_init__(self) -> None:
        parameter = inspect.signature(self.method).parameters.get("ancestor")
        if parameter is not None and parameter.default is inspect.Parameter.empty and self.ancestor is None:
            raise UserError(
                f"merge={self.method.__name__} works on differences from the parents' common ancestor, and none is "
                "given: set base_model@ancestor=<its yaml>, or use a method without one (merge=slerp, linear)."
            )

    @cached_property
    def _named(self) -> tuple[str, ...]:
        return tuple(name for name in inspect.signature(self.method).parameters if name in SUPPLIED)

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Names of the tensors that the method joins in one call: one each, or those of a layer by its scope."""
        if method_spec(self.method).scope == "tensor":
            return tuple((name,) for name in self.names)
        layers: dict[Any, list[str]] = {}
        for name in self.names:
            layer = layer_of(name)
            layers.setdefault(name if layer is None else layer, []).append(name)
        return tuple(tuple(group) for group in layers.values())

    def curves(self, group: tuple[str, ...]) -> dict[str, Curve]:
        """The curve of each tensor of one group; UserError where the method cannot join them."""
        by_layer = method_spec(self.method).scope == "layer"
        supplied: dict[str, Any] = {"seed": self.seed, "config": self.parents[0].config, "name": group[0]}
        read = _read_group if by_layer else _read_tensor
        if self.ancestor is not None:
            supplied["ancestor"] = read(self.ancestor, group)
        if "cutoffs" in self._named:
            supplied["cutoffs"] = self._cutoffs
        supplied = {name: value for name, value in supplied.items() if name in self._named}
        try:
            curves = self.method([read(parent, group) for parent in self.parents], **self.arguments, **supplied)
        except ValueError as error:
            raise error if isinstance(error, UserError) else UserError(str(error)) from error
        return curves if by_layer else {group[0]: curves}

    def prepare(self) -> None:
        """Compute global thresholds now, on all threads, instead of at the first call of `curves`."""
        if "cutoffs" in self._named:
            _ = self._cutoffs

    @cached_property
    def _cutoffs(self) -> Any:
        """The method's global thresholds; see `MethodSpec.fit_global_thresholds`."""

        ancestor = self.ancestor
        if ancestor is None:
            return None

        def tensors() -> Iterator[tuple[str, list[Tensor], Tensor]]:
            for name in self.names:
                yield name, [parent.read(name) for parent in self.parents], ancestor.read(name)

        with workers() as map_parts:
            return method_spec(self.method).fit_global_thresholds(tensors, self.arguments, map_parts)

    @cached_property
    def layers(self) -> int:
        """Transformer layers of the parents."""
        return depth(self.names)

    def weight_of(self, name: str) -> float:
        """λ of one tensor; 0 for a method that has none."""
        if self.weight is None:
            return 0.0
        try:
            return weight_at(self.weight, name, self.layers)
        except ValueError as error:
            raise UserError(str(error)) from error


def _read_tensor(checkpoint: Source, group: tuple[str, ...]) -> Tensor:
    return checkpoint.read(group[0])


def _read_group(checkpoint: Source, group: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: checkpoint.read(name) for name in group}
