"""λ for each tensor: one number, a gradient over depth, or values by filter, in mergekit's meaning."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Gradient = float | tuple[float, ...]
Schedule = Gradient | tuple[tuple[str, Gradient], ...]  # hashable; `schedule` makes one of what a config holds

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def schedule(given: float | Sequence | Mapping) -> Schedule:
    """λ as a config says it: a number; a list of at least two; a mapping from parts of names to numbers or lists,
    where "*" or "rest" (a command line takes no "*") stands for all others; or mergekit's list of {filter, value}.
    Raises ValueError for anything else."""
    if isinstance(given, Mapping):
        given = [{"filter": part, "value": value} for part, value in given.items()]
    if isinstance(given, Sequence) and not isinstance(given, str) and given:
        if all(isinstance(one, Mapping) and set(one) <= {"filter", "value"} and "value" in one for one in given):
            return tuple((_part(one.get("filter")), _gradient(one["value"])) for one in given)
        return _gradient(given)
    return _gradient(given)


def _part(given: str | None) -> str:
    return "*" if given in (None, "", "*", "rest") else str(given)


def _gradient(given: float | Sequence) -> Gradient:
    if isinstance(given, int | float) and not isinstance(given, bool):
        return _number(given)
    several = isinstance(given, Sequence) and not isinstance(given, str) and len(given) > 1
    if several and all(isinstance(one, int | float) and not isinstance(one, bool) for one in given):
        return tuple(map(_number, given))
    raise ValueError(f"{given!r} is neither a number nor a list of two numbers or more")


def _number(given: float) -> float:
    """λ to 12 decimals: range(0,1.01,0.1) gives 0.7000000000000001, which is to be 0.7 in every name and key."""
    return round(float(given), 12)


def layer_of(name: str) -> int | None:
    """Number of the transformer layer that a tensor belongs to, counted from 0; None outside the layers."""
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def depth(names: Sequence[str]) -> int:
    """Number of layers among the tensors of a model."""
    return 1 + max((layer for name in names if (layer := layer_of(name)) is not None), default=-1)


def weight_at(at: Schedule, name: str, layers: int) -> float:
    """λ of the tensor `name` in a model of `layers` layers.

    A number holds everywhere. Several are a gradient: they stand at equal distances from the first layer to the
    last, with straight lines between. Tensors outside the layers (embedding, last norm, head) take the first; in a
    model of one layer that layer takes the last. Pairs go from parts of tensor names to numbers or gradients: the
    first part found in `name` decides, "*" is found in all. Meaning as in mergekit 0.1.5.
    Raises ValueError where no part is found in `name`.
    """
    if isinstance(at, float):
        return at
    if isinstance(at[0], tuple):
        for part, value in at:
            if part == "*" or part in name:
                return weight_at(value, name, layers)
        raise ValueError(f'lambda says nothing for {name}: add "*" for the tensors that no filter names')
    layer = layer_of(name)
    if layer is None:
        return at[0]
    # In this order a list of one number for each layer is met exactly.
    place = layer * (len(at) - 1) / (layers - 1) if layers > 1 else float(len(at) - 1)
    left = min(int(place), len(at) - 1)
    share = place - left
    return at[left] if share == 0 else (1 - share) * at[left] + share * at[left + 1]


def values(at: Schedule) -> tuple[float, ...]:
    """Every number that a schedule is made of."""
    if isinstance(at, float):
        return (at,)
    return tuple(number for _, value in at for number in values(value)) if isinstance(at[0], tuple) else at


def label(at: Schedule) -> str:
    """A schedule in a few characters, as for a folder's name: 0.4 · 0-0.5-1 · self_attn=0-1,rest=0.4."""
    if isinstance(at, tuple) and isinstance(at[0], tuple):
        return ",".join(f"{'rest' if part == '*' else part}={label(value)}" for part, value in at)
    return "-".join(f"{number:g}" for number in values(at))
