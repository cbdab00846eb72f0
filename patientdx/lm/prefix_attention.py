"""Causal attention after a common prefix, without a mask; on a CPU in blocks of queries.

With a prefix in the cache there are fewer queries than keys. The kernels' own causal flag lines the two up at their
starts, so transformers passes a mask instead, and a masked kernel works on the upper triangle too.
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
_BLOCK = 64  # queries at a time on a CPU: their scores stay in its cache


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
    cpu, single = query.device.type == "cpu", query.shape[2] == 1
    if attention_mask is not None or (single and not cpu):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **rest)
    if single:
        return _attend_single(query, key, value, rest.get("scaling")), None
    if cpu:
        return _by_blocks(query, key, value, rest.get("scaling") or query.shape[-1] ** -0.5), None
    return _end_aligned(module, query, key, value, **rest)


def _attend_single(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Attention of one query (B, H, 1, D) to all of key and value (B, G, K, D); (B, 1, H, D).

    The heads of a group take the dimension of the queries: a CPU has no fused kernel for keys that heads share.
    """
    batch, heads, _, size = query.shape
    packed = query.reshape(batch, key.shape[1], -1, size)
    attended = torch.nn.functional.scaled_dot_product_attention(packed, key, value, scale=scaling)
    return attended.reshape(batch, 1, heads, -1)


def _end_aligned(module, query: Tensor, key: Tensor, value: Tensor, **rest):
    """The kernel's own causal attention: queries of zeros for the prefix align queries and keys at their ends, so that
    it skips the triangle; their rows are dropped."""
    before = key.shape[2] - query.shape[2]
    query = torch.nn.functional.pad(query, (0, 0, before, 0))
    out, weights = sdpa_attention_forward(module, query, key, value, None, **rest)
    return out[:, before:], weights


def _by_blocks(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Attention of query (B, H, L, D) to key and value (B, G, K, D), in float32; (B, L, H, D) in query's dtype.

    The H / G query heads of a group share its keys in one product. No block attends to a key behind its last query.
    """
    batch, heads, length, size = query.shape
    dtype = query.dtype
    groups, keys = key.shape[1], key.shape[2]
    shared, before = heads // groups, keys - length
    query = (query.float() * scaling).reshape(batch * groups, shared, length, size)
    key = key.float().reshape(batch * groups, keys, size).transpose(1, 2)
    value = value.float().reshape(batch * groups, keys, size)
    out = query.new_empty(batch * groups, shared, length, size)
    later = torch.full((_BLOCK, _BLOCK), -torch.inf).triu_(1)
    for start in range(0, length, _BLOCK):
        stop = min(start + _BLOCK, length)
        block = query[:, :, start:stop].reshape(batch * groups, -1, size)
        scores = torch.bmm(block, key[:, :, : before + stop])
        rows = stop - start
        scores.view(batch * groups, shared, rows, -1)[..., before + start :] += later[:rows, :rows]
        attended = torch.bmm(torch.softmax(scores, -1), value[:, : before + stop])
        out[:, :, start:stop] = attended.view(batch * groups, shared, rows, size)
    return out.view(batch, heads, length, size).transpose(1, 2).to(dtype)


def _mask(*, q_length: int, kv_length: int, mask_function=causal_mask_function, attention_mask=None, **rest):
    # Sliding windows and padding bring another function or a mask.
    plain = mask_function is causal_mask_function and attention_mask is None
    # Added queries cost a GPU more than the triangle saves once the prefix is long (measured on a CPU: at a third
    # of the keys); blocks need none.
    cpu = torch.device(rest.get("device", "cpu")).type == "cpu"
    if plain and (cpu or 4 * (kv_length - q_length) <= kv_length):
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
