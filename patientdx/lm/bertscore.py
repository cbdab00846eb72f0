"""BERTScore (Zhang et al., ICLR 2020, equations 1 to 3, without idf): similarity of a text to its reference.

Each token is its vector in the last hidden state of an encoder; the package bert-score takes a layer that its authors
chose for each model, so that its numbers differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from patientdx.core.errors import UserError
from patientdx.core.paths import expanded

TEXTS = 16  # run together


@dataclass(frozen=True)
class Encoder:
    """A model in float32 and its tokenizer; texts are cut at `limit` tokens, special tokens among them."""

    model: Any
    tokenizer: Any
    limit: int


def load_encoder(folder: str, device: torch.device) -> Encoder:
    """The encoder in a folder, in evaluation mode. UserError where transformers cannot load it."""
    from transformers import AutoModel, AutoTokenizer

    path = expanded(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        model = AutoModel.from_pretrained(path, dtype=torch.float32, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, UnpicklingError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise UserError(f"task.bertscore={folder} cannot be loaded as an encoder: {reason}") from None
    # RoBERTa's positions begin behind its padding index; a tokenizer without a limit gives a huge number.
    positions = getattr(model.config, "max_position_embeddings", None) or 512
    positions -= 2 if model.config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    limit = min(tokenizer.model_max_length, positions)
    return Encoder(model.to(device).eval().requires_grad_(False), tokenizer, limit)


@torch.inference_mode()
def bertscore(encoder: Encoder, texts: Sequence[str], references: Sequence[str]) -> list[float]:
    """F1 of each text and its reference: each token is matched with the most similar of the other text, by cosine.

    0 where either has no token. Special tokens are not counted.
    """
    scores = []
    for start in range(0, len(texts), TEXTS):
        batch, batch_references = (_vectors(encoder, side[start : start + TEXTS]) for side in (texts, references))
        scores += [_f1(text, reference) for text, reference in zip(batch, batch_references, strict=True)]
    return scores


def _vectors(encoder: Encoder, texts: Sequence[str]) -> list[Tensor]:
    """(tokens, D) of each text, of length 1."""
    encoded = encoder.tokenizer(
        list(texts), padding=True, truncation=True, max_length=encoder.limit, return_tensors="pt",
        return_special_tokens_mask=True,
    )  # fmt: skip
    content = (encoded.pop("special_tokens_mask") == 0) & (encoded["attention_mask"] == 1)
    hidden = encoder.model(**encoded.to(encoder.model.device)).last_hidden_state
    hidden = torch.nn.functional.normalize(hidden, dim=-1).cpu()
    return [row[mask] for row, mask in zip(hidden, content, strict=True)]


def _f1(text: Tensor, reference: Tensor) -> float:
    if not len(text) or not len(reference):
        return 0.0
    cosine = text @ reference.T
    precision, recall = float(cosine.amax(1).mean()), float(cosine.amax(0).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
