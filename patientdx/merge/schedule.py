"""λ for each tensor: one number, a gradient over depth, or values by filter, in mergekit's meaning."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

Gradient: TypeAlias = float | tuple[float, ...]
Filters: TypeAlias = tuple[tuple[str, Gradient], ...]  # parts of tensor names, the first that matches decides
Schedule: TypeAlias = Gradient | Filters  # hashable; `schedule` makes one of what a config holds

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def schedule(value: float | Sequence | Mapping) -> Schedule:
    """λ from its value in a config: a number; a list of at least two; a mapping from parts of names to numbers or
    lists, where "*" or "rest" (a command line takes no "*") stands for all others; or mergekit's list of {filter,
    value}. Raises ValueError for anything else."""
    if isinstance(value, Mapping):
        value = [{"filter": part, "value": value} for part, value in value.items()]
    items = _items(value)
    if items and all(map(_is_filter, items)):
        return tuple((_part(item.get("filter")), _gradient(item["value"])) for item in items)
    return _gradient(value)


def _items(value: object) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []


def _is_filter(item: object) -> bool:
    return isinstance(item, Mapping) and set(item) <= {"filter", "value"} and "value" in item


def _part(value: str | None) -> str:
    return "*" if value in (None, "", "*", "rest") else str(value)


def _gradient(value: float | Sequence) -> Gradient:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value)
    items = _items(value)
    if len(items) > 1 and all(isinstance(item, int | float) and not isinstance(item, bool) for item in items):
        return tuple(map(_number, items))
    raise ValueError(f"{value!r} is neither a number nor a list of two numbers or more")


def _number(value: float) -> float:
    """λ to 12 decimals: range(0,1.01,0.1) gives 0.7000000000000001, which must be 0.7 in every name and key."""
    return round(float(value), 12)


def layer_of(name: str) -> int | None:
    """Number of the transformer layer that a tensor belongs to, counted from 0; None outside the layers."""
    match = _LAYER.search(name)
    return int(match[1]) if match else None


def depth(names: Sequence[str]) -> int:
    """Number of layers among the tensors of a model."""
    return 1 + max((layer for name in names if (layer := layer_of(name)) is not None), default=-1)


def weight_at(at: Schedule, name: str, layers: int) -> float:
    """λ of the tensor `name` in a model of `layers` layers.

    A number holds everywhere. A list is a gradient: its values lie at equal distances from the first layer to the
    last, with straight lines between. Tensors outside the layers (embedding, last norm, head) take the first; in a
    model of one layer that layer takes the last. Pairs go from parts of tensor names to numbers or gradients: the
    first part that `name` contains decides, "*" matches all. Meaning as in mergekit 0.1.5.
    Raises ValueError where no part matches.
    """
    if isinstance(at, float | int):
        return at
    filters = filters_of(at)
    if filters is not None:
        for part, value in filters:
            if part == "*" or part in name:
                return weight_at(value, name, layers)
        raise ValueError(f'lambda has no value for {name}: add "*" for the tensors that no filter names')
    layer, at = layer_of(name), cast(tuple[float, ...], at)
    if layer is None:
        return at[0]
    # In this order of operations a list of one number for each layer is reproduced exactly.
    position = layer * (len(at) - 1) / (layers - 1) if layers > 1 else float(len(at) - 1)
    left = min(int(position), len(at) - 1)
    share = position - left
    return at[left] if share == 0 else (1 - share) * at[left] + share * at[left + 1]


def values(at: Schedule) -> tuple[float, ...]:
    """Every number in a schedule."""
    filters = filters_of(at)
    if filters is not None:
        return tuple(number for _, value in filters for number in values(value))
    return (at,) if isinstance(at, float | int) else cast(tuple[float, ...], at)


def filters_of(at: Schedule) -> Filters | None:
    """The schedule, where it is made of filters."""
    return cast(Filters, at) if isinstance(at, tuple) and isinstance(at[0], tuple) else None


def label(at: Schedule) -> str:
    """A schedule in a few characters, as for a folder's name: 0.4 · 0-0.5-1 · self_attn=0-1,rest=0.4."""
    filters = filters_of(at)
    if filters is not None:
        return ",".join(f"{'rest' if part == '*' else part}={label(value)}" for part, value in filters)
    return "-".join(f"{number:g}" for number in values(at))
