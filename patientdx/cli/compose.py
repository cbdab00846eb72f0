"""The Hydra config of a command, with what a mergekit recipe in it decides."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf, open_dict

from patientdx.cli.unlisted_models import register
from patientdx.cli.user_errors import user_error
from patientdx.core.paths import CONF, expanded
from patientdx.core.validation import in_yaml
from patientdx.evaluation.config.run_config import RunConfig, parse

log = logging.getLogger(__name__)
_PLAIN = re.compile(r"[\w./:-]+", re.ASCII)


def configuration(overrides: Sequence[str], *, sweep: bool = False) -> RunConfig:
    """The configuration of a run with these overrides, as `run.py` takes them. Raises UserError.

    sweep: the run is one of several, among which λ is chosen.
    """
    try:
        overrides = register(overrides)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", overrides)
    except Exception as error:
        mended = user_error(error, overrides)
        if mended is None:
            raise
        raise mended from error
    return parse(with_recipe(cfg), sweep=sweep, overrides=overrides)


def word(key: str, value: Any) -> str:
    """``key=value`` as the command line has it."""
    if isinstance(value, Mapping):
        text = "{" + ",".join(word(name, item).replace("=", ":", 1) for name, item in value.items()) + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ",".join(word("", item).removeprefix("=") for item in value) + "]"
    elif isinstance(value, str | Path):
        text = str(value)
        text = text if _PLAIN.fullmatch(text) else QuotedString(text, Quote.single).with_quotes()
    else:
        text = str(in_yaml(value))
    return f"{key}={text}"


def with_recipe(cfg: DictConfig) -> DictConfig:
    """The config with parents, method, λ and tokenizer of its mergekit recipe; itself where it names none.

    Raises UserError for a recipe that asks for what cannot be done here.
    """
    file = cfg.get("mergekit_config")
    if file is None:
        return cfg
    from patientdx.cli.mergekit.recipe import read_recipe

    recipe = read_recipe(expanded(str(file)))
    for note in recipe.notes:
        log.info("%s: %s", file, note)
    cfg = cfg.copy()
    with open_dict(cfg):
        for key, value in (recipe.config() | {"layers": recipe.layers}).items():
            cfg[key] = OmegaConf.create(value) if isinstance(value, dict | list) else value
    return cfg
