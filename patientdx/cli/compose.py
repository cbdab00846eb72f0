"""The Hydra config of a command, with what a mergekit recipe in it decides."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from patientdx.checkpoints.source import REPOSITORY
from patientdx.core.errors import UserError
from patientdx.evaluation.config.run_config import RunConfig, parse

log = logging.getLogger(__name__)


def configuration(overrides: Sequence[str]) -> RunConfig:
    """The configuration of a run with these overrides, as `run.py` takes them. Raises UserError."""
    try:
        with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
            cfg = compose("config", list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(str(error).splitlines()[0]) from error
    return parse(with_recipe(cfg), overrides=overrides)


def with_recipe(cfg: DictConfig) -> DictConfig:
    """The config with parents, method, λ and tokenizer of its mergekit recipe; itself where it names none.

    Raises UserError for a recipe that asks for what cannot be done here.
    """
    file = cfg.get("mergekit_config")
    if file is None:
        return cfg
    from patientdx.cli.mergekit.recipe import read_recipe

    recipe = read_recipe(Path(str(file)).expanduser())
    for note in recipe.notes:
        log.info("%s: %s", file, note)
    cfg = cfg.copy()
    with open_dict(cfg):
        for key, value in (recipe.config() | {"layers": recipe.layers}).items():
            cfg[key] = OmegaConf.create(value) if isinstance(value, dict | list) else value
    return cfg
