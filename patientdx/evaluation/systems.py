"""What responds to a task: a merge at λ, a parent, a fine-tuned model, a tabular model, the first stage of a search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.inference import Array, Timer
from patientdx.evaluation.kinds import TaskContext, ranking_of
from patientdx.evaluation.language_systems import finetuned_system, merges
from patientdx.evaluation.session import Session
from patientdx.evaluation.store import fingerprint
from patientdx.evaluation.tabular_systems import tabular_systems

FIRST_STAGE = "bm25"  # role and method of the first stage's own order


class System(Protocol):
    """One system of a run.

    Attributes:
        in_words: whether it is a language model, which can abstain.
        is_reference: whether all other systems are compared with it.
    """

    @property
    def role(self) -> str:
        """What rows and files call it."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """What its responses depend on, beside the task."""
        ...

    in_words: ClassVar[bool]
    is_reference: ClassVar[bool]

    def columns(self, config: RunConfig) -> dict[str, Any]:
        """Columns of a row of results: method, lambda, base, pivot and dtype."""
        ...

    def splits(self, config: RunConfig) -> tuple[str, ...]:
        """The splits that it responds to."""
        ...

    def key(self, session: Session, config: RunConfig, context: TaskContext, split: str) -> str:
        """Fingerprint of its responses to a split."""
        ...

    def respond(
        self, session: Session, config: RunConfig, context: TaskContext, split: str, key: str, timer: Timer
    ) -> Array:
        """(n, k) float64: its responses to the rows of a split; all processes take part."""
        ...

    def provenance(self, config: RunConfig, context: TaskContext) -> dict[str, Any]:
        """What was fitted or trained, under the name of its part of provenance.json."""
        ...

    def write(self, config: RunConfig, folder: Path, timer: Timer) -> None:
        """Write what is to be in the result folder beside metrics and predictions."""
        ...


@dataclass(frozen=True)
class FirstStage:
    """The order in which the first stage of a search found the candidates of each query."""

    role: str = FIRST_STAGE

    in_words: ClassVar[bool] = False
    is_reference: ClassVar[bool] = True

    @property
    def identity(self) -> dict[str, Any]:
        """The task holds its scores."""
        return {"first_stage": self.role}

    def columns(self, config: RunConfig) -> dict[str, Any]:
        """It has neither λ nor parents."""
        return {"method": self.role, "lambda": None, "base": None, "pivot": None, "dtype": "float32"}

    def splits(self, config: RunConfig) -> tuple[str, ...]:
        """All."""
        return config.inference.splits

    def key(self, session: Session, config: RunConfig, context: TaskContext, split: str) -> str:
        """Of the task and the split."""
        return fingerprint(self.identity | {"task": context.data.fingerprint, "split": split})

    def respond(
        self, session: Session, config: RunConfig, context: TaskContext, split: str, key: str, timer: Timer
    ) -> Array:
        """(n, 1): its scores."""
        scores = ranking_of(context.data).first_stage
        return np.array([[scores[i]] for i in context.rows[split]], dtype=np.float64)

    def provenance(self, config: RunConfig, context: TaskContext) -> dict[str, Any]:
        """Nothing: the task's provenance has it."""
        return {}

    def write(self, config: RunConfig, folder: Path, timer: Timer) -> None:
        """Nothing."""


def systems_of(session: Session, config: RunConfig, context: TaskContext) -> tuple[System, ...]:
    """The systems of a run, the one that it is about first; UserError where one cannot be made for this task."""
    systems: list[System] = []
    if context.parents is not None:
        systems += merges(config, context.parents)
        if config.finetune is not None:
            systems.append(finetuned_system(session, config, context))
    systems += tabular_systems(config, context.data)
    if context.data.ranking is not None:
        systems.append(FirstStage())
    return tuple(systems)
