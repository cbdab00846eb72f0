"""Systems that are language models: a merge at λ, a parent, a fine-tuned model."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from patientdx.evaluation import finetuned
from patientdx.evaluation.config.merge import MergeSpec
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.inference import MERGED, Array, Request, Timer, cached
from patientdx.evaluation.kinds import TaskContext
from patientdx.evaluation.session import Parents, Session
from patientdx.evaluation.store import fingerprint
from patientdx.merge.method import method_spec
from patientdx.merge.schedule import Schedule, label
from patientdx.training.job import Job

# Part of every fingerprint: raise it when the same inputs come to give other responses of a language model.
SCORING = 3

FINETUNED = "finetuned"  # role


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
        """Several λ in one model have no place on an axis: they go with the method's name.

        A parent has no method, but for what its weights were quantised to.
        """
        method, weight = self.method or config.inference.load, self.weight
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


def language_model(system: object) -> WeightsSystem:
    """The system as one whose weights can be loaded; TypeError for another."""
    if not isinstance(system, WeightsSystem):
        raise TypeError(f"{type(system).__name__} is no language model")
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
            "device": session.accelerator(config.inference.device).device.type,
            "batch_tokens": config.inference.batch_tokens,
            "task": context.data.fingerprint,
            "split": split,
            "tokens": prompts,
        }
        | config.inference.identity
        | ({} if version is None else {"kind": [context.kind.name, version], "generator": config.inference.generator})
    )


def merges(config: RunConfig, parents: Parents) -> list[Merge]:
    """The merged model and its parents. An end of the curve is its parent: it has the parent's identity and scores."""
    spec = config.merge_config.spec
    systems = [Merge(MERGED, config.method, config.weight, merge_identity(config, parents), spec)]
    if config.systems.parents:
        for end, role in enumerate(("base", "pivot")):
            pair = parents.spec_of(role, config.merge_config.spec)
            systems.append(Merge(role, None, float(end), {"parent": parents.hashes[end]}, pair))
    return systems


def merge_identity(config: RunConfig, parents: Parents) -> dict[str, Any]:
    """What the merged model's responses depend on: the parent's where it is one, else all that it is made of."""
    merge, weight = config.merge_config.spec.call, config.weight
    ends = method_spec(merge.function).exact_ends
    # With further parents only the base is an end.
    # An end of the curve may be a parent's weights under the other's configuration.
    alike = parents.number_of(config.merge_config.config_from) in (None, weight)
    if alike and ends is not None and (weight == 0.0 or (weight == 1.0 and len(config.merge_config.spec.models) == 2)):
        return {"parent": parents.hashes[ends[0 if weight == 0.0 else 1]]}
    identity = {
        "merge": merge.identity,
        "arguments": merge.arguments,
        "weight": weight,
        "parents": list(parents.hashes),
    }
    if parents.ancestor is not None:
        identity["ancestor"] = parents.ancestor_hash
    if "seed" in inspect.signature(merge.function).parameters:
        identity["seed"] = config.seed
    if config.merge_config.spec.tokenizer is not None:
        identity["tokenizer"] = config.merge_config.spec.tokenizer
    if parents.differences:
        identity["config_from"] = config.merge_config.config_from
    return identity


def finetuned_system(session: Session, config: RunConfig, context: TaskContext) -> Finetuned:
    """The fine-tuned model. λ is among what it depends on if training starts from the merge."""
    parents = {"base": {"parent": context.opened.hashes[0]}, "pivot": {"parent": context.opened.hashes[1]}}
    start = parents.get(config.finetune_config.init_from) or merge_identity(config, context.opened)
    rows = tuple(finetuned.rows(config.finetune_config, context))
    job = finetuned.job(session, config, context, start, rows=rows, with_canaries=True)
    return Finetuned(FINETUNED, finetuned.title(config), job, rows, {"finetuned": job.key})


def _language_columns(config: RunConfig) -> dict[str, Any]:
    return {
        "base": config.merge_config.base.name,
        "pivot": config.merge_config.pivot.name,
        "dtype": config.inference.precision,
    }
