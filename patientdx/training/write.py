"""A trained model as files: peft's adapter folder, or the start's folder with the trained weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from patientdx.checkpoints.identity import BEHAVIOUR_FILES
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.writer import write_safetensors


def write_adapter(model, into: Path) -> None:
    """A peft model's adapter, float32, with a configuration that is the same on every machine."""
    model.save_pretrained(into)
    for name in ("README.md", ".gitattributes"):
        (into / name).unlink(missing_ok=True)
    file = into / "adapter_config.json"
    config = json.loads(file.read_text())
    config |= {"base_model_name_or_path": None, "target_modules": sorted(config["target_modules"])}
    file.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def write_full(start: Path, model, into: Path) -> None:
    """The files of the folder `start` with the model's weights in place of its own: same shards, order and dtypes."""
    source, trained = Checkpoint(start), model.state_dict()
    shards: dict[Path, list] = {}
    for header in source.tensors.values():
        shards.setdefault(header.file, []).append(header)

    def tensor(name: str) -> torch.Tensor:
        weights = trained.get(name)  # rotary frequencies that a checkpoint stores are not trained
        return source.read(name) if weights is None else weights.to("cpu", source.tensors[name].dtype)

    for file, headers in shards.items():
        write_safetensors(into / file.name, headers, tensor)
    for name in (*BEHAVIOUR_FILES, "model.safetensors.index.json"):
        if (start / name).is_file():
            shutil.copyfile(start / name, into / name)
