"""The sections of a run's configuration as frozen, typed values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from patientdx.checkpoints.source import ModelSource
from patientdx.core.functions import Call
from patientdx.evaluation.config.finetune import FinetuneConfig
from patientdx.evaluation.config.privacy import PrivacyConfig
from patientdx.evaluation.config.search import SearchConfig
from patientdx.merge.schedule import Schedule

MERGED = "merged"  # the model that is none of conf/model's tabular ones


class Section(BaseModel):
    """A part of the configuration, immutable."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)


@dataclass(frozen=True)
class MergeSpec:
    """What a curve is made of, as a key: parents (base first), method, their common ancestor, vocabulary, seed.

    layers: how many the parents must have, where a mergekit recipe counts them.
    """

    models: tuple[ModelSource, ...]
    call: Call
    ancestor: ModelSource | None = None
    tokenizer: str | None = None
    seed: int = 0
    layers: int | None = None


class MergeConfig(Section):
    """The merged model: `name` of the method, what the curve is made of, and λ (None for a method without)."""

    name: str
    spec: MergeSpec
    weight: Schedule | None

    @property
    def base(self) -> ModelSource:
        """The parent at λ=0, which gives architecture and tokenizer."""
        return self.spec.models[0]

    @property
    def pivot(self) -> ModelSource:
        """The parent at λ=1."""
        return self.spec.models[1]


class SaveConfig(Section):
    """Where the merged model is written (`folder`, None: nowhere) and as what; dry_run only reports what it takes."""

    folder: Path | None
    dtype: str | None
    patients: bool
    dry_run: bool


class TaskConfig(Section):
    """What is asked: `call` makes the task's data; `metrics` are pairs of label and dotted name."""

    name: str
    kind: str
    call: Call
    metrics: tuple[tuple[str, str], ...]


class SystemsConfig(Section):
    """What is scored: `model` is merged or a tabular model, scored alone; `baselines` are tabular models beside it.

    needs_features: tabular models were asked for by name, so that a task without features is refused. parents: score
    the base and the pivot too.
    """

    model: str
    baselines: tuple[tuple[str, Call], ...]
    parents: bool
    needs_features: bool


class AnalysesConfig(Section):
    """Which analyses follow: the clinical evaluation, the question's other wordings, measures of leakage."""

    clinical: bool
    prompt_variants: bool
    privacy: PrivacyConfig


class InferenceConfig(Section):
    """Which splits are scored, and how a language model is run. max_tokens and batch_tokens count tokens."""

    splits: tuple[str, ...]
    device: str
    device_map: str | None
    generator: str
    dtype: str
    max_tokens: int
    batch_tokens: int | None

    @property
    def reported(self) -> str:
        """The split whose numbers go by the task's own name: the last."""
        return self.splits[-1]


class BootstrapConfig(Section):
    """How intervals are drawn."""

    resamples: int
    level: float
    seed: int

    @property
    def keywords(self) -> dict[str, Any]:
        """Keywords of the functions of `metrics.bootstrap`."""
        return self.model_dump()


class RunConfig(Section):
    """One run. `composed` is the resolved Hydra config, for the record; task is None where nothing is scored.

    merge is None where only a tabular model runs.
    """

    name: str
    seed: int
    output: Path
    cache: Path
    merge: MergeConfig | None
    save: SaveConfig
    task: TaskConfig | None
    systems: SystemsConfig
    analyses: AnalysesConfig
    inference: InferenceConfig
    bootstrap: BootstrapConfig
    finetune: FinetuneConfig | None
    search: SearchConfig | None
    tracking: dict[str, Any]
    composed: dict[str, Any]

    @property
    def merge_config(self) -> MergeConfig:
        """The merge; ValueError for a run without one."""
        if self.merge is None:
            raise ValueError(f"model={self.systems.model} is no merge")
        return self.merge

    @property
    def task_config(self) -> TaskConfig:
        """The task; ValueError for a run without one."""
        if self.task is None:
            raise ValueError("task=none asks nothing")
        return self.task

    @property
    def method(self) -> str:
        """What made the model that the run is about: a merge method, or a tabular model."""
        return self.systems.model if self.merge is None else self.merge.name

    @property
    def weight(self) -> Schedule | None:
        """λ; None for a method without, and without a merge."""
        return None if self.merge is None else self.merge.weight

    def with_merge(self, weight: Schedule | None, **changes: Any) -> RunConfig:
        """The same run at another λ; `changes` are fields of its `MergeSpec`, such as models or call."""
        assert self.merge is not None
        update = {"weight": weight, "spec": replace(self.merge.spec, **changes)}
        return self.model_copy(update={"merge": self.merge.model_copy(update=update)})
