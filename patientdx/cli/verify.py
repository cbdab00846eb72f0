"""python -m patientdx.cli verify <merged folder> [--parent <name>=<folder> ...]

Derives the weights of a merged folder again from its parents and compares every bit. Ends with 0 if they are the same,
1 if something differs, which it names, and 2 if it cannot tell, as without the parents that were merged.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import struct
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from patientdx.checkpoints.identity import content_hash, tensor_hash
from patientdx.checkpoints.manifest import FILE, SOURCE_FIELDS, metadata, read_record, sources_of, state, summary
from patientdx.checkpoints.merge_plan import Recipe
from patientdx.checkpoints.patient_mark import MARK, marked
from patientdx.checkpoints.reader import INDEX, Checkpoint, TensorHeader, read_header
from patientdx.checkpoints.sidecar_files import CARD, sidecar_files
from patientdx.checkpoints.source import ModelSource, holds_patients
from patientdx.checkpoints.stream import stream
from patientdx.checkpoints.write_plan import tensors_to_write
from patientdx.core import plugins
from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.core.functions import Call
from patientdx.core.paths import cache_folder, expanded
from patientdx.core.progress import progress
from patientdx.evaluation.config.merge import MergeSpec
from patientdx.evaluation.session import Session
from patientdx.merge.schedule import schedule

_SHARD = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors", re.ASCII)
IDENTICAL, DIFFERS, CANNOT_TELL = 0, 1, 2
CERTIFICATE = ("certificate.json", "certificate.html")  # written into the folder by certify


def verify(folder: Path, folders: Mapping[str, Path], cache: Path, threads: int | None = None) -> tuple[int, str]:
    """Exit status and one sentence on a merged folder.

    folders: of models, by their name or role in the record; others are located by the recorded source. No checksum in
    the record is trusted: the parents' content is hashed (see `identity`), and the weights are derived again.
    Raises UserError where that is not possible.
    """
    record = read_record(folder)
    recipe = recipe_of(record, folders, cache)
    sidecars = _sidecars(record, recipe)
    fault = _strange_files(folder, record, sidecars) or _unmarked(folder, record, folders)
    fault = fault or _index_fault(folder, record)
    if fault:
        return DIFFERS, f"{folder} differs from {summary(record)}: {fault}"
    stored = Checkpoint(folder)
    fault = _outside(record, recipe, stored, sidecars)
    if not fault:
        comparison = _compared(record, recipe, stored, threads)
        fault = _inside(record, recipe, comparison) or _misstated(record, comparison, sidecars)
    if fault:
        return DIFFERS, f"{folder} differs from {summary(record)}: {fault}"
    count = sum(prod(stored.tensors[name].shape) for name in recipe.names)
    return IDENTICAL, f"{folder} is {summary(record)}, bit for bit: {len(recipe.names)} tensors, {count} parameters"


def recipe_of(record: Mapping[str, Any], folders: Mapping[str, Path], cache: Path) -> Recipe:
    """The recorded merge, with its parents opened; UserError unless they are those that were merged."""
    models = record["models"]
    unknown = set(folders) - {model[key] for model in models for key in ("name", "role")}
    if unknown:
        names = ", ".join(model["name"] for model in models)
        raise UserError(f"--parent {min(unknown)}=...: the record names no such model; it names {names}.")
    merge = Call(record["method"], json.dumps(record["arguments"]))
    is_ours = record["method"].startswith("patientdx.merge.") and hasattr(merge.function, "method_spec")
    if not (is_ours or plugins.is_plugin(record["method"])):
        raise UserError(f"The record's method {record['method']} is no merge method; nothing else is called.")
    sources = [source_of(model, folders) for model in models]
    ancestor = sources.pop() if models[-1]["role"] == "ancestor" else None
    merge_spec = MergeSpec(
        tuple(sources), merge, ancestor, record["tokenizer"], record["seed"], config_from=_config_from(record)
    )
    recipe = Session().recipe(merge_spec, None if record["lambda"] is None else schedule(record["lambda"]), cache)
    for model, checkpoint in zip(models, sources_of(recipe), strict=True):
        digest = content_hash(checkpoint, None)
        if digest != model["sha256"]:
            raise UserError(
                f"{model['role']} {model['name']} in {checkpoint.folder} is not the model that was merged: its content "
                f"hash is {digest}, recorded is {model['sha256']}. Give the right one: "
                f"--parent {model['name']}=<folder>."
            )
    return recipe


def _config_from(record: Mapping[str, Any]) -> str | None:
    """The role of the parent whose configuration the merge has."""
    number = record.get("config_from")
    return None if number is None else ("base", "pivot")[number]


def source_of(model: Mapping[str, Any], folders: Mapping[str, Path]) -> ModelSource:
    """Where a model is: in one of `folders`, or at the recorded source."""
    folder = folders.get(model["name"], folders.get(model["role"]))
    if folder is not None:
        return ModelSource(model["name"], str(folder))
    if not model.get("source"):
        raise UserError(f"The record does not say where {model['name']} is: --parent {model['name']}=<folder>.")
    return ModelSource(**{key: model[key] for key in SOURCE_FIELDS})


def _sidecars(record: Mapping[str, Any], recipe: Recipe) -> dict[str, bytes]:
    """The files beside the weights as they follow from the parents."""
    remote_code = any(name.endswith(".py") for name in record["files"])
    config = None if recipe.config_from is None else recipe.parents[recipe.config_from].config
    return sidecar_files(recipe.parents[0], record["dtype"], remote_code=remote_code, config=config)


def _strange_files(folder: Path, record: Mapping[str, Any], sidecars: Mapping[str, bytes]) -> str | None:
    """A file that a merge does not write, or a link: by it transformers could load other weights than the derived.

    What the record lists does not count: whoever adds a file can add it there too.
    """
    shards = [name for name in record["shards"] if _SHARD.fullmatch(name)]
    allowed = {*shards, *sidecars, *([INDEX] if len(shards) > 1 else []), FILE, CARD, MARK, *CERTIFICATE}
    folders = {str(Path(name).parent) for name in allowed}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            return f"{name} is a link, and a merge holds plain files only."
        if name not in (folders if path.is_dir() else allowed):
            return f"{name} is no file of this merge. Delete it, or move it elsewhere."
    absent = next((name for name in record["shards"] if name not in shards or not (folder / name).is_file()), None)
    return None if absent is None else f"its record lists weights in {absent}, which is no file of this folder."


def _unmarked(folder: Path, record: Mapping[str, Any], folders: Mapping[str, Path]) -> str | None:
    """A merge without the mark that one of its parents has."""
    held = [model["name"] for model in record["models"] if holds_patients(source_of(model, folders))]
    if not held or marked(folder):
        return None
    return f"{held[0]} was trained on patients' records, and the folder has no {MARK}."


def _index_fault(folder: Path, record: Mapping[str, Any]) -> str | None:
    """What is wrong with the index of the shards; a folder of one shard has none."""
    where = {header.name: name for name in record["shards"] for header in read_header(folder / name)}
    file = folder / INDEX
    if len(record["shards"]) == 1:
        return None
    listed = json.loads(file.read_text(encoding="utf-8"))["weight_map"] if file.is_file() else {}
    return None if listed == where else f"{INDEX} does not list what the shards hold."


def _outside(
    record: Mapping[str, Any], recipe: Recipe, stored: Checkpoint, sidecars: Mapping[str, bytes]
) -> str | None:
    """What differs around the weights: files, headers, names, shapes, dtypes. None if nothing does."""
    if record.get("config_from") != recipe.config_from:
        return f"{FILE} says that the parents' configurations compute differently, and they do not."
    for name, content in sidecars.items():
        file = stored.folder / name
        if not file.is_file() or file.read_bytes() != content:
            return f"{name} is not what follows from the base's."
    stated = metadata({key: record.get(key) for key in state(recipe, ())})
    for file in sorted({header.file for header in stored.tensors.values()}):
        if _metadata_of(file) != stated:
            return f"the header of {file.name} describes another merge than provenance.json."
    derived = {header.name: header for header in tensors_to_write(recipe, record["dtype"])}
    for name in sorted(derived.keys() ^ stored.tensors.keys()):
        return f"{name} is {'absent' if name in derived else 'in none of the parents'}."
    for name, header in derived.items():
        mine, theirs = ((header.dtype, list(header.shape)) for header in (stored.tensors[name], header))
        if mine != theirs:
            return f"{name} is stored as {mine[0]} {mine[1]} and derived as {theirs[0]} {theirs[1]}."
    return None


def _compared(record: Mapping[str, Any], recipe: Recipe, stored: Checkpoint, threads: int | None) -> Comparison:
    """The stored weights beside the derived ones: the one pass over them."""
    tensors = {header.name: header for header in tensors_to_write(recipe, record["dtype"])}
    comparison = Comparison(stored, tensors)
    threads = threads or len(os.sched_getaffinity(0))
    total = sum(header.nbytes for header in tensors.values())
    results = stream(recipe, tensors, comparison.put, comparison.hash, threads=threads)
    with closing(results), progress(total=total, unit="B", unit_scale=True, desc="verify") as bar:
        for merged in results:
            bar.update(merged.nbytes)
    return comparison


def _inside(record: Mapping[str, Any], recipe: Recipe, comparison: Comparison) -> str | None:
    """The first tensor whose weights differ, in the order of the base's files, and how; None if none does."""
    differing = [name for name in recipe.names if name in comparison.differences]
    if not differing:
        return None
    name = differing[0]
    count, index = comparison.differences[name]
    header = comparison.tensors[name]
    digest = hashlib.sha256(comparison.stored.read_bytes(name).numpy().data).hexdigest()
    unchanged = digest == record["tensors"].get(name, {}).get("sha256")
    return (
        f"{name} in {count} of {header.nbytes // header.dtype.itemsize} elements, first {index}. "
        f"{len(differing) - 1} other tensors differ. "
        + (_since(record, recipe) if unchanged else "It was changed since: its checksum is not the recorded one.")
    )


def _misstated(record: Mapping[str, Any], comparison: Comparison, sidecars: Mapping[str, bytes]) -> str | None:
    """What the record states wrongly of a folder whose weights are the derived ones; None if nothing."""
    names = [*sidecars, *([INDEX] if len(record["shards"]) > 1 else [])]
    files = {name: sha256(comparison.stored.folder / name) for name in names} | comparison.shards
    stated = record["files"] | {name: shard["sha256"] for name, shard in record["shards"].items()}
    # The mark has a check of its own: a folder may get it later.
    wrong = [name for name in sorted((files.keys() | stated.keys()) - {MARK}) if files.get(name) != stated.get(name)]
    tensors = {name: tensor["sha256"] for name, tensor in record["tensors"].items()}
    hashes = comparison.hashes
    wrong += [name for name in sorted(hashes.keys() | tensors.keys()) if hashes.get(name) != tensors.get(name)]
    return f"{FILE} states another checksum of {wrong[0]} than it has." if wrong else None


def _since(record: Mapping[str, Any], recipe: Recipe) -> str:
    """Why weights may differ although they are as they were written."""
    now = state(recipe, ())
    versions = [
        f"{name} {record['versions'].get(name)}, here {version}"
        for name, version in now["versions"].items()
        if record["versions"].get(name) != version
    ]
    if record.get("code") != now["code"]:
        versions.append("other code of the merge methods")
    made = f"; it was written with {', '.join(versions)}" if versions else " nor the versions"
    return f"Its checksum is the recorded one, so the file was not changed{made}."


@dataclass
class Comparison:
    """Takes derived weights in place of a file, compares them with stored ones, and hashes these while they are read.

    differences: by tensor that differs, the number of differing elements and the first of them in words. hashes,
    shards: SHA-256 of the stored tensors and of their files, of each file without a difference.
    """

    stored: Checkpoint
    tensors: Mapping[str, TensorHeader]

    def __post_init__(self) -> None:
        self.differences: dict[str, tuple[int, str]] = {}
        self.hashes: dict[str, str] = {}
        self.shards: dict[str, str] = {}
        self._left = Counter(header.file for header in self.stored.tensors.values())
        self._first: dict[str, int] = {}
        self._lock = Lock()

    def put(self, name: str, first: int, data: memoryview) -> None:
        """See `stream.Put`."""
        theirs = torch.frombuffer(data, dtype=torch.uint8)
        mine = self.stored.read_bytes(name)[first : first + len(data)]
        if torch.equal(mine, theirs):
            return
        dtype = self.tensors[name].dtype
        places = (mine != theirs).view(-1, dtype.itemsize).any(1).nonzero().flatten()
        index = int(places[0])
        values = [data.clone().view(dtype)[index].item() for data in (mine, theirs)]
        index += first // dtype.itemsize
        where = [int(i) for i in torch.unravel_index(torch.tensor(index), self.tensors[name].shape)]
        with self._lock:
            count, words = self.differences.get(name, (0, ""))
            if index < self._first.get(name, index + 1):
                self._first[name] = index
                words = f"{where}: stored {values[0]!r}, derived {values[1]!r}"
            self.differences[name] = count + len(places), words

    def hash(self, name: str) -> None:
        """Hash a stored tensor of which all bytes were compared, and its file after the last of them."""
        same = name not in self.differences
        if same:
            self.hashes[name] = tensor_hash(self.stored, name)
        file = self.stored.tensors[name].file
        with self._lock:
            self._left[file] -= same
            complete = same and not self._left[file]
        if complete:
            self.shards[file.name] = sha256(file)


def _metadata_of(file: Path) -> dict[str, str]:
    with file.open("rb") as handle:
        (length,) = struct.unpack("<Q", handle.read(8))
        return json.loads(handle.read(length)).get("__metadata__", {})


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parser("verify", __doc__).parse_args(arguments)
    return print_status(lambda: verify(args.folder, parent_folders(args.parent), cache_folder(), args.threads))


def parser(command: str, doc: str | None) -> argparse.ArgumentParser:
    """What the commands about a merged folder take."""
    known = argparse.ArgumentParser(f"python -m patientdx.cli {command}", description=(doc or "").split("\n\n")[1])
    known.add_argument("folder", type=Path, help="a folder that a merge was saved in")
    known.add_argument("--parent", action="append", default=[], metavar="NAME=FOLDER", help="where a model is")
    known.add_argument("--threads", type=int, help="threads to use; otherwise one for each core")
    return known


def parent_folders(pairs: Sequence[str]) -> dict[str, Path]:
    """The folder of each model from name=folder. UserError for other words."""
    folders = {name: path for name, _, path in (pair.partition("=") for pair in pairs)}
    if not all(folders.values()):
        raise UserError(f"--parent {' '.join(pairs)}: write it as name=folder.")
    return {name: expanded(folder) for name, folder in folders.items()}


def print_status(command: Callable[[], tuple[int, str]]) -> int:
    """Print the message of a command and return its exit status; CANNOT_TELL where it raises UserError."""
    try:
        status, message = command()
    except UserError as error:
        status, message = CANNOT_TELL, f"cannot tell: {error}"
    print(message, file=sys.stdout if status == IDENTICAL else sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
