"""The points of a sweep, composed one by one, and chunks of them that one job of a launcher scores.

Hydra's launchers start a process for each job, and a process loads the model once. With ``chunks=8`` a launcher gets
eight jobs, each with its share of the points in their order. A job has the overrides of its first point and the number
of its chunk; it composes the points itself, and each is scored, recorded and refused as a job of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict, read_write

from patientdx.cli import sweep_state
from patientdx.core.errors import UserError
from patientdx.evaluation.store import read_json, write_json

CHUNK = "chunk"  # key of a job that scores several points: the number of its chunk


def compose(config: DictConfig, words: Sequence[str]) -> DictConfig:
    """The configuration of one point with Hydra's own in it, as launchers compose that of a job."""
    return GlobalHydra.instance().config_loader().load_sweep_config(config, list(words))


def without_hydra(config: DictConfig) -> DictConfig:
    """The configuration as a job gets it."""
    config = config.copy()
    with read_write(config), open_dict(config):
        config.pop("hydra", None)
    return config


def split(points: Sequence[Sequence[str]], chunks: int, folder: Path) -> list[str]:
    """The overrides of a sweep whose jobs are chunks of these points, at most `chunks`, kept in `folder`.

    Neighbours stay together: they share what costs time. Sizes differ by one at most.
    """
    count = min(chunks, len(points))
    ends = [len(points) * number // count for number in range(count + 1)]
    numbered = [[[number, list(points[number])] for number in range(*ends[i : i + 2])] for i in range(count)]
    write_json({"chunks": numbered}, folder / sweep_state.CHUNKS)
    return [*points[0], f"+{CHUNK}={','.join(map(str, range(count)))}"]


def chunk_of(cfg: DictConfig, folder: Path) -> list[tuple[int, list[str]]]:
    """Number and overrides of each point of the job's chunk. UserError where its sweep has ended."""
    kept = read_json(folder / sweep_state.CHUNKS)
    if kept is None:
        raise UserError(f"{folder} is gone: the command that started this sweep has ended. Give it again.")
    return [(number, words) for number, words in kept["chunks"][cfg[CHUNK]]]


def enter(master: DictConfig, words: Sequence[str], number: int) -> tuple[DictConfig, HydraConf]:
    """Make a point Hydra's current job: its configuration, and Hydra's. master: of the job whose chunk it is in."""
    composed = compose(master, words)
    with read_write(composed.hydra), open_dict(composed.hydra):
        composed.hydra.job.num = number
        composed.hydra.runtime.output_dir = master.hydra.runtime.output_dir
    HydraConfig.instance().set_config(composed)
    return without_hydra(composed), HydraConfig.get()
