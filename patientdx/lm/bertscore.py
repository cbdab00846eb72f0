"""BERTScore (Zhang et al., ICLR 2020, equations 1 to 3, without idf): does a text mean what its reference means?

Each token is its vector in the last hidden state of an encoder, given as a folder; the package bert-score takes a layer
that its authors chose for each model, so that its numbers are other ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from patientdx.core.errors import UserError

TEXTS = 16  # run together


@dataclass(frozen=True)
class Encoder:
    """A model in float32 and its tokenizer; texts are cut at `limit` tokens, the model's own marks among them."""

    model: Any
    tokenizer: Any
    limit: int


@lru_cache(maxsize=1)
def load_encoder(folder: str, device: torch.device) -> Encoder:
    """The encoder in a folder, in evaluation mode. UserError where transformers cannot load it."""
    from transformers import AutoModel, AutoTokenizer

    place = Path(folder).expanduser()
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
        model = AutoModel.from_pretrained(place, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, UnpicklingError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise UserError(f"task.bertscore={folder} cannot be loaded as an encoder: {reason}") from None
    # RoBERTa's positions begin behind its padding index; a tokenizer without a limit of its own says a huge number.
    positions = getattr(model.config, "max_position_embeddings", None) or 512
    positions -= 2 if model.config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    limit = min(tokenizer.model_max_length, positions)
    return Encoder(model.to(device).eval().requires_grad_(False), tokenizer, limit)


@torch.inference_mode()
def bertscore(encoder: Encoder, texts: Sequence[str], references: Sequence[str]) -> list[float]:
    """F1 of each text and its reference: each token of one meets the most alike of the other, by cosine.

    0 where either has no token. The marks that the model puts around a text are no tokens of it.
    """
    found = []
    for start in range(0, len(texts), TEXTS):
        said, wanted = (_vectors(encoder, some[start : start + TEXTS]) for some in (texts, references))
        found += [_f1(a, b) for a, b in zip(said, wanted, strict=True)]
    return found


def _vectors(encoder: Encoder, texts: Sequence[str]) -> list[Tensor]:
    """(tokens, D) of each text, of length 1."""
    asked = encoder.tokenizer(
        list(texts), padding=True, truncation=True, max_length=encoder.limit, return_tensors="pt",
        return_special_tokens_mask=True,
    )  # fmt: skip
    own = (asked.pop("special_tokens_mask") == 0) & (asked["attention_mask"] == 1)
    hidden = encoder.model(**asked.to(encoder.model.device)).last_hidden_state
    hidden = torch.nn.functional.normalize(hidden, dim=-1).cpu()
    return [row[mask] for row, mask in zip(hidden, own, strict=True)]


def _f1(said: Tensor, wanted: Tensor) -> float:
    if not len(said) or not len(wanted):
        return 0.0
    alike = said @ wanted.T
    precision, recall = float(alike.amax(1).mean()), float(alike.amax(0).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
