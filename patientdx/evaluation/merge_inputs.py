"""Parents and curves of a merge, each opened or worked out once in a process; no model is run here.

Needs neither transformers nor accelerate, so that a merge to disk starts at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from patientdx.checkpoints.compatibility import align
from patientdx.checkpoints.identity import content_hash
from patientdx.checkpoints.merge_plan import Recipe
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.source import ModelSource, locate, open_checkpoint
from patientdx.checkpoints.vocabulary import common_vocabulary
from patientdx.core.errors import UserError
from patientdx.core.threads import workers
from patientdx.evaluation.config.sections import MergeSpec
from patientdx.merge.curve import Curve
from patientdx.merge.schedule import Schedule, depth


@dataclass(frozen=True)
class Parents:
    """Parents opened by their headers, base first, and the names of the tensors to merge.

    `ancestor` is None where the method asks for none.
    """

    checkpoints: tuple[Checkpoint, ...]
    names: tuple[str, ...]
    ancestor: Checkpoint | None
    cache: Path

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """Content hash of each parent; worked out once and remembered in the cache."""
        return tuple(content_hash(checkpoint, self.cache) for checkpoint in self.checkpoints)


@lru_cache(maxsize=4)
def parents(
    models: tuple[ModelSource, ...],
    cache: Path,
    ancestor: ModelSource | None = None,
    tokenizer: str | None = None,
    adapt: bool = False,
) -> Parents:
    """Locate and open the parents; UserError unless every tensor and the vocabulary agree.

    tokenizer: base, pivot or union bring their vocabularies to one.
    adapt: apply LoRA adapters as tensors are read, instead of opening an adapted copy on disk. It costs a model's
    memory where all tensors are held, and saves a model's disk where each is read once.
    """
    sources = (*models, *(() if ancestor is None or ancestor in models else (ancestor,)))
    opened = tuple(open_checkpoint(model, cache) if adapt else Checkpoint(locate(model, cache)) for model in sources)
    called = [model.name for model in sources]
    if tokenizer is not None:
        vocabulary = common_vocabulary(opened[: len(models)], called[: len(models)], tokenizer, cache)
        opened = tuple(vocabulary.view(one, name) for one, name in zip(opened, called, strict=True))
    names = align(opened, called)
    origin = None if ancestor is None else opened[sources.index(ancestor)]
    return Parents(opened[: len(models)], tuple(names), origin, cache)


def parents_of(merge_spec: MergeSpec, cache: Path, *, adapt: bool = False) -> Parents:
    """The parents of a merge, opened once for all merges that have the same; see `parents`."""
    return parents(merge_spec.models, cache, merge_spec.ancestor, merge_spec.tokenizer, adapt)


def recipe(merge_spec: MergeSpec, weight: Schedule | None, cache: Path, *, adapt: bool = False) -> Recipe:
    """The merge of the parents at λ = `weight`; UserError where the method lacks something. adapt: see `parents`."""
    found = parents_of(merge_spec, cache, adapt=adapt)
    merge = merge_spec.call
    if merge_spec.layers not in (None, depth(found.names)):
        raise UserError(
            f"the mergekit recipe is for models of {merge_spec.layers} layers, but {merge_spec.models[0].name} has "
            f"{depth(found.names)}: give the parents that it was written for."
        )
    return Recipe(
        found.checkpoints,
        found.names,
        merge.function,
        merge.keywords,
        weight,
        ancestor=found.ancestor,
        seed=merge_spec.seed,
    )


@lru_cache(maxsize=4)
def curves(merge_spec: MergeSpec, cache: Path) -> dict[str, Curve]:
    """One curve for each tensor, over the memory-mapped parents, for every λ."""
    found = recipe(merge_spec, None, cache)
    found.prepare()
    with workers() as at_once:
        return {name: curve for group in at_once(found.curves, found.groups) for name, curve in group.items()}
