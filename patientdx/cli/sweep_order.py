"""The order of a sweep's jobs: those that share what costs time stand next to each other.

Hydra's own sweeper takes the product of the choices in the order of the overrides, the last one fastest. So the order
of the overrides is the order of the loops, and to sort them is all there is to do.
"""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.config.section import Loop


def parsed(overrides: Sequence[str]) -> list[Override]:
    """The overrides of a command line as Hydra reads them."""
    return OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(list(overrides))


def ordered(overrides: Sequence[str]) -> list[str]:
    """The same overrides, as their loops are to be nested; those of one loop keep their order."""
    loops = RunConfig.loops()
    return [
        str(word.input_line) for word in sorted(parsed(overrides), key=lambda word: loops.get(_key(word), Loop.OTHER))
    ]


def choices(overrides: Sequence[str]) -> dict[str, int]:
    """How many values each key that is swept takes; of a key that is set twice the last counts."""
    counts = {}
    for word in parsed(overrides):
        counts[word.get_key_element()] = len(list(word.sweep_string_iterator())) if word.is_sweep_override() else 1
    return {key: count for key, count in counts.items() if count != 1}


def points(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of a sweep over these, in the order of the jobs."""
    return [job for batch in BasicSweeper.split_arguments(parsed(overrides), None) for job in batch]


def _key(word: Override) -> str:
    return word.key_or_group.partition("@")[0].partition(".")[0]
