"""Differences of matrices as low-rank factors, and LoRA folders in peft's layout that hold them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

Factors = dict[str, tuple[Tensor, Tensor]]  # by name of the matrix: A (r, in) and B (out, r), float32
_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


def factorise(base: dict[str, Tensor], trained: dict[str, Tensor], size: int) -> Factors:
    """Each difference as A and B; ranks share `size` bytes (two a number) so that most of the energy is kept.

    A singular value s of an (out, in) matrix saves s² of squared error for out + in stored numbers, so values are
    taken in the order of s² / (out + in). Matrices that get none are left out. Source: Eckart and Young (1936).
    """
    parts, offers = {}, []
    for name, theta in tqdm(trained.items(), desc="svd"):
        u, s, vt = torch.linalg.svd(theta - base[name].float(), full_matrices=False)
        parts[name] = (u, s, vt)
        offers += [(float(value**2) / sum(theta.shape), name) for value in s]
    room, ranks = size // 2, dict.fromkeys(trained, 0)
    for _, name in sorted(offers, reverse=True):
        if sum(trained[name].shape) > room:
            break
        room -= sum(trained[name].shape)
        ranks[name] += 1
    factors = {}
    for name, (u, s, vt) in parts.items():
        if r := ranks[name]:
            root = s[:r].sqrt()
            factors[name] = ((root[:, None] * vt[:r]).contiguous(), (u[:, :r] * root).contiguous())
    return factors


def write_adapter(factors: Factors, folder: Path) -> None:
    """A LoRA folder in peft's layout, bfloat16; every scale alpha / r is 1."""
    tensors, ranks = {}, {}
    for name, (a, b) in factors.items():
        module = name.removesuffix(".weight")
        ranks[module] = a.shape[0]
        tensors[f"{_PREFIX}{module}{_A}"] = a.bfloat16().contiguous()
        tensors[f"{_PREFIX}{module}{_B}"] = b.bfloat16().contiguous()
    r = max(set(ranks.values()), key=list(ranks.values()).count)
    pattern = {module: rank for module, rank in ranks.items() if rank != r}
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "r": r, "lora_alpha": r, "rank_pattern": pattern, "alpha_pattern": pattern,
        "target_modules": sorted(ranks), "lora_dropout": 0.0, "bias": "none", "inference_mode": True,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def differences(folder: Path) -> dict[str, Tensor]:
    """The difference B A (out, in) float32 of each matrix of a folder that `write_adapter` wrote."""
    tensors = load_file(folder / "adapter_model.safetensors")
    modules = [name.removeprefix(_PREFIX).removesuffix(_A) for name in tensors if name.endswith(_A)]
    return {
        f"{module}.weight": tensors[f"{_PREFIX}{module}{_B}"].float() @ tensors[f"{_PREFIX}{module}{_A}"].float()
        for module in modules
    }
