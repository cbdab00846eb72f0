"""Merges written to folders for `identify`, and what it says of them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from merged_folders import recipe_of
from safetensors.torch import load_file, save_file
from torch import Tensor

from patientdx.checkpoints.reader import Checkpoint
from patientdx.cli.identify import identify, options
from patientdx.cli.identify_tables import Findings, verdict
from patientdx.merge.curve import evaluate


def write_model(like: Path, folder: Path, tensors: dict[str, Tensor]) -> Path:
    """A copy of the model in `like` with these tensors."""
    shutil.copytree(like, folder)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def save_tensors(folder: Path, tensors: dict[str, Tensor]) -> Path:
    """A folder with these tensors and an empty configuration."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def write_merge(
    folder: Path,
    parents: list[Path],
    method: Any,
    weight: Any,
    dtype: torch.dtype,
    ancestor: Path | None = None,
    **more: Any,
) -> Path:
    """The merge of the models in these folders, base first, by one of our functions; `more`: its keywords."""
    origin = None if ancestor is None else Checkpoint(ancestor)
    recipe = recipe_of(*parents, method=method, weight=weight, ancestor=origin, arguments=more)
    tensors = {}
    for group in recipe.groups:
        for name, curve in recipe.curves(group).items():
            shape = recipe.parents[0].tensors[name].shape
            tensors[name] = evaluate(curve, recipe.weight_of(name), torch.empty(shape, dtype=dtype))
    return write_model(parents[0], folder, tensors)


def changed(model: Path, folder: Path, change: Callable[[str, Tensor], Tensor]) -> Path:
    """A copy of a model with each tensor changed."""
    tensors = load_file(model / "model.safetensors")
    return write_model(model, folder, {name: change(name, tensor) for name, tensor in tensors.items()})


def words(merged: Path, *candidates: Path, **more) -> list[str]:
    listed = ",".join(map(str, candidates))
    return [f"merged={merged}", f"candidates=[{listed}]", *(f"{key}={value}" for key, value in more.items())]


def findings(merged: Path, *candidates: Path, **more) -> Findings:
    return identify(options(words(merged, *candidates, **more)), Path("/nowhere"))


def text(result: Findings) -> str:
    return " ".join(verdict(result))


def best(result: Findings) -> tuple[str, tuple[str, ...], str | None]:
    """Method, names of the parents and of the ancestor."""
    entry, names = result.best.hypothesis, result.models
    ancestor = None if entry.ancestor is None else names[entry.ancestor]
    return entry.method, tuple(names[parent] for parent in entry.parents), ancestor


def bits(result: Findings) -> float:
    return sum(result.best.bits) / sum(row.elements for row in result.rows)
