"""What a model's config.json may say of its size: no more than its tensors hold.

A model is built by its config before its tensors fill it; 10^9 layers would be built for days.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patientdx.core.errors import UserError

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
SIZES = (
    "hidden_size", "n_embd", "d_model", "intermediate_size", "n_inner", "vocab_size", "num_attention_heads", "n_head",
    "num_key_value_heads", "head_dim", "num_local_experts", "num_experts",
)  # fmt: skip
_POSITIONS = ("max_position_embeddings", "n_positions")
_LONGEST = 10**9  # positions; no model has more


def check_config(config: Mapping[str, Any], shapes: list[tuple[int, ...]], file: Path) -> None:
    """Raise UserError where a number of the config is none, or exceeds what the tensors of these shapes allow."""
    largest = max((length for shape in shapes for length in shape), default=1)
    limits = dict.fromkeys(LAYERS, (len(shapes), "tensors")) | dict.fromkeys(SIZES, (largest, "in the largest tensor"))
    limits |= dict.fromkeys(_POSITIONS, (_LONGEST, "at most"))
    for name, (most, of) in limits.items():
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < ("expert" not in name):
            raise _wrong(file, name, value, "a whole number of at least 1")
        if shapes and value > most:
            raise _wrong(file, name, value, f"no more than {most}: there are {most} {of}")
    kinds = {
        "architectures": (list, "a list"),
        "model_type": (str, "a word"),
        "tie_word_embeddings": (bool, "a boolean"),
    }
    for name, (kind, words) in kinds.items():
        if config.get(name) is not None and not isinstance(config[name], kind):
            raise _wrong(file, name, config[name], words)


def _wrong(file: Path, name: str, value: Any, words: str) -> UserError:
    return UserError(f"{file} says {name}={value!r:.80}, and it is {words}. Download or write it again.")
