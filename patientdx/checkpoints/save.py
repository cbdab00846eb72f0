"""A merged model written to disk as a Hugging Face folder: streamed, resumable, with the record of its origin."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from patientdx.checkpoints.identity import content_hash, weights_hash
from patientdx.checkpoints.journal import Journal, entries
from patientdx.checkpoints.known_models import check_name
from patientdx.checkpoints.layout import distribute, index
from patientdx.checkpoints.manifest import FILE, key, metadata, record, sources_of, with_hashes
from patientdx.checkpoints.merge_plan import Recipe
from patientdx.checkpoints.patient_mark import mark
from patientdx.checkpoints.reader import Checkpoint, TensorHeader
from patientdx.checkpoints.sidecar_files import CARD, model_card
from patientdx.checkpoints.staging import StagingFolder
from patientdx.checkpoints.stream import Merged, stream
from patientdx.checkpoints.write_plan import WritePlan, plan_write
from patientdx.checkpoints.writer import ShardFiles
from patientdx.core.atomic_io import sync
from patientdx.core.errors import UserError
from patientdx.core.progress import progress

log = logging.getLogger(__name__)
_ELSEWHERE = "choose a folder that you can write to."


def save(recipe: Recipe, folder: Path, *, process: tuple[int, int] = (0, 1), **layout: Any) -> Path | None:
    """Write the merge of a recipe into `folder` and return it; None where it is another process that returns it.

    The folder appears under its name when it is complete and on disk. A merge that is stopped, by whatever, leaves a
    hidden folder beside it; the same merge started again goes on there, and its bytes are those of one that was never
    stopped. A folder that holds this very merge is left as it is.

    Args:
        process: number of this process, and how many there are. Each writes shards of its own, the last to end
            finishes the folder and returns it: with fewer shards than processes some have nothing to do. A folder
            that is complete already is returned by the first.
        layout: the other arguments of `write_plan.plan_write`.

    Raises:
        UserError: the request cannot be met (see `plan_write`); the folder holds something else, or another process is
            writing it; a parent changed meanwhile; the disk is too small, or fills up: what is done by then is kept.
    """
    plan = plan_write(recipe, folder, processes=process[1], **layout)
    staging = StagingFolder(plan.target, plan.key)
    if plan.is_finished():
        staging.cleanup()
        return plan.target if process[0] == 0 else None
    try:
        with staging.lock(process):
            if plan.is_finished():  # by the other processes, a moment ago
                return plan.target if process[1] == 1 else None
            check_space(plan, staging)
            if plan.holds_patients:
                mark(staging.model)  # before the weights, which are its owner's alone
            _write_shards(plan, staging, process)
            with staging.last_writer() as unfinished:
                last = unfinished and set(entries(staging.path)) >= set(plan.tensors)
                if last:
                    _finish(plan, staging)
        return plan.target if last else None
    except OSError as error:
        raise _unwritable(plan, staging, error) from error


def check_space(plan: WritePlan, staging: StagingFolder) -> int:
    """Bytes free on the target's disk; UserError where that has no room for what is still to be written."""
    there = sum(file.stat().st_blocks * 512 for file in staging.path.rglob("*") if file.is_file())
    folder_above = nearest(plan.target)
    if not os.access(folder_above, os.W_OK):
        raise UserError(f"{plan.target} cannot be written ({os.strerror(errno.EACCES)}): {_ELSEWHERE}")
    free = shutil.disk_usage(folder_above).free
    need = plan.nbytes - there
    if need > free:
        raise UserError(
            f"{plan.target} needs {need / 1e9:.2f} GB more, but its disk has {free / 1e9:.2f} GB free: free some "
            "space, or choose a folder on a larger disk."
        )
    return free


def nearest(target: Path) -> Path:
    """The folder that the target will be made in, or the nearest one above it that is there."""
    return next(folder for folder in target.parents if folder.exists())


def _write_shards(plan: WritePlan, staging: StagingFolder, process: tuple[int, int]) -> None:
    """This process's shards, but for their headers; every tensor of them is in the journal in the end."""
    rank, processes = process
    with closing(ShardFiles(staging.model, distribute(plan.shards, processes)[rank])) as files:
        left = dict(files.tensors)
        for name in _on_disk(plan, staging, files):
            del left[name]
        results = merged(plan, left, files)
        total = sum(header.nbytes for header in left.values())
        journal = Journal(staging.path, files.sync)
        try:
            with (
                closing(results),
                progress(total=total, unit="B", unit_scale=True, desc="merge", show=not rank) as bar,
            ):
                for source in results:
                    entry = {"sha256": source.result, "facts": source.diagnostics, "sources": source.hashes}
                    journal.add(source.name, source.nbytes, entry)
                    bar.update(source.nbytes)
        finally:
            journal.close()


def merged(plan: WritePlan, tensors: Mapping[str, TensorHeader], files: ShardFiles) -> Generator[Merged]:
    """The named tensors of an outline, each once it is worked out and written to its place in `files`."""
    return stream(
        plan.recipe,
        tensors,
        files.put,
        files.tensor_hash,
        threads=plan.threads,
        device=plan.device,
        hashed=plan.unhashed,
    )


def _on_disk(plan: WritePlan, staging: StagingFolder, files: ShardFiles) -> list[str]:
    """Tensors of these files that an earlier start wrote: those in a journal whose bytes have the hash noted there."""
    noted = entries(staging.path)
    names = [name for name in files.tensors if name in noted]
    with ThreadPoolExecutor(plan.threads) as pool:
        hashes = list(pool.map(files.tensor_hash, names))
    recorded = [name for name, digest in zip(names, hashes, strict=True) if noted[name].get("sha256") == digest]
    if recorded:
        log.info(
            "%d of %d tensors of %s are there from an earlier start", len(recorded), len(files.tensors), plan.target
        )
    return recorded


def _finish(plan: WritePlan, staging: StagingFolder) -> None:
    """Headers, the files beside the weights, the record; then the folder gets its name."""
    noted = entries(staging.path)
    hashes = []
    for number, source in enumerate(sources_of(plan.recipe)):
        known = {name: entry["sources"].get(str(number)) for name, entry in noted.items()}
        hashes.append(content_hash(source, plan.cache, known))
        if plan.sources:
            check_name(plan.sources[number], source, plan.cache)
    if key(plan.stated, plan.recipe, plan.shards) != plan.key:
        raise UserError(f"A parent's files were changed while {plan.target} was written: start the merge again.")
    stated = with_hashes(plan.stated, hashes)
    beside = dict(plan.sidecar_files)
    listed = index(plan.shards)
    if listed is not None:
        beside["model.safetensors.index.json"] = listed.encode()
    names = [shard.name for shard in plan.shards]
    with closing(ShardFiles(staging.model, plan.shards)) as files, ThreadPoolExecutor(plan.threads + 1) as pool:
        files.put_headers(metadata(stated))
        synced = pool.submit(files.sync)  # hashing does not wait for the disk
        digests = dict(zip(names, pool.map(files.shard_hash, names), strict=True))
        synced.result()
    recorded = {
        "shards": digests,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in beside.items()},
    }
    beside[FILE] = (json.dumps(record(stated, plan.recipe, plan.shards, noted, recorded), indent=1) + "\n").encode()
    beside[CARD] = model_card(stated)
    for name, content in beside.items():
        (staging.model / name).parent.mkdir(exist_ok=True)
        (staging.model / name).write_bytes(content)
        sync(staging.model / name)
    staging.publish()
    # The next run that reads this model need not hash it.
    weights_hash(Checkpoint(plan.target), plan.cache, {name: entry["sha256"] for name, entry in noted.items()})


def _unwritable(plan: WritePlan, staging: StagingFolder, error: OSError) -> Exception:
    """What a user can mend as a refusal; anything else as it came."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        kept = len(entries(staging.path))
        return UserError(
            f"{plan.target} could not be written further ({error.strerror}). {kept} of {len(plan.tensors)} tensors are "
            "on disk and kept: make room and start the same command again, it goes on from there."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        return UserError(f"{plan.target} cannot be written ({error.strerror}): {_ELSEWHERE}")
    return error
