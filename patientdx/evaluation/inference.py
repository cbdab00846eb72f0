"""Answers of one model to some rows: from the store where they are there, worked out and kept where they are not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import torch

from patientdx.core import distributed
from patientdx.core.errors import UserError
from patientdx.core.locks import exclusive_lock
from patientdx.evaluation import finetuned, session
from patientdx.evaluation.config.sections import MERGED, RunConfig
from patientdx.evaluation.merge_inputs import curves, parents_of, recipe
from patientdx.evaluation.plan import Plan, System
from patientdx.evaluation.store import Store
from patientdx.lm.binary import Scores, score
from patientdx.lm.multiple_choice import OptionPrompts, score_options
from patientdx.lm.prompts import Prompts
from patientdx.lm.ranking import PairPrompts
from patientdx.training.tabular import log_mass

# Padded tokens of a batch on a GPU; on a CPU, too, where text is written: each new token reads all of the weights.
GPU_BATCH_TOKENS = 16384
CPU_BATCH_TOKENS = 256  # padded tokens of a batch of short questions on a CPU; longer ones are faster one at a time


class Timer:
    """Seconds spent in each phase of a run; `merging`: those of making the merged model, None where it was not made."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.merging: float | None = None
        self._last = time.monotonic()

    def lap(self, phase: str) -> float:
        """Count the time since the last call to `phase`, and return it."""
        now = time.monotonic()
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + now - self._last, 3)
        spent, self._last = now - self._last, now
        return spent


def kept(config: RunConfig, key: str, n: int, make: Callable[[], np.ndarray]) -> Scores:
    """The n scores under `key`; made and stored where they are not there. All processes of this run take part.

    Another run that needs the same scores waits for them. Not if it is of several processes: there the others would
    wait for the first at a place where they may not wait long.
    """
    where = session.accelerator(config.inference.device)
    first, store = where.is_main_process, Store(config.output / "scores")
    found = distributed.broadcast(store.load(key, n) if first else None)
    if found is not None:
        return Scores(found)
    with exclusive_lock(store.path(key), wait=where.num_processes == 1) if first else nullcontext():
        found = distributed.broadcast(store.load(key, n) if first else None)
        if found is None:
            found = make()
            distributed.run_on_all_ranks(lambda: store.save(key, found) if first else None)
    return Scores(found)


def predict(config: RunConfig, asked: Plan, point: System, rows: Sequence[int], clock: Timer) -> np.ndarray:
    """(n, 2) float64: log masses of a tabular model, fitted and asked by the first process alone."""

    def ask() -> np.ndarray:
        model = session.fitted(config.task.call, point.role, point.tabular, config.seed)
        return log_mass(model, asked.data.features.values[rows])

    first = session.accelerator(config.inference.device).is_main_process
    scores = distributed.broadcast(distributed.run_on_all_ranks(lambda: ask() if first else None))
    clock.lap("baselines")
    return scores


def filled(config: RunConfig, point: System, clock: Timer) -> torch.nn.Module:
    """The live model, holding the point; a fine-tuned one is trained before, unless it is there."""
    merge_spec = point.merge_spec
    if point.job is not None:
        merge_spec = finetuned.merge_spec(config, point.job)
        clock.lap("training")
    opened = parents_of(config.merge.spec, config.cache)
    folder = opened.checkpoints[0].folder
    live = session.live(
        folder, opened.names, config.inference.dtype, config.inference.device, config.inference.device_map
    )
    clock.lap("load")
    shape = curves(merge_spec, config.cache)
    spent = clock.lap("curve")
    found = recipe(merge_spec, point.weight, config.cache)
    model = live.fill(found, shape, (merge_spec, point.weight))
    spent += clock.lap("fill")
    if point.role == MERGED:
        clock.merging = max(spent, clock.merging or 0.0)  # it may be here already
    return model


def batch_tokens(config: RunConfig, cpu: int = 1) -> int:
    """Padded tokens of a batch: as asked for, else `cpu` on a CPU, where 1 is one prompt at a time."""
    return config.inference.batch_tokens or (
        cpu if session.accelerator(config.inference.device).device.type == "cpu" else GPU_BATCH_TOKENS
    )


def answer(
    config: RunConfig, point: System, tokens: Prompts | OptionPrompts, rows: Sequence[int], label: str, clock: Timer
) -> np.ndarray:
    """(n, options) float64: fill the live model with the point and score, sharing the rows among processes.

    NaN where a question has fewer options than another.
    """
    where = session.accelerator(config.inference.device)
    several = isinstance(tokens, OptionPrompts)
    ask = score_options if several else score
    long = several or isinstance(tokens, PairPrompts)

    def share() -> tuple[list[int], np.ndarray]:
        return ask(
            filled(config, point, clock),
            tokens,
            rows,
            batch_tokens=batch_tokens(config, CPU_BATCH_TOKENS if long else 1),
            shard=(where.process_index, where.num_processes),
            label=label,
        )

    scores = np.empty((len(rows), tokens.width if several else len(tokens.options)))
    for places, values in distributed.all_gather(distributed.run_on_all_ranks(share)):
        scores[places] = values
    clock.lap("scoring")
    odd = ~np.isfinite(scores)
    if several:
        odd &= np.arange(tokens.width) < np.array([[len(tokens.continuations[i])] for i in rows])
    if odd.any():
        raise UserError(
            f"the {point.role} model gives {int(odd.any(1).sum())} of {len(scores)} prompts a score "
            f"that is not a number in dtype={config.inference.dtype}. Use dtype=float32; if that does not help, a parent's "
            "weights are damaged."
        )
    return scores
