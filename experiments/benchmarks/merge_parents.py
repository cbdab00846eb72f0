"""Parents for merge.py: bfloat16 Llama checkpoints from one random initialisation, and the task they give each method.

Base and pivot are the ancestor plus independent noise of 0.35 sigma: their cosine lies near 0.89, so that SLERP takes
its great circle. The norms (ones in a real model) lie close together and take the line. No tokenizer is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from patientdx.checkpoints.reader import TensorHeader
from patientdx.checkpoints.writer import write_safetensors

SIGMA, NOISE = 0.02, 0.35
MODELS = ("ancestor", "base", "pivot")
FILE = "model.safetensors"


@dataclass(frozen=True)
class Size:
    """A Llama; tied: the output head shares the embedding."""

    hidden: int
    layers: int
    feed_forward: int
    heads: int
    groups: int
    vocabulary: int
    width: int = 64  # of a head
    tied: bool = True

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every stored tensor."""
        h, kv = self.hidden, self.width * self.groups
        layer = {
            "input_layernorm": (h,),
            "mlp.down_proj": (h, self.feed_forward),
            "mlp.gate_proj": (self.feed_forward, h),
            "mlp.up_proj": (self.feed_forward, h),
            "post_attention_layernorm": (h,),
            "self_attn.k_proj": (kv, h),
            "self_attn.o_proj": (h, h),
            "self_attn.q_proj": (h, h),
            "self_attn.v_proj": (kv, h),
        }
        inside = {f"model.layers.{i}.{name}.weight": shape for i in range(self.layers) for name, shape in layer.items()}
        head = {} if self.tied else {"lm_head.weight": (self.vocabulary, h)}
        return {"model.embed_tokens.weight": (self.vocabulary, h), **inside, "model.norm.weight": (h,), **head}

    @property
    def parameters(self) -> int:
        """How many numbers the stored tensors hold."""
        return sum(map(math.prod, self.shapes.values()))

    @property
    def samples(self) -> tuple[str, ...]:
        """The tensors that are compared element by element with the float64 formula."""
        middle = f"model.layers.{self.layers // 2}."
        return (
            "model.layers.0.self_attn.q_proj.weight",
            middle + "mlp.down_proj.weight",
            middle + "input_layernorm.weight",
        )

    @property
    def config(self) -> dict[str, object]:
        """config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.feed_forward,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.groups,
            "head_dim": self.width,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 2048,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "tie_word_embeddings": self.tied,
            "torch_dtype": "bfloat16",
        }


SIZES = {  # by their number of parameters; the first for tests
    "2M": Size(64, 2, 192, 1, 1, 24576),
    "135M": Size(576, 30, 1536, 9, 3, 49152),
    "1.24B": Size(2048, 16, 8192, 32, 8, 128256),
    "8.03B": Size(4096, 32, 14336, 32, 8, 128256, width=128, tied=False),
}


def make_parents(
    size: Size,
    folder: Path,
    progress: Callable[[str], None] = lambda model: None,
    models: Sequence[str] = MODELS,
    *,
    drawn: int | None = None,
) -> dict[str, Path]:
    """Folders of ancestor, base and pivot below `folder`; existing ones from an earlier call stay as they are.

    Every element is a function of its model, tensor and position alone: the same bytes each time.
    drawn: elements of a tensor that are drawn at most, and then repeated to its end; to draw 8 billion takes minutes.
    """
    folders = {model: folder / model for model in models}
    for model, path in folders.items():
        if not (path / "config.json").is_file():
            progress(model)
            path.mkdir(parents=True, exist_ok=True)
            _write(size, path / FILE, MODELS.index(model), drawn)
            (path / "config.json").write_text(json.dumps(size.config, indent=2))  # last: it marks a complete folder
    return folders


def _write(size: Size, file: Path, number: int, drawn: int | None) -> None:
    order = {name: index for index, name in enumerate(size.shapes)}
    headers = [
        TensorHeader(name, shape, torch.bfloat16, file, 0, 2 * math.prod(shape)) for name, shape in size.shapes.items()
    ]

    def tensor(name: str) -> Tensor:
        shape = size.shapes[name]
        count = math.prod(shape)
        if drawn is None or count <= drawn:
            return noisy(name, shape)
        return noisy(name, (drawn,)).repeat(-(-count // drawn))[:count].reshape(shape)

    def noisy(name: str, shape: tuple[int, ...]) -> Tensor:
        start = _noise(order[name], 0, shape).mul_(SIGMA)
        if name.endswith("norm.weight"):
            start.add_(1.0)
        start = start.bfloat16()
        if number == 0:
            return start
        return _noise(order[name], number, shape).mul_(NOISE * SIGMA).add_(start).bfloat16()

    write_safetensors(file, headers, tensor)


def _noise(tensor: int, model: int, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * tensor + model)
    return torch.randn(shape, generator=generator)
