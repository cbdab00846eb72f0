"""Merges of tiny models to disk, and what a folder holds, byte for byte."""

from pathlib import Path
from typing import Any

from patientdx.checkpoints.compatibility import align
from patientdx.checkpoints.merge_plan import Recipe
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.source import ModelSource
from patientdx.merge.slerp import slerp


def recipe_of(*folders: Path, method: Any = slerp, weight: Any = 0.4, **more: Any) -> Recipe:
    """The merge of the models in these folders, base first."""
    parents = tuple(Checkpoint(folder) for folder in folders)
    names = align(parents, [f"model {number}" for number in range(len(parents))])
    return Recipe(parents, tuple(names), method, weight=weight, **more)


def sources(**folders: Path) -> list[ModelSource]:
    """The same models described: name to folder."""
    return [ModelSource(name, str(folder), licence="apache-2.0") for name, folder in folders.items()]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, name to content."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
