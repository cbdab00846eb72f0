"""Systems that are tabular models or severity scores, fitted on train, or on train and pilot."""

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
from patientdx.evaluation.session import Session, fit_rows, fitted_on, has_inputs, inputs_of
from patientdx.evaluation.store import Store, fingerprint
from patientdx.records.features import Features
from patientdx.tasks.example import TaskData

# Part of every fingerprint: raise it when the same inputs come to give other responses of a tabular model.
TABULAR = 1


@dataclass(frozen=True)
class Tabular:
    """A tabular model or a severity score, fitted on the splits that it names, by default train."""

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
        return _scored(self.call, config)

    def key(self, session: Session, config: RunConfig, context: TaskContext, split: str) -> str:
        """Of the model, what it was fitted on, and the rows themselves."""
        return fingerprint(self.identity | {"scored": _digest(context.data, self.call, context.rows[split])})

    def respond(
        self, session: Session, config: RunConfig, context: TaskContext, split: str, key: str, timer: Timer
    ) -> Array:
        """(n, 2) log masses; the first process alone fits and predicts."""
        rows = context.rows[split]

        def predict() -> Array:
            from patientdx.training.tabular import chosen, log_mass

            model = session.fitted(config.task_config.call, self.role, self.call, config.seed)
            if choice := chosen(model):
                self._store(config).save(self._choice_key, np.array([list(choice.values())]))
            return log_mass(model, inputs_of(context.data, self.call).values[rows])

        def make() -> Array:
            first = session.accelerator(config.inference.device).is_main_process
            scores = distributed.broadcast(distributed.run_on_all_ranks(lambda: predict() if first else None))
            timer.record("baselines")
            return scores

        return cached(session, config, key, len(rows), make)

    def provenance(self, config: RunConfig, context: TaskContext) -> dict[str, Any]:
        """What made it, and on how much it was fitted."""
        data, splits = context.data, fitted_on(self.call)
        labels = [data.examples[i].label or 0 for i in fit_rows(data, splits)]
        part = {"name": self.role, "version": TABULAR, "function": self.call.target, "arguments": self.call.keywords,
                "seed": config.seed, "features": len(inputs_of(data, self.call).names), "fitted_on": "+".join(splits),
                "n": len(labels), "events": sum(labels)}  # fmt: skip
        choice = self._store(config).load(self._choice_key, 1) if "fit_on" in self.call.keywords else None
        if choice is not None:
            from patientdx.training.tabular import choices

            part["chosen"] = dict(zip(choices(self.call.keywords), choice[0].tolist(), strict=True))
        score = self.call.keywords.get("score")
        if score is not None and data.severity_points is not None:
            part["missing_components"] = _missing(data.severity_points, score)
        return {"baselines": [part]}

    @property
    def _choice_key(self) -> str:
        """Under which the chosen hyperparameters stand beside the responses, as those are kept without the model."""
        return fingerprint(self.identity | {"chosen": True})

    def _store(self, config: RunConfig) -> Store:
        return Store(config.output / "scores")

    def write(self, config: RunConfig, folder: Path, timer: Timer) -> None:
        """Nothing."""


def tabular_systems(config: RunConfig, data: TaskData) -> list[Tabular]:
    """The tabular models to fit. By default those are left out that there is nothing to fit on, or to score."""
    named, baselines = config.systems.needs_features, config.systems.baselines
    usable = [(name, call) for name, call in baselines if has_inputs(data, call) and _scored(call, config)]
    if named:
        _check_named(config, data)
    systems = []
    for splits in dict.fromkeys(fitted_on(call) for _, call in usable):
        of_splits = [(name, call) for name, call in usable if fitted_on(call) == splits]
        rows = _checked_rows(of_splits, data, splits)
        systems += [Tabular(name, call, _identity(config, data, call, rows)) for name, call in of_splits]
    order = [name for name, _ in usable]
    return sorted(systems, key=lambda system: order.index(system.role))


def _scored(call: Call, config: RunConfig) -> tuple[str, ...]:
    """The splits that a model is scored on: those that it was not fitted on."""
    return tuple(split for split in config.inference.splits if split not in {"train", *fitted_on(call)})


def _check_named(config: RunConfig, data: TaskData) -> None:
    """UserError where a model that was named cannot be fitted or scored."""
    baselines, task = config.systems.baselines, config.task_config.name
    without = [name for name, call in baselines if not has_inputs(data, call)]
    if without:
        raise UserError(
            f"{', '.join(without)}: a tabular model is fitted on numbers, and task={task} gives none. Leave "
            "model and baselines out, or use a task that has features."
        )
    unscored = [(name, " and ".join(fitted_on(call))) for name, call in baselines if not _scored(call, config)]
    if unscored:
        raise UserError(
            f"{', '.join(name for name, _ in unscored)}: a tabular model is fitted on {unscored[0][1]}, so its scores "
            "there say nothing about it. Give another split, as in splits=[test]."
        )


def _checked_rows(models: Sequence[tuple[str, Call]], data: TaskData, splits: Sequence[str]) -> list[int]:
    """The rows of a fit; UserError where they lack an outcome or hold infinite features."""
    rows, names = fit_rows(data, splits), ", ".join(name for name, _ in models)
    positives = sum(data.examples[i].label or 0 for i in rows)
    if positives in (0, len(rows)):
        raise UserError(
            f"{names}: a tabular model needs both outcomes in the {' and '.join(splits)} split, which has {positives} "
            f"positives and {len(rows) - positives} negatives. Use more stays, another seed or other task.fractions, "
            "or do without: baselines=[]."
        )
    for table in {id(table): table for table in (inputs_of(data, call) for _, call in models)}.values():
        infinite = np.isinf(table.values).any(axis=0)
        if infinite.any():
            columns = ", ".join(np.array(table.names)[infinite])
            raise UserError(f"{names}: these features of task={data.name} hold infinite values: {columns}.")
    return rows


def _identity(config: RunConfig, data: TaskData, call: Call, rows: Sequence[int]) -> dict[str, Any]:
    """What the responses of a model depend on, beside the rows that it is scored on."""
    digest = _digest(data, call, rows)
    identity = {"tabular": TABULAR, "model": call.identity, "arguments": call.arguments, "train": digest}
    if "fit_on" in call.keywords:  # tuned: the folds depend on the patients too
        identity["patients"] = hashlib.sha256(repr([data.examples[i].subject for i in rows]).encode()).hexdigest()
    if "seed" in inspect.signature(call.function).parameters:
        identity["seed"] = config.seed
    return identity


def _digest(data: TaskData, call: Call, rows: Sequence[int]) -> str:
    """sha256 of a model's inputs and the labels of some rows, in their order."""
    table = inputs_of(data, call)
    values = np.ascontiguousarray(table.values[rows], dtype=np.float64)
    values[np.isnan(values)] = np.nan  # NaN has many bit patterns
    digest = hashlib.sha256(repr((table.names, values.shape, [data.examples[i].label for i in rows])).encode())
    digest.update(values.tobytes())
    return digest.hexdigest()


def _missing(points: Features, score: str) -> dict[str, float]:
    """How many components of a score counted as normal because they were missing: mean, and stays that had any."""
    missing = points.column(f"{score} missing").values[:, 0]
    return {"mean": float(missing.mean()), "stays": int((missing > 0).sum()), "of": len(missing)}
