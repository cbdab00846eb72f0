"""Tokenizer and causal language model of a folder; a loaded model is refilled with each point of a curve."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor

from patientdx.core.errors import UserError
from patientdx.lm.chat import with_arguments


def load_tokenizer(folder: Path, template_args: Mapping[str, Any] | None = None):
    """The tokenizer in `folder`; template_args: see `chat.with_arguments`. UserError where there is none to be read."""
    from transformers import AutoTokenizer

    with named_errors(folder, "no tokenizer that can be read", "It needs tokenizer.json or tokenizer.model"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return with_arguments(tokenizer, template_args or {})


def default_dtype(device: str) -> str:
    """The dtype that a model computes in where none is set: bfloat16, or float32 on a CPU without bfloat16 arithmetic.

    device: auto, cpu, or what auto takes. Such a CPU emulates bfloat16 in software, many times slower than float32.
    """
    accelerated = device != "cpu" and torch.accelerator.is_available()
    return "bfloat16" if accelerated or torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


@contextmanager
def named_errors(folder: Path, lacks: str, needs: str) -> Iterator[None]:
    """A UserError with the folder and the cause instead of an error of transformers, unless it is memory's."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if "DefaultCPUAllocator" in str(error):
            raise
        cause = shorten((str(error).strip().splitlines() or [""])[0], 250)
        raise UserError(
            f"{folder} has {lacks} ({type(error).__name__}: {cause}). {needs}: download the folder again. Code that "
            "comes with a model is never run."
        ) from error


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    device_map: str | None = None,
    config: Mapping[str, Any] | None = None,
):
    """The causal language model in `folder`, in evaluation mode, on `device` (or spread by accelerate's device_map).

    config: a configuration (as a mapping) to compute with in place of the folder's own.

    A folder that holds a configuration alone (of a vocabulary that no parent has) gives a model
    without weights, to be filled. UserError where the two do not make a model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar for a load of a second or two hides the bar of scoring
    options = {"dtype": dtype, "trust_remote_code": False}
    with named_errors(folder, "no model that can be built", "It is built as config.json describes it"):
        if config is None:
            computed = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        else:
            computed = AutoConfig.for_model(**config)
        if any(folder.glob("*.safetensors")):
            model = AutoModelForCausalLM.from_pretrained(folder, config=computed, device_map=device_map, **options)
        else:
            model = AutoModelForCausalLM.from_config(computed, **options)
    if device_map is None:
        model.to(device)  # pyright: ignore[reportArgumentType]
    return model.eval().requires_grad_(False)


def storage(model, names: Iterable[str]) -> dict[str, Tensor]:
    """The model's parameters under the checkpoint's names; UserError where the two do not cover each other.

    A head tied to the embedding is one tensor: it is filled through the embedding's name. The model may be without
    weights, on the device `meta`.
    """
    live = dict(model.named_parameters(remove_duplicate=False))
    names = list(names)
    unknown = [name for name in names if name not in live]
    fused = [name for name in live if ".experts." in name and name not in names]
    if unknown and fused:
        raise UserError(
            f"{type(model).__name__} is a mixture of experts: its files hold one expert a tensor ({unknown[0]}), the "
            f"model in memory all experts in one ({fused[0]}). Such a merge can be written to disk (task=none "
            "save=<folder>) and cannot be scored here."
        )
    filled = {id(live[name]) for name in names if name in live}
    missing = [name for name, parameter in live.items() if id(parameter) not in filled]
    if unknown or missing:
        raise UserError(
            f"the checkpoint's tensors do not fill {type(model).__name__}: "
            f"{len(unknown)} unknown to the model {unknown[:3]}, {len(missing)} not in the checkpoint {missing[:3]}. "
            "Only checkpoints saved in the model's own Hugging Face layout can be merged."
        )
    return {name: live[name].data for name in names}
