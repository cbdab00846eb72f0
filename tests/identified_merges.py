"""Merges written to folders for `identify`: computed by our own functions, by hand, or with something added."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from merged_folders import recipe_of
from safetensors.torch import load_file, save_file
from torch import Tensor

from patientdx.checkpoints.reader import Checkpoint
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
