"""λ for each tensor: one number, a gradient over depth, or values by filter, in mergekit's meaning."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Gradient = float | Sequence[float]
Schedule = Gradient | Mapping[str, Gradient]

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def layer_of(name: str) -> int | None:
    """Number of the transformer layer that a tensor belongs to, counted from 0; None outside the layers."""
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def depth(names: Sequence[str]) -> int:
    """Number of layers among the tensors of a model."""
    return 1 + max((layer for name in names if (layer := layer_of(name)) is not None), default=-1)


def weight_at(schedule: Schedule, name: str, layers: int) -> float:
    """λ of the tensor `name` in a model of `layers` layers.

    A number holds everywhere. A list is a gradient: its values stand at equal distances from the first layer to the
    last, with straight lines between. Tensors outside the layers (embedding, last norm, head) take its first value;
    in a model of one layer that layer takes its last. A mapping goes from parts of tensor names to numbers or lists:
    the first part found in `name` decides, "*" is found in all. Meaning as in mergekit 0.1.5.
    Raises ValueError where no part of a mapping is found in `name`.
    """
    if isinstance(schedule, Mapping):
        for part, value in schedule.items():
            if part == "*" or part in name:
                return weight_at(value, name, layers)
        raise ValueError(f'lambda says nothing for {name}: add "*" for the tensors that no filter names')
    if not isinstance(schedule, Sequence):
        return float(schedule)
    layer = layer_of(name)
    if layer is None:
        return float(schedule[0])
    place = (layer / (layers - 1) if layers > 1 else 1.0) * (len(schedule) - 1)
    left = min(int(place), len(schedule) - 1)
    right = min(left + 1, len(schedule) - 1)
    share = place - left
    return float(schedule[left]) if share == 0 else (1 - share) * schedule[left] + share * schedule[right]


def values(schedule: Schedule) -> list[float]:
    """Every number that a schedule is made of, in order."""
    if isinstance(schedule, Mapping):
        return [number for value in schedule.values() for number in values(value)]
    return [float(number) for number in schedule] if isinstance(schedule, Sequence) else [float(schedule)]


def label(schedule: Schedule) -> str:
    """A schedule in a few characters, as for a folder's name: 0.4, 0-0.5-1, self_attn=0-1,all=0.4."""
    if isinstance(schedule, Mapping):
        return ",".join(f"{'all' if part == '*' else part}={label(value)}" for part, value in schedule.items())
    return "-".join(f"{number:g}" for number in values(schedule))
