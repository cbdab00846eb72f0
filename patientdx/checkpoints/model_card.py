"""The description of a model that has no yaml in conf/models, from the files of its folder or its hub repository."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from patientdx.checkpoints.lora import ADAPTER_FILES
from patientdx.checkpoints.reader import MODEL_ENDINGS
from patientdx.checkpoints.source import HUB_ID, ModelSource, hub_snapshot, licence_of, readme_of
from patientdx.core.errors import UserError
from patientdx.core.json_files import read_object
from patientdx.core.paths import CONF, expanded
from patientdx.core.regular_files import is_regular, refuse_irregular

_DESCRIBING = ["README.md", "config.json", "tokenizer_config.json", "chat_template.jinja", "adapter_config.json"]


def describe(source: str, group: str) -> ModelSource:
    """The model in a folder, a ``.gguf`` file or a hub repository ``org/name``; its weights are not read.

    Name: of the folder. Licence, and the model it was trained from if that one has a yaml here: as its README.md
    states. A folder of a LoRA adapter is applied to the model that its adapter_config.json names.
    group: ``base_model`` or ``pivot_model``, for messages. Raises UserError where there is no model.
    """
    path = expanded(source)
    if path.suffix == ".gguf" and not path.is_dir() and is_regular(path):
        return ModelSource(_name(path.stem), str(path.resolve()))
    if path.is_dir():
        refuse_irregular(path, MODEL_ENDINGS)
        folder, name, located = path, path.resolve().name, str(path.resolve())
    elif HUB_ID.fullmatch(source):
        folder, name, located = (
            hub_snapshot(ModelSource(source, source), source, _DESCRIBING),
            source.split("/")[1],
            source,
        )
    else:
        raise UserError(
            f"{group}={source}: there is no such folder or file, and no such yaml in conf/models. Give a yaml's "
            "name, a folder, a .gguf file, or a hub id (org/name)."
        )
    adapter = None
    if not (folder / "config.json").is_file():
        located, adapter = _of_adapter(folder, source, group), located
    template = (folder / "chat_template.jinja").is_file() or bool(
        _json(folder / "tokenizer_config.json").get("chat_template")
    )
    if adapter is not None:
        template = template or describe(located, group).chat_template
    return ModelSource(
        _name(name),
        located,
        adapter=adapter,
        licence=licence_of(folder),
        ancestor=_ancestor(folder),
        chat_template=template,
    )


def _of_adapter(folder: Path, source: str, group: str) -> str:
    """The source of the model that the adapter in a folder is for."""
    named = _json(folder / "adapter_config.json").get("base_model_name_or_path")
    if not isinstance(named, str) or not all((folder / name).is_file() for name in ADAPTER_FILES):
        raise UserError(
            f"{group}={source}: the folder has no config.json, so there is no model in it, and no LoRA adapter."
        )
    return named


def _name(name: str) -> str:
    """A folder's name as the name of a model."""
    return name.lstrip(".") or "model"


def _ancestor(folder: Path) -> str | None:
    """The yaml of the model that the README.md of a folder names as its only base model; None without."""
    try:
        front = yaml.safe_load(readme_of(folder)[0])
    except yaml.YAMLError:
        return None
    named = front.get("base_model") if isinstance(front, Mapping) else None
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or len(names) != 1:
        return None
    for card in sorted((CONF / "models").glob("*.yaml")):
        stated = re.search(r"^source: (\S+)", card.read_text(encoding="utf-8"), re.MULTILINE)
        if stated is not None and stated[1] == names[0]:
            return card.stem
    return None


def _json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no file."""
    return read_object(path) if path.is_file() else {}
