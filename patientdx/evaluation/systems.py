"""What responds to a task: a merge at λ, a parent, a fine-tuned model, a tabular model, the first stage of a search."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from patientdx.checkpoints.identity import content_hash
from patientdx.core import distributed
from patientdx.core.errors import UserError
from patientdx.core.functions import Call
from patientdx.evaluation import finetuned
from patientdx.evaluation.config.merge import MergeSpec
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.inference import MERGED, Array, Request, Timer, cached
from patientdx.evaluation.kinds import TaskContext, ranking_of
from patientdx.evaluation.session import Parents, Session, features_of, train_rows
from patientdx.evaluation.store import fingerprint
from patientdx.merge.method import method_spec
from patientdx.merge.schedule import Schedule, label
from patientdx.tasks.example import TaskData
from patientdx.training.job import Job

# Part of every fingerprint: raise it when the same inputs come to give other responses of a language model, of a
# tabular model.
SCORING = 2
TABULAR = 1

FINETUNED = "finetuned"  # role
FIRST_STAGE = "bm25"  # role and method of the first stage's own order

# A parent is an end of the straight line, which needs no statistics.
_LINE = Call("patientdx.merge.linear.linear", "{}")


class System(Protocol):
    """One system of a run.

    Attributes:
        role: what rows and files call it.
        identity: what its responses depend on, beside the task.
        in_words: whether it is a language model, which can abstain.
        is_reference: whether all other systems are compared with it.
    """

    @property
    def role(self) -> str: ...
    @property
    def identity(self) -> dict[str, Any]: ...

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


class WeightsSystem:
    """What systems share whose weights are a point on a curve."""

    in_words: ClassVar[bool] = True
    is_reference: ClassVar[bool] = False
    role: str
    identity: dict[str, Any]

    def weights(self, session: Session, config: RunConfig, timer: Timer) -> tuple[MergeSpec, Schedule | None]:
        """The merge that makes its weights, and λ."""
        raise NotImplementedError

    def splits(self, config: RunConfig) -> tuple[str, ...]:
        """All."""
        return config.inference.splits

    def key(self, session: Session, config: RunConfig, context: TaskContext, split: str) -> str:
        """Of everything that responses depend on. The base lends architecture and tokenizer to all."""
        return response_key(session, config, context, self.identity, context.prompts.fingerprint, split)

    def respond(
        self, session: Session, config: RunConfig, context: TaskContext, split: str, key: str, timer: Timer
    ) -> Array:
        """As the task's kind has it; from the store where it is there."""
        rows, title = context.rows[split], f"{self.role} {split}"
        request = Request(session, config, context.data, context.prompts, rows, self, title, timer, key)
        return cached(session, config, key, len(rows), lambda: context.kind.respond(request))

    def provenance(self, config: RunConfig, context: TaskContext) -> dict[str, Any]:
        """Nothing: the merge has a part of its own."""
        return {}

    def write(self, config: RunConfig, folder: Path, timer: Timer) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Merge(WeightsSystem):
    """A merge at λ = `weight`; a parent is an end of the straight line between the two, and has no `method`."""

    role: str
    method: str | None
    weight: Schedule | None
    identity: dict[str, Any]
    spec: MergeSpec

    def columns(self, config: RunConfig) -> dict[str, Any]:
        """Several λ in one model have no place on an axis: they go with the method's name."""
        method, weight = self.method, self.weight
        if weight is not None and not isinstance(weight, float):
            method, weight = f"{method} {label(weight)}", None
        return {"method": method, "lambda": weight} | _language_columns(config)

    def weights(self, session: Session, config: RunConfig, timer: Timer) -> tuple[MergeSpec, Schedule | None]:
        """The curve, and λ."""
        return self.spec, self.weight


@dataclass(frozen=True)
class Finetuned(WeightsSystem):
    """A fine-tuned model: `job` makes it, `trained_on` are the numbers of the examples that it was trained on."""

    role: str
    title: str
    job: Job
    trained_on: tuple[int, ...]
    identity: dict[str, Any]

    def columns(self, config: RunConfig) -> dict[str, Any]:
        """The title is the method."""
        return {"method": self.title, "lambda": None} | _language_columns(config)

    def weights(self, session: Session, config: RunConfig, timer: Timer) -> tuple[MergeSpec, Schedule | None]:
        """A merge of the trained model alone."""
        spec = finetuned.merge_spec(session, config, self.job)
        timer.record("training")
        return spec, None

    def provenance(self, config: RunConfig, context: TaskContext) -> dict[str, Any]:
        """What was trained on what, and what that took."""
        return {"finetune": finetuned.provenance(config, self.job, self.trained_on, context)}

    def write(self, config: RunConfig, folder: Path, timer: Timer) -> None:
        """What training took."""
        finetuned.write_cost(config, self.job, folder, timer.merging)


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
            systems.append(_finetuned(session, config, context))
    systems += _tabular(config, context.data)
    if context.data.ranking is not None:
        systems.append(FirstStage())
    return tuple(systems)


def language_model(system: System) -> WeightsSystem:
    """The system as one whose weights can be loaded; TypeError for another."""
    if not isinstance(system, WeightsSystem):
        raise TypeError(f"{system.role} is no language model")
    return system


def response_key(
    session: Session, config: RunConfig, context: TaskContext, identity: dict, prompts: str, split: str
) -> str:
    """Fingerprint of a language model's responses to the prompts with that fingerprint."""
    version = context.kind.version
    return fingerprint(
        {
            "scoring": SCORING,
            "model": identity,
            "base": context.opened.hashes[0],
            "dtype": config.inference.dtype,
            "device": session.accelerator(config.inference.device).device.type,
            "batch_tokens": config.inference.batch_tokens,
            "task": context.data.fingerprint,
            "split": split,
            "tokens": prompts,
        }
        | ({} if version is None else {"kind": [context.kind.name, version], "generator": config.inference.generator})
    )


def merges(config: RunConfig, parents: Parents) -> list[Merge]:
    """The merged model and its parents. An end of the curve is its parent: it has the parent's identity and scores."""
    spec = config.merge_config.spec
    systems = [Merge(MERGED, config.merge_config.name, config.weight, merge_identity(config, parents), spec)]
    if config.systems.parents:
        pair = MergeSpec((config.merge_config.base, config.merge_config.pivot), _LINE, tokenizer=spec.tokenizer)
        for place, role in enumerate(("base", "pivot")):
            systems.append(Merge(role, None, float(place), {"parent": parents.hashes[place]}, pair))
    return systems


def merge_identity(config: RunConfig, parents: Parents) -> dict[str, Any]:
    """What the merged model's responses depend on: the parent's where it is one, else all that it is made of."""
    merge, weight = config.merge_config.spec.call, config.weight
    ends = method_spec(merge.function).exact_ends
    # With further parents only the base is an end.
    if ends is not None and (weight == 0.0 or (weight == 1.0 and len(config.merge_config.spec.models) == 2)):
        return {"parent": parents.hashes[ends[0 if weight == 0.0 else 1]]}
    identity = {"merge": merge.target, "arguments": merge.arguments, "weight": weight, "parents": list(parents.hashes)}
    if parents.ancestor is not None:
        identity["ancestor"] = content_hash(parents.ancestor, config.cache)
    if "seed" in inspect.signature(merge.function).parameters:
        identity["seed"] = config.seed
    if config.merge_config.spec.tokenizer is not None:
        identity["tokenizer"] = config.merge_config.spec.tokenizer
    return identity


def features_digest(data: TaskData, rows: Sequence[int]) -> str:
    """sha256 of features and labels of some rows, in their order."""
    values = np.ascontiguousarray(features_of(data).values[rows], dtype=np.float64)
    values[np.isnan(values)] = np.nan  # NaN has many bit patterns
    digest = hashlib.sha256(
        repr((features_of(data).names, values.shape, [data.examples[i].label for i in rows])).encode()
    )
    digest.update(values.tobytes())
    return digest.hexdigest()


def _language_columns(config: RunConfig) -> dict[str, Any]:
    return {
        "base": config.merge_config.base.name,
        "pivot": config.merge_config.pivot.name,
        "dtype": config.inference.dtype,
    }


def _finetuned(session: Session, config: RunConfig, context: TaskContext) -> Finetuned:
    """The fine-tuned model. λ is among what it depends on if training starts from the merge."""
    parents = {"base": {"parent": context.opened.hashes[0]}, "pivot": {"parent": context.opened.hashes[1]}}
    start = parents.get(config.finetune_config.init_from) or merge_identity(config, context.opened)
    rows = tuple(finetuned.rows(config.finetune_config, context))
    job = finetuned.job(session, config, context, start, rows=rows, with_canaries=True)
    return Finetuned(FINETUNED, finetuned.title(config), job, rows, {"finetuned": job.key})


def _tabular(config: RunConfig, data: TaskData) -> list[Tabular]:
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
        identity = {"tabular": TABULAR, "model": call.target, "arguments": call.arguments, "train": digest}
        if "seed" in inspect.signature(call.function).parameters:
            identity["seed"] = config.seed
        systems.append(Tabular(name, call, identity))
    return systems
