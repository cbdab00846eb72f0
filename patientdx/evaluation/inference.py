"""Responses of a language model: read from the store, or computed by all processes of the run and stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from patientdx.checkpoints.save import save
from patientdx.checkpoints.source import ModelSource
from patientdx.core import distributed
from patientdx.core.errors import UserError
from patientdx.core.locks import exclusive_lock
from patientdx.evaluation.config.merge import MergeSpec
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.session import Session
from patientdx.evaluation.store import Store
from patientdx.merge.schedule import Schedule

if TYPE_CHECKING:
    import torch

    from patientdx.tasks.example import TaskData

GPU_BATCH_TOKENS = 16384  # padded tokens of a batch on a GPU
MERGED = "merged"  # role of the model that a run is about

Array = NDArray[np.float64]


class Timer:
    """Seconds spent in each phase of a run; `merging`: those of making the merged model, None where it was not made."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.merging: float | None = None
        self._last = time.monotonic()

    def record(self, phase: str) -> float:
        """Add the time since the last call to `phase`, and return it."""
        now = time.monotonic()
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + now - self._last, 3)
        spent, self._last = now - self._last, now
        return spent


class LanguageModel(Protocol):
    """A system whose weights are a point on a curve."""

    @property
    def role(self) -> str:
        """What rows and files call it."""
        ...

    def weights(self, session: Session, config: RunConfig, timer: Timer) -> tuple[MergeSpec, Schedule | None]:
        """The merge that makes its weights, and λ; a fine-tuned model is trained now unless it is in the cache."""
        ...


@dataclass(frozen=True)
class Request:
    """A language model asked about some rows of a task.

    prompts: tokenised examples of the kind of the task; rows: numbers of the prompts. label: for progress bars; none
    is shown without one. key: fingerprint of the responses; None for rows that are no whole split. withheld: nothing
    may be told of these rows; a score that is not a number counts as log mass 0.
    """

    session: Session
    config: RunConfig
    data: TaskData
    prompts: Any
    rows: Sequence[int]
    system: LanguageModel
    label: str
    timer: Timer
    key: str | None = None
    withheld: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this is the run's first process, which alone writes."""
        return self.session.accelerator(self.config.inference.device).is_main_process

    def model(self) -> torch.nn.Module:
        """The live model with the system's weights."""
        return fill(self.session, self.config, self.system, self.timer)

    def in_shards(self, score: Callable[[tuple[int, int]], tuple[list[int], Any]]) -> list[tuple[list[int], Any]]:
        """What `score((rank, processes))` returns in every process: places among `rows`, and their values."""
        accelerator = self.session.accelerator(self.config.inference.device)
        shard = (accelerator.process_index, accelerator.num_processes)
        return distributed.all_gather(distributed.run_on_all_ranks(lambda: score(shard)))

    def scored(self, score: Callable[..., tuple[list[int], Array]], batch_tokens: int, width: int) -> Array:
        """(n, width) float64: the rows scored by a function of `patientdx.lm`, divided among the processes."""

        def shard_scores(shard: tuple[int, int]) -> tuple[list[int], Array]:
            return score(
                self.model(), self.prompts, self.rows, batch_tokens=batch_tokens, shard=shard, label=self.label
            )

        scores = np.empty((len(self.rows), width))
        for places, values in self.in_shards(shard_scores):
            scores[places] = values
        self.timer.record("scoring")
        return scores

    def check_finite(self, scores: Array, expected: NDArray[np.bool_] | bool = True) -> Array:
        """The scores; UserError where one that is `expected` is not a number."""
        broken = ~np.isfinite(scores) & expected
        if broken.any() and self.withheld:
            return np.where(broken, 0.0, scores)
        if broken.any():
            raise UserError(
                f"the {self.system.role} model gives {int(broken.any(1).sum())} of {len(scores)} prompts a score "
                f"that is not a number in dtype={self.config.inference.dtype}. Use dtype=float32; if that does not "
                "help, a parent's weights are damaged."
            )
        return scores

    @contextmanager
    def saved_model(self) -> Iterator[Path]:
        """The system as a folder of the cache, which is deleted at the end."""
        config = self.config
        spec, weight = self.system.weights(self.session, config, self.timer)
        with TemporaryDirectory(dir=config.cache, prefix="vllm-") as name:
            target = Path(name) / "model"
            merge = self.session.recipe(spec, weight, config.cache)
            save_marked(merge, spec, target, config.cache, dtype=config.inference.dtype)
            self.timer.record("save")
            yield target


def save_marked(recipe: Any, spec: MergeSpec, target: Path, cache: Path, *, dtype: str | None = None) -> Path:
    """A merge written to disk, marked as one that holds patients where a parent does; returns its folder."""
    sources: tuple[ModelSource, ...] = (*spec.models, *(() if spec.ancestor is None else (spec.ancestor,)))
    folder = save(recipe, target, cache=cache, sources=sources, tokenizer=spec.tokenizer, dtype=dtype)
    return folder or target


def fill(session: Session, config: RunConfig, system: LanguageModel, timer: Timer) -> torch.nn.Module:
    """The live model with the system's weights."""
    spec, weight = system.weights(session, config, timer)
    parents = session.parents(config.merge_config.spec, config.cache)
    live = session.live(parents, config.inference, parents.number_of(spec.config_from))
    timer.record("load")
    curves = session.curves(spec, config.cache)
    spent = timer.record("curve")
    model = live.fill(session.recipe(spec, weight, config.cache), curves, (spec, weight))
    spent += timer.record("fill")
    if system.role == MERGED:
        timer.merging = max(spent, timer.merging or 0.0)  # it may be here already
    return model


def batch_tokens(session: Session, config: RunConfig, cpu: int = 1) -> int:
    """Padded tokens of a batch: as configured, else `cpu` on a CPU, where 1 is one prompt at a time."""
    on_cpu = session.accelerator(config.inference.device).device.type == "cpu"
    return config.inference.batch_tokens or (cpu if on_cpu else GPU_BATCH_TOKENS)


def cached(session: Session, config: RunConfig, key: str, n: int, make: Callable[[], Array]) -> Array:
    """The (n, k) float64 array under `key`; made and stored where it is missing. All processes of this run take part.

    Another run that needs the same array waits for it. Not if it is of several processes: there the others would
    wait for the first in an operation that has a time limit.
    """
    accelerator = session.accelerator(config.inference.device)
    first, store = accelerator.is_main_process, Store(config.output / "scores")
    scores = distributed.broadcast(store.load(key, n) if first else None)
    if scores is not None:
        return scores
    with exclusive_lock(store.path(key), wait=accelerator.num_processes == 1) if first else nullcontext():
        scores = distributed.broadcast(store.load(key, n) if first else None)
        if scores is None:
            scores = make()
            distributed.run_on_all_ranks(lambda: store.save(key, scores) if first else None)
    return scores
