"""Text generation by vLLM (Kwon et al., SOSP 2023) in place of `generate`: greedy, with the same stops, on a GPU.

This module follows vLLM's documentation and was tested with a stand-in only. Its kernels round differently from those
of transformers, so that answers may differ where two tokens are nearly as likely; answers of the two are cached apart.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from patientdx.core import extras

if TYPE_CHECKING:
    from patientdx.lm.generate import Continuation
    from patientdx.lm.prompts import Prompts

NAME = "vllm"


def errors(generator: str | None) -> list[str]:
    """Why the configured vLLM cannot generate here: it is not installed, or there is no GPU."""
    if generator != NAME:
        return []
    if absent := extras.absence([NAME]):
        return [f"generator=vllm needs {absent} Or leave generator out."]
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
    from vllm import LLM, SamplingParams  # pyright: ignore

    from patientdx.lm.generate import Continuation, end_tokens

    settings = GenerationConfig.from_pretrained(folder) if (folder / "generation_config.json").exists() else None
    ends = end_tokens(SimpleNamespace(generation_config=settings), tokenizer)
    inputs = [{"prompt_token_ids": list(prompts.ids[i])} for i in rows]
    longest = max((len(prompts.ids[i]) for i in rows), default=0) + length
    engine = LLM(model=str(folder), dtype=dtype, max_model_len=longest, enable_prefix_caching=True, seed=0)
    parameters = SamplingParams(temperature=0.0, max_tokens=length, stop=list(stops), stop_token_ids=list(ends))
    continuations = []
    for request in engine.generate(inputs, parameters):
        ids, ended = tuple(request.outputs[0].token_ids), request.outputs[0].finish_reason == "stop"
        continuations.append(Continuation(ids[:-1] if ids and ids[-1] in ends else ids, ended))
    del engine
    gc.collect()
    torch.cuda.empty_cache()
    return list(range(len(rows))), continuations
