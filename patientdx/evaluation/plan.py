"""A planned run: its systems, the rows of each split, and a fingerprint for every array of responses."""

from __future__ import annotations

from dataclasses import dataclass, field

from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.inference import Array, Timer
from patientdx.evaluation.kinds import Measures, TaskContext
from patientdx.evaluation.session import Session
from patientdx.evaluation.systems import System
from patientdx.tasks.example import TaskData


@dataclass(frozen=True)
class Plan:
    """One run. `keys` are fingerprints of responses by (role, split), `key` that of the run.

    The first of `systems` is the one that the run is about.
    """

    context: TaskContext
    systems: tuple[System, ...]
    keys: dict[tuple[str, str], str]
    key: str = ""

    @property
    def data(self) -> TaskData:
        """The task's examples."""
        return self.context.data

    @property
    def main(self) -> System:
        """The system that the run is about."""
        return self.systems[0]


@dataclass(frozen=True)
class Run:
    """A run in progress: `responses` (n, k) by (role, split), empty until they are computed."""

    session: Session
    config: RunConfig
    plan: Plan
    timer: Timer
    responses: dict[tuple[str, str], Array] = field(default_factory=dict)

    @property
    def is_first(self) -> bool:
        """Whether this is the run's first process, which alone writes."""
        return self.session.accelerator(self.config.inference.device).is_main_process

    def measures(self, role: str, split: str) -> Measures:
        """What metrics take of one system on one split."""
        context = self.plan.context
        return context.kind.measures(context, context.rows[split], self.responses[role, split])

    def reported(self) -> dict[str, Measures]:
        """The same of every system on the reported split, by role."""
        split = self.config.inference.reported
        return {role: self.measures(role, split) for role, name in self.plan.keys if name == split}
