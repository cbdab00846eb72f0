"""Greedy continuation: what a model says next, and next, without any draw."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers.cache_utils import DynamicCache

from patientdx.lm.batching import check_head


@torch.inference_mode()
def continuation(model, ids: Sequence[int], length: int) -> list[int]:
    """The `length` likeliest next tokens after `ids`, one by one, ties going to the smaller id.

    One row at a time: batches would change the last bits, and with them the choice between two close tokens. It does
    not stop at an end-of-text token. The head's product is in float32.
    """
    check_head(model)
    head, cache = model.get_output_embeddings(), DynamicCache()
    bias = None if getattr(head, "bias", None) is None else head.bias.float()
    weight = head.weight.float()
    found: list[int] = []
    given = torch.tensor([list(ids)], device=model.device)
    for _ in range(length):
        hidden_BLD = model.get_decoder()(input_ids=given, past_key_values=cache, use_cache=True).last_hidden_state
        logits = torch.nn.functional.linear(hidden_BLD[0, -1].to(weight.device, torch.float32), weight, bias)
        found.append(int((logits == logits.max()).nonzero()[0]))
        given = torch.tensor([found[-1:]], device=model.device)
    return found
