"""A model whose attention heads stand in another order, which it does not notice: its function is the same.

Key/value groups change places in each layer, and the query heads inside each group. Rows of W_Q, W_K, W_V (and their
biases) and columns of W_O move together; dimensions inside a head stay where rotary positions expect them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from patientdx.checkpoints.identity import BEHAVIOUR_FILES
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.writer import write_safetensors
from patientdx.core.errors import UserError
from patientdx.merge.schedule import layer_of

_AXES = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "o_proj": 1}


@dataclass(frozen=True)
class Order:
    """Of one layer: place i of the new model holds head `heads[i]` (query heads) or `groups[i]` of the old one."""

    heads: tuple[int, ...]
    groups: tuple[int, ...]

    def back(self) -> tuple[int, ...]:
        """The order of query heads that undoes this one."""
        return tuple(sorted(range(len(self.heads)), key=self.heads.__getitem__))


def orders(config: Mapping, layers: int, seed: int) -> tuple[Order, ...]:
    """A random order for each layer, from the seed. UserError where there is only one query head to move."""
    heads = config["num_attention_heads"]
    groups = config.get("num_key_value_heads") or heads
    if heads < 2:
        raise UserError("a model of one attention head has no other order of heads: give one with two or more.")
    generator, found, each = torch.Generator().manual_seed(seed), [], heads // groups
    for _ in range(layers):
        order = torch.randperm(groups, generator=generator).tolist()
        inside = [torch.randperm(each, generator=generator).tolist() for _ in order]
        moved = tuple(group * each + head for group, own in zip(order, inside, strict=True) for head in own)
        found.append(Order(moved, tuple(order)))
    return tuple(found)


def permute(source: Path, target: Path, seed: int) -> tuple[Order, ...]:
    """Write the model in `source` to the folder `target` with its heads in the orders of `seed`; returns them.

    One safetensors file, and what a tokenizer and a configuration need. UserError for an attention that is not made of
    q_proj, k_proj, v_proj and o_proj.
    """
    opened = Checkpoint(source)
    layers = {layer for layer in map(layer_of, opened.tensors) if layer is not None}
    whole = all(any(f".{part}." in name for name in opened.tensors) for part in _AXES)
    if not whole or layers != set(range(len(layers))):
        raise UserError(
            f"{source} has no q_proj, k_proj, v_proj and o_proj in each layer, so its heads cannot be moved."
        )
    found = orders(opened.config, len(layers), seed)
    target.mkdir(parents=True)
    write_safetensors(
        target / "model.safetensors",
        list(opened.tensors.values()),
        lambda name: moved(name, opened.read(name), found),
    )
    for name in BEHAVIOUR_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    return found


def moved(name: str, tensor: Tensor, found: tuple[Order, ...]) -> Tensor:
    """A tensor of the model with its heads in the orders given; itself where it has no heads."""
    part = next((part for part in _AXES if f".{part}." in name), None)
    layer = layer_of(name)
    if part is None or layer is None or (part == "o_proj" and name.endswith("bias")):
        return tensor
    order = found[layer].heads if part in ("q_proj", "o_proj") else found[layer].groups
    axis = _AXES[part]
    return tensor.unflatten(axis, (len(order), -1)).index_select(axis, torch.tensor(order)).flatten(axis, axis + 1)
