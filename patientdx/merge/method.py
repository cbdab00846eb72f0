"""What a merge method declares beside its function: where λ may lie, and which weights it must see at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from patientdx.merge.task_vectors import GlobalThresholds, Named, model_cutoffs
from patientdx.merge.thresholds import Map

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class MethodSpec:
    """The declaration of one merge method.

    name: of the function, its file and its yaml.
    lambda_range: the least and the largest λ; None for a method without λ.
    exact_ends: numbers of the parents that λ=0 and λ=1 give back bit for bit; None where they need not.
    scope: "tensor": the function gets one tensor of each parent and returns its `Curve`; "layer": it gets all tensors
    of a transformer layer (or one tensor outside the layers) by name, and returns curves by name.
    global_counts: for a method whose thresholds may span whole models (its parameter `cutoffs`): from the method's
    arguments that it names to a function (elements of a model -> how many are the largest, for each threshold), or
    to None where these arguments need no global thresholds.
    """

    name: str = ""
    lambda_range: tuple[float, float] | None = None
    exact_ends: tuple[int, int] | None = None
    scope: Literal["tensor", "layer"] = "tensor"
    global_counts: Callable[..., Callable[[int], Sequence[int]] | None] | None = None

    def fit_global_thresholds(
        self,
        tensors: Callable[[], Iterable[Named]],
        arguments: Mapping[str, Any],
        map_parts: Map = map,
    ) -> GlobalThresholds | None:
        """What the method's parameter `cutoffs` takes; None where these arguments need no global thresholds.

        tensors: gives (name, parents, ancestor) of every tensor, in the same order at each call.
        map_parts: see `thresholds.cutoffs`.
        """
        if self.global_counts is None:
            return None
        accepted = inspect.signature(self.global_counts).parameters
        counts = self.global_counts(**{name: value for name, value in arguments.items() if name in accepted})
        return None if counts is None else model_cutoffs(tensors, counts, self.name, map_parts)


def merge_method(
    *,
    lambda_range: tuple[float, float] | None,
    exact_ends: tuple[int, int] | None = None,
    scope: Literal["tensor", "layer"] = "tensor",
    global_counts: Callable[..., Callable[[int], Sequence[int]] | None] | None = None,
) -> Callable[[Function], Function]:
    """Declare a function to be a merge method; see `MethodSpec`."""

    def declare(function: Function) -> Function:
        spec = MethodSpec(function.__name__, lambda_range, exact_ends, scope, global_counts)
        function.method_spec = spec  # pyright: ignore[reportFunctionMemberAccess, reportAttributeAccessIssue]
        return function

    return declare


def method_spec(function: Callable[..., Any]) -> MethodSpec:
    """The declaration of a merge method; of any other function one without λ."""
    return getattr(function, "method_spec", MethodSpec(function.__name__))
