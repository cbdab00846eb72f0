"""Systems that are tabular models, fitted on the train split of the task."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from patientdx.core import distributed
from patientdx.core.errors import UserError
from patientdx.core.functions import Call
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.inference import Array, Timer, cached
from patientdx.evaluation.kinds import TaskContext
from patientdx.evaluation.session import Session, features_of, train_rows
from patientdx.evaluation.store import fingerprint
from patientdx.tasks.example import TaskData

# Part of every fingerprint: raise it when the same inputs come to give other responses of a tabular model.
TABULAR = 1


@dataclass(frozen=True)
class Tabular:
    """A tabular model, fitted on the task's train split."""

    role: str
    call: Call
    identity: dict[str, Any]

    in_words: ClassVar[bool] = False
    is_reference: ClassVar[bool] = False

    def columns(self, config: RunConfig) -> dict[str, Any]:
        """It has neither λ nor parents."""
        return {"method": self.role, "lambda": None, "base": None, "pivot": None, "dtype": "float64"}

    def splits(self, config: RunConfig) -> tuple[str, ...]:
        """Those that it was not fitted on."""
        return tuple(split for split in config.inference.splits if split != "train")

    def key(self, session: Session, config: RunConfig, context: TaskContext, split: str) -> str:
        """Of the model, what it was fitted on, and the rows themselves."""
        return fingerprint(self.identity | {"scored": features_digest(context.data, context.rows[split])})

    def respond(
        self, session: Session, config: RunConfig, context: TaskContext, split: str, key: str, timer: Timer
    ) -> Array:
        """(n, 2) log masses; the first process alone fits and predicts."""
        rows = context.rows[split]

        def predict() -> Array:
            from patientdx.training.tabular import log_mass

            model = session.fitted(config.task_config.call, self.role, self.call, config.seed)
            return log_mass(model, features_of(context.data).values[rows])

        def make() -> Array:
            first = session.accelerator(config.inference.device).is_main_process
            scores = distributed.broadcast(distributed.run_on_all_ranks(lambda: predict() if first else None))
            timer.record("baselines")
            return scores

        return cached(session, config, key, len(rows), make)

    def provenance(self, config: RunConfig, context: TaskContext) -> dict[str, Any]:
        """What made it, and on how much it was fitted."""
        data = context.data
        train = [data.examples[i].label or 0 for i in train_rows(data)]
        part = {"name": self.role, "version": TABULAR, "function": self.call.target, "arguments": self.call.keywords,
                "seed": config.seed, "features": len(features_of(data).names), "fitted_on": "train", "n": len(train),
                "events": sum(train)}  # fmt: skip
        return {"baselines": [part]}

    def write(self, config: RunConfig, folder: Path, timer: Timer) -> None:
        """Nothing."""


def tabular_systems(config: RunConfig, data: TaskData) -> list[Tabular]:
    """The tabular models to fit. By default they are left out if there is nothing to fit them on."""
    names = ", ".join(name for name, _ in config.systems.baselines)
    scored = [split for split in config.inference.splits if split != "train"]
    if not names or (not config.systems.needs_features and (data.features is None or not scored)):
        return []
    if data.features is None:
        raise UserError(
            f"{names}: a tabular model is fitted on numbers, and task={config.task_config.name} gives none. Leave "
            "model and baselines out, or use a task that has features."
        )
    if not scored:
        raise UserError(
            f"{names}: a tabular model is fitted on train, so its scores there say nothing about it. Give another "
            "split, as in splits=[test]."
        )
    train = train_rows(data)
    positives = sum(data.examples[i].label or 0 for i in train)
    if positives in (0, len(train)):
        raise UserError(
            f"{names}: a tabular model needs both outcomes in the train split, which has {positives} positives and "
            f"{len(train) - positives} negatives. Use more stays, another seed or other task.fractions, or do without: "
            "baselines=[]."
        )
    infinite = np.isinf(features_of(data).values).any(axis=0)
    if infinite.any():
        columns = ", ".join(np.array(features_of(data).names)[infinite])
        raise UserError(f"{names}: these features of task={config.task_config.name} hold infinite values: {columns}.")
    digest = features_digest(data, train)
    systems = []
    for name, call in config.systems.baselines:
        identity = {"tabular": TABULAR, "model": call.identity, "arguments": call.arguments, "train": digest}
        if "seed" in inspect.signature(call.function).parameters:
            identity["seed"] = config.seed
        systems.append(Tabular(name, call, identity))
    return systems


def features_digest(data: TaskData, rows: Sequence[int]) -> str:
    """sha256 of features and labels of some rows, in their order."""
    values = np.ascontiguousarray(features_of(data).values[rows], dtype=np.float64)
    values[np.isnan(values)] = np.nan  # NaN has many bit patterns
    digest = hashlib.sha256(
        repr((features_of(data).names, values.shape, [data.examples[i].label for i in rows])).encode()
    )
    digest.update(values.tobytes())
    return digest.hexdigest()
