"""The order of a sweep's jobs: those that share what costs time stand next to each other.

Hydra's own sweeper takes the product of the choices in the order of the overrides, the last one fastest. So the order
of the overrides is the order of the loops, and to sort them is all there is to do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

# Outermost first: loading a model costs most, then working out a curve, then filling the model with a point of it. Of
# λ and task λ is the outer one: a filled model then answers every task, and a task's texts and tokens are kept anyway.
_LOOPS = (
    ("base_model", "pivot_model", "extra_models", "mergekit_config", "tokenizer", "dtype", "device", "device_map"),
    None,  # whatever is not named here, such as seed
    ("merge",),
    ("lambda",),
    ("task", "scoring"),
    ("splits", "baselines", "parents", "prompt_variants", "clinical", "bootstrap", "search", "privacy", "tracking"),
)
_PLACE = {key: place for place, keys in enumerate(_LOOPS) for key in keys or ()}
_OTHERS = _LOOPS.index(None)


def parsed(overrides: Sequence[str]) -> list[Override]:
    """The overrides of a command line as Hydra reads them."""
    return OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(list(overrides))


def ordered(overrides: Sequence[str]) -> list[str]:
    """The same overrides, as their loops are to be nested; those of one place stay in the order given."""
    return [one.input_line for one in sorted(parsed(overrides), key=_place)]


def choices(overrides: Sequence[str]) -> dict[str, int]:
    """How many values each key that is swept takes; of a key that is given twice the last counts."""
    found = {}
    for one in parsed(overrides):
        found[one.get_key_element()] = len(list(one.sweep_string_iterator())) if one.is_sweep_override() else 1
    return {key: count for key, count in found.items() if count != 1}


def count(overrides: Sequence[str]) -> int:
    """How many jobs a sweep over these overrides has."""
    return math.prod(choices(overrides).values())


def _place(one: Override) -> int:
    return _PLACE.get(one.key_or_group.partition(".")[0], _OTHERS)
