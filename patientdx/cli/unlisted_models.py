"""Models in the words of a command that have no yaml in conf/models: base_model=<folder>, pivot_model=<org>/<name>."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from patientdx.core.paths import CONF, expanded

GROUPS = ("base_model", "pivot_model")

# Hydra copies its store for each group that --help and shell completion list, which takes 2 s; it changes no copy.
ConfigStore.__deepcopy__ = lambda self, memo: self  # pyright: ignore[reportAttributeAccessIssue]


def register(words: Sequence[str]) -> list[str]:
    """Describe such models to Hydra, as yamls would; returns the words, without a last ``/`` of a folder.

    Launchers hand Hydra's store to their processes. Raises UserError where a folder or a hub id holds no model.
    """
    words = [
        word.rstrip("/") if word.lstrip("+").partition("=")[0].partition("@")[0] in GROUPS else word for word in words
    ]
    for group, source in dict.fromkeys(_choices(words)):
        from patientdx.checkpoints.model_card import describe  # not at the top: --help starts without the libraries

        *parents, name = filter(None, source.split("/"))
        ConfigStore.instance().store(name, asdict(describe(source, group)), group="/".join([group, *parents]))
    return words


def _choices(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Group and source of each choice that is no yaml's name."""
    for word in words:
        if word.lstrip("+").partition("=")[0].partition("@")[0] not in GROUPS:
            continue
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException:
            continue  # Hydra says so itself
        for value in _values(override):
            if isinstance(value, str) and value and _is_source(value):
                yield override.key_or_group, value


def _values(override: Override) -> list[object]:
    if override.is_sweep_override():
        return [str(value).strip("'\"") for value in override.sweep_string_iterator()]
    return [override.value()]


def _is_source(value: str) -> bool:
    """Whether a choice is a folder, a file or a hub id, and no yaml."""
    if (CONF / "models" / f"{value}.yaml").is_file():
        return False
    return "/" in value or Path(expanded(value)).exists()
