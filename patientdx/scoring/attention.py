"""Attention after a common prefix, without a mask where that is faster.

With a prefix in the cache there are fewer queries than keys. The kernels' own causal flag lines the two up at their
starts, so transformers passes a mask instead, and a masked kernel works on the upper triangle too. Queries of zeros in
the prefix's place line them up at their ends: the kernel then skips the triangle, and the first rows are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, causal_mask_function, sdpa_mask

_NAME = "patientdx_after_prefix"


@contextmanager
def after_prefix(model) -> Iterator[None]:
    """The model with this attention, then with its own again; models that do not use SDPA keep theirs throughout."""
    if model.config._attn_implementation != "sdpa":
        yield
        return
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")


def _attend(module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **rest):
    before = key.shape[2] - query.shape[2]
    if attention_mask is None and before > 0 and query.shape[2] > 1:
        query = torch.nn.functional.pad(query, (0, 0, before, 0))
        out, weights = sdpa_attention_forward(module, query, key, value, None, **rest)
        return out[:, before:], weights
    return sdpa_attention_forward(module, query, key, value, attention_mask, **rest)


def _mask(*, q_length: int, kv_length: int, mask_function=causal_mask_function, attention_mask=None, **rest):
    # Added queries cost more than the triangle saves once the prefix is long (measured: at a third of the keys).
    # Sliding windows and padding bring a function or a mask of their own.
    plain = mask_function is causal_mask_function and attention_mask is None
    if plain and 4 * (kv_length - q_length) <= kv_length:
        return None
    return sdpa_mask(
        q_length=q_length,
        kv_length=kv_length,
        mask_function=mask_function,
        attention_mask=attention_mask,
        **rest,
    )


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, _mask)
