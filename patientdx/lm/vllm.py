"""Answers by vLLM (Kwon et al., SOSP 2023) in place of `generate`: greedy, with the same stops, faster on a GPU.

It was not run: it was written by vLLM's documentation and tried with a stand-in, with neither vLLM nor a GPU at hand.
Its kernels round otherwise than transformers' do, so that an answer may part from the other's where two tokens are
nearly as likely; answers of the two are kept apart.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from patientdx.lm.generate import Continuation
    from patientdx.lm.prompts import Prompts

NAME = "vllm"


def errors(generator: str | None) -> list[str]:
    """Why vLLM cannot generate here, where it is asked to: it is not installed, or there is no GPU."""
    if generator != NAME:
        return []
    if find_spec(NAME) is None:
        return ["generator=vllm: vLLM is not installed. Install it (pip install vllm), or leave generator out."]
    gpu = torch.cuda.is_available()
    return [] if gpu else ["generator=vllm: vLLM needs a GPU, and this machine shows none. Leave generator out."]


def generate(
    folder: Path,
    tokenizer,
    prompts: Prompts,
    rows: Sequence[int],
    *,
    length: int,
    stops: Sequence[str],
    dtype: str,
) -> tuple[list[int], list[Continuation]]:
    """As `patientdx.lm.generate.generate` of all `rows`, by the model in `folder`, loaded for this call."""
    from transformers import GenerationConfig
    from vllm import LLM, SamplingParams

    from patientdx.lm.generate import Continuation, end_tokens

    said = GenerationConfig.from_pretrained(folder) if (folder / "generation_config.json").exists() else None
    ends = end_tokens(SimpleNamespace(generation_config=said), tokenizer)
    asked = [{"prompt_token_ids": list(prompts.ids[i])} for i in rows]
    longest = max((len(one["prompt_token_ids"]) for one in asked), default=0) + length
    engine = LLM(model=str(folder), dtype=dtype, max_model_len=longest, enable_prefix_caching=True, seed=0)
    how = SamplingParams(temperature=0.0, max_tokens=length, stop=list(stops), stop_token_ids=list(ends))
    found = []
    for one in engine.generate(asked, how):
        ids, ended = tuple(one.outputs[0].token_ids), one.outputs[0].finish_reason == "stop"
        found.append(Continuation(ids[:-1] if ids and ids[-1] in ends else ids, ended))
    del engine
    gc.collect()
    torch.cuda.empty_cache()
    return list(range(len(rows))), found
