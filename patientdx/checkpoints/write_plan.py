"""A merge to disk planned from headers alone; every error that shows there is raised before a weight is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch

from patientdx.checkpoints.compatibility import check_numbers
from patientdx.checkpoints.identity import content_hash, is_hashed
from patientdx.checkpoints.known_models import check_name
from patientdx.checkpoints.layout import Shard, lay_out
from patientdx.checkpoints.manifest import (
    FILE,
    key,
    metadata,
    read_record,
    same_merge,
    sources_of,
    state,
    summary,
    with_hashes,
)
from patientdx.checkpoints.merge_plan import Recipe
from patientdx.checkpoints.patient_mark import MARK, WORDS
from patientdx.checkpoints.reader import TensorHeader
from patientdx.checkpoints.sidecar_files import sidecar_files
from patientdx.checkpoints.source import ModelSource, holds_patients
from patientdx.core.errors import UserError
from patientdx.merge.method import method_spec

SHARD_BYTES = 2_000_000_000  # several even at 1 billion parameters: their checksums are taken at the same time
DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class WritePlan:
    """What will be written: a `recipe`, into the folder `target`, as `shards`.

    sources: descriptions of what is read, or none. stated: see `manifest.state`. holds_patients: a parent was trained
    on patients, which the folder is marked with. cache: where content hashes are remembered. threads: of one process.
    """

    recipe: Recipe
    sources: tuple[ModelSource, ...]
    target: Path
    stated: dict[str, Any]
    shards: tuple[Shard, ...]
    cache: Path
    threads: int
    device: str
    remote_code: bool
    holds_patients: bool = False

    @cached_property
    def key(self) -> str:
        """See `provenance.key`."""
        return key(self.stated, self.recipe, self.shards)

    @cached_property
    def sidecar_files(self) -> dict[str, bytes]:
        """The files beside the weights, name to content (see `folder.companions`)."""
        recipe = self.recipe
        config = None if recipe.config_from is None else recipe.parents[recipe.config_from].config
        files = sidecar_files(recipe.parents[0], self.stated["dtype"], remote_code=self.remote_code, config=config)
        return files | ({MARK: WORDS.encode()} if self.holds_patients else {})

    @property
    def tensors(self) -> dict[str, TensorHeader]:
        """Every tensor at its place, in the order of the files."""
        return {tensor.name: tensor for shard in self.shards for tensor in shard.tensors}

    @property
    def nbytes(self) -> int:
        """Bytes of the whole folder but for its small text files."""
        return sum(shard.nbytes for shard in self.shards) + sum(map(len, self.sidecar_files.values()))

    @property
    def unhashed(self) -> list[int]:
        """Numbers of the sources (see `provenance.sources_of`) whose weights were never hashed, each source once."""
        read = sources_of(self.recipe)
        return [n for n, source in enumerate(read) if source not in read[:n] and not is_hashed(source, self.cache)]

    def is_finished(self) -> bool:
        """Whether the target holds this very merge already.

        Raises UserError where it holds anything else. Parents that were not hashed yet are hashed for this.
        """
        if not self.target.exists() or (self.target.is_dir() and not any(self.target.iterdir())):
            return False
        if not (self.target / FILE).is_file():
            raise UserError(f"{self.target} exists and is no merge that was written here: choose another folder.")
        recorded = read_record(self.target)
        hashes = [content_hash(source, self.cache) for source in sources_of(self.recipe)]
        if not same_merge(recorded, with_hashes(self.stated, hashes), self.shards):
            raise UserError(
                f"{self.target} holds another merge ({summary(recorded)}, other versions or other shards count as "
                "other too): choose another folder, or delete this one."
            )
        return True


def plan_write(
    recipe: Recipe,
    folder: Path,
    *,
    cache: Path,
    sources: Sequence[ModelSource] = (),
    tokenizer: str | None = None,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    threads: int | None = None,
    device: str = "cpu",
    processes: int = 1,
    remote_code: bool = False,
) -> WritePlan:
    """Lay out the merge; reads no weights and writes nothing to `folder`.

    Args:
        cache: where content hashes are remembered.
        sources: descriptions of the parents, base first, and last of the ancestor if there is one, for the record.
        tokenizer: for the record: which vocabulary the parents are shown with (see `vocabulary`), if not each its own.
        dtype: bfloat16, float16 or float32; None leaves every tensor as the base has it.
        shard_bytes: the most that a file holds in tensors. The bytes of a tensor do not depend on it.
        threads: of this process; None: one for each core, shared among the processes.
        device: where the arithmetic runs; tensors go there block by block.
        processes: how many write it.
        remote_code: whether Python files of the base, and references to them, come along.

    Raises UserError for a λ or a dtype that cannot be, for parents whose weights are no plain numbers, and for one that
    is known as a model of another name.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"save_dtype={dtype} cannot be written: give {', '.join(DTYPES)}, or none for the base's own.")
    if shard_bytes < 1:
        raise UserError(f"shard_bytes={shard_bytes} holds no tensor: give the bytes of one file, as 5000000000.")
    _check_weights(recipe)
    for number, source in enumerate(sources_of(recipe)):
        check_numbers(source, sources[number].name if sources else str(source.folder), recipe.names)
        if sources and is_hashed(source, cache):  # the others are hashed while they are merged, and checked then
            check_name(sources[number], source, cache)
    stated = state(recipe, sources, dtype=dtype, tokenizer=tokenizer)
    shards = lay_out(tensors_to_write(recipe, dtype), shard_bytes, metadata(stated))
    threads = threads or max(1, len(os.sched_getaffinity(0)) // processes)
    held = any(map(holds_patients, sources))
    return WritePlan(
        recipe, tuple(sources), Path(folder).absolute(), stated, shards, cache, threads, device, remote_code, held
    )


def tensors_to_write(recipe: Recipe, dtype: str | None) -> list[TensorHeader]:
    """The tensors to write, with shape and dtype: the base's, or floating ones in `dtype`."""
    recorded = []
    for name in recipe.names:
        header = recipe.parents[0].tensors[name]
        if dtype is not None and header.dtype.is_floating_point:
            header = replace(header, dtype=getattr(torch, dtype))
        recorded.append(replace(header, nbytes=prod(header.shape) * header.dtype.itemsize))
    return recorded


def _check_weights(recipe: Recipe) -> None:
    method = recipe.method.__name__
    allowed = method_spec(recipe.method).lambda_range
    if allowed is None:
        if recipe.weight is not None:
            raise UserError(f"lambda={recipe.weight}: merge={method} has no λ. Leave lambda out.")
        return
    low, high = allowed
    if recipe.weight is None:
        raise UserError(f"merge={method} needs a λ: give lambda=<a number from {low:g} to {high:g}>.")
    for name in recipe.names:
        weight = recipe.weight_of(name)
        if not low <= weight <= high:
            raise UserError(f"lambda={weight:g} of {name} is outside [{low:g}, {high:g}] of merge={method}.")
