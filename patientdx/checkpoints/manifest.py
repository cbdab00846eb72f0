"""The manifest of a merged checkpoint, provenance.json: what its weights derive from, enough to do it again.

The same merge writes the same manifest, byte for byte: it holds no time, no machine, and no path except those that the
user named as a model's source.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import patientdx
from patientdx.checkpoints.identity import BEHAVIOUR_FILES, derivation
from patientdx.checkpoints.layout import Shard
from patientdx.checkpoints.merge_plan import Recipe
from patientdx.checkpoints.source import ModelSource, is_local
from patientdx.checkpoints.writer import FORMAT
from patientdx.core import plugins
from patientdx.core.errors import UserError
from patientdx.core.json_files import read_object
from patientdx.core.regular_files import is_regular
from patientdx.merge.schedule import Schedule, filters_of, label, schedule

FILE = "provenance.json"
_FORMAT = 1
_IMPORTS = re.compile(r"^\s*from (patientdx\.merge[\w.]*) import (\([^)]*\)|.*)$", re.MULTILINE)
_UNKNOWN = "0" * 64  # until the hash is computed during the merge
# The part of a model's description that is needed to locate it; the rest concerns prompts and memory.
SOURCE_FIELDS = ("name", "source", "revision", "adapter", "gguf", "licence", "ancestor")


def sources_of(recipe: Recipe) -> list[Any]:
    """Every checkpoint that is read: the parents, base first, and the ancestor if there is one."""
    return [*recipe.parents, *([] if recipe.ancestor is None else [recipe.ancestor])]


def state(
    recipe: Recipe, sources: Sequence[ModelSource], dtype: str | None = None, tokenizer: str | None = None
) -> dict[str, Any]:
    """The manifest of a merge before a byte is read: the recipe, its models without their hashes, and the versions.

    sources: descriptions of the parents and of the ancestor, in the order of `sources_of`; without them the models
    have no names, and whoever verifies the result must say where they are.
    """
    models = []
    for number, _ in enumerate(sources_of(recipe)):
        role = ("base", "pivot")[number] if number < 2 else f"parent {number + 1}"
        if number == len(recipe.parents):
            role = "ancestor"
        described = _described(sources[number]) if sources else {"name": role}
        models.append({"role": role, **described, "sha256": _UNKNOWN})
    return {
        "format": _FORMAT,
        "method": f"{recipe.method.__module__}.{recipe.method.__name__}",
        "arguments": dict(recipe.arguments),
        "lambda": _plain(recipe.weight),
        "seed": recipe.seed,
        "dtype": dtype,
        "tokenizer": tokenizer,
        **({} if recipe.config_from is None else {"config_from": recipe.config_from}),
        "models": models,
        "versions": {
            "patientdx": patientdx.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "code": _code(recipe.method.__module__),
    }


def _described(model: ModelSource) -> dict[str, Any]:
    """What locates a model. A folder is recorded by its absolute path: `org/name` is then always an id of the hub.

    A file of this repository keeps its name in it, wherever the repository is and whatever the current folder.
    """
    described = {key: getattr(model, key) for key in SOURCE_FIELDS}
    for key in ("source", "adapter"):
        path = Path(str(described[key] or "")).expanduser()
        if is_local(described[key]) and not path.is_absolute() and path.exists():
            described[key] = str(path.absolute())
    return described


def with_hashes(stated: Mapping[str, Any], hashes: Sequence[str]) -> dict[str, Any]:
    """The manifest with the content hashes of its models."""
    models = [model | {"sha256": digest} for model, digest in zip(stated["models"], hashes, strict=True)]
    return {**stated, "models": models}


def metadata(stated: Mapping[str, Any]) -> dict[str, str]:
    """The metadata in the header of every shard."""
    return FORMAT | {"patientdx": json.dumps(stated, separators=(",", ":"))}


def key(stated: Mapping[str, Any], recipe: Recipe, shards: Sequence[Shard]) -> str:
    """SHA-256 that two starts of a merge share exactly if one may continue the other.

    Hashing the parents would cost as much as merging; their files count by their headers and by what a write to them
    changes.
    """
    files = []
    for checkpoint in sources_of(recipe):
        rule, paths = derivation(checkpoint)
        stats = [file.stat() for file in paths]
        files.append([rule, [[s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for s in stats]])
        files.append([[t.name, list(t.shape), str(t.dtype), t.start] for t in checkpoint.tensors.values()])
    base = recipe.parents[0].folder
    steering = [
        [name, hashlib.sha256((base / name).read_bytes()).hexdigest()]
        for name in BEHAVIOUR_FILES
        if is_regular(base / name)
    ]
    layout = [[shard.name, shard.nbytes, [tensor.name for tensor in shard.tensors]] for shard in shards]
    return hashlib.sha256(json.dumps([stated, files, steering, layout]).encode()).hexdigest()


def record(
    stated: Mapping[str, Any],
    recipe: Recipe,
    shards: Sequence[Shard],
    tensors: Mapping[str, Mapping[str, Any]],
    hashes: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """The content of provenance.json.

    stated: with the models' hashes. tensors: `sha256` and `facts` of each. hashes: SHA-256 by file, of `shards` and of
    the other `files`.
    """
    return {
        **stated,
        "shards": {
            shard.name: {"bytes": shard.nbytes, "sha256": hashes["shards"][shard.name]} for shard in shards
        },
        "files": dict(hashes["files"]),
        "tensors": {
            tensor.name: {
                "lambda": None if recipe.weight is None else recipe.weight_of(tensor.name),
                "sha256": tensors[tensor.name]["sha256"],
                "facts": tensors[tensor.name]["facts"],
            }
            for shard in shards
            for tensor in shard.tensors
        },
    }  # fmt: skip


def read_record(folder: Path) -> dict[str, Any]:
    """provenance.json of a merged folder. Raises UserError where there is none, or it is of another kind."""
    file = folder / FILE
    if not is_regular(file):
        raise UserError(f"{folder} has no {FILE}: it was not written by `save=`, so there is no record to go by.")
    content = read_object(file, "It is not the record of a merge.")
    if content.get("format") != _FORMAT:
        raise UserError(f"{file} is of another format than this version of patientdx reads.")
    # Not at the top: a merge to disk starts without it.
    from patientdx.checkpoints.record_schema import fault

    wrong = fault(content)
    if wrong is not None:
        raise UserError(f"{file} is not the record of a merge: {wrong}.")
    return content


def same_merge(recorded: Mapping[str, Any], stated: Mapping[str, Any], shards: Sequence[Shard]) -> bool:
    """Whether a recorded manifest is of this merge, hashes included, and these shards."""
    sizes = {shard.name: shard.nbytes for shard in shards}
    recorded_sizes = {name: shard.get("bytes") for name, shard in recorded["shards"].items()}
    return recorded_sizes == sizes and json.dumps({name: recorded.get(name) for name in stated}) == json.dumps(stated)


def summary(stated: Mapping[str, Any]) -> str:
    """A merge in a few words: slerp λ=0.4 of a and b."""
    names = [model["name"] for model in stated["models"] if model["role"] != "ancestor"]
    weight = "" if stated["lambda"] is None else f" λ={label(schedule(stated['lambda']))}"
    return f"{stated['method'].rpartition('.')[2]}{weight} of {', '.join(names[:-1])} and {names[-1]}"


def _plain(weight: Schedule | None) -> float | list | None:
    """λ in the form that a config has it, which `schedule` reads back."""
    filters = None if weight is None else filters_of(weight)
    if filters is not None:
        return [{"filter": part, "value": _plain(value)} for part, value in filters]
    return list(weight) if isinstance(weight, tuple) else weight


def _code(method: str) -> str:
    """SHA-256 over the sources of a merge method's module and of all in `patientdx.merge` that it imports.

    Of a plug-in, over those of its package too.
    """
    if plugins.is_plugin(method):
        return hashlib.sha256(f"{plugins.code(method)} {_code('curve')}".encode()).hexdigest()
    folder = Path(patientdx.__file__).parent / "merge"
    sources: dict[str, bytes] = {}
    left = {"curve", method.rpartition(".")[2]}
    while left:
        name = left.pop()
        if name in sources or not (folder / f"{name}.py").is_file():
            continue
        sources[name] = (folder / f"{name}.py").read_bytes()
        for module, names in _IMPORTS.findall(sources[name].decode()):
            left |= {module.rpartition(".")[2], *re.findall(r"\w+", names)}
    lines = [f"{name} {hashlib.sha256(source).hexdigest()}" for name, source in sorted(sources.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
