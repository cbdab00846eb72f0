"""The forward pass that all scorers share: rows behind a prefix that ran once, in as many pieces as memory asks for.

Axes: B rows of a batch, L positions, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor
from transformers.cache_utils import DynamicCache

from patientdx.core.errors import UserError

Past = Sequence[tuple[Tensor, Tensor]]  # keys and values of one row, layer by layer


def check_head(model) -> None:
    """UserError for a model whose head is more than a product: scorers work that out themselves, for some rows only."""
    odd = [k for k in ("final_logit_softcapping", "logit_scale", "logits_scaling") if getattr(model.config, k, None)]
    if odd:
        raise UserError(
            f"{model.config.model_type} changes its logits after the head ({', '.join(odd)}), which scoring does not "
            "reproduce. Use a model of the Llama or Mistral family."
        )


@torch.inference_mode()
def prefix_of(model, ids: Sequence[int]) -> Past:
    """Keys and values of the tokens `ids`."""
    cache = DynamicCache()
    model.get_decoder()(input_ids=torch.tensor([ids], device=model.device), past_key_values=cache, use_cache=True)
    return [(layer.keys, layer.values) for layer in cache.layers]


def expand_prefix_cache(past: Past | None, rows: int, *, wanted: bool = False) -> DynamicCache | None:
    """A cache that begins with `past` for each of `rows`; None where there is no past, and none is `wanted`."""
    if past is None and not wanted:
        return None
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(past or ()):
        cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
    return cache


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """(B, L) int64: token ids, zeros right of each row's last."""
    ids_BL = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for b, row in enumerate(rows):
        ids_BL[b, : len(row)] = torch.tensor(row)
    return ids_BL


def hidden(model, ids_BL: Tensor, before: int, cache: DynamicCache | None) -> Tensor:
    """Hidden states (B, L, D) of padded rows behind the `before` tokens that the cache begins with."""
    # Padding stands right of every real token and attention is causal, so no real position ever sees it.
    return model.get_decoder()(
        input_ids=ids_BL.to(model.device),
        position_ids=torch.arange(before, before + ids_BL.shape[1], device=model.device)[None],
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state


def last(hidden_BLD: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
    """Hidden state (B, D) of each row's last real token."""
    # Indices on the CPU fit a model spread over several devices too.
    return hidden_BLD[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])]


def with_oom_backoff(
    batch: Sequence, work: Callable, called: Callable[..., str], shorter: str = "Set scoring.max_tokens lower,"
) -> Iterator:
    """What `work` finds of a batch, worked out in as many pieces as memory asks for.

    UserError where one alone does not fit: `called` gives its name, `shorter` how the user makes it smaller.
    """
    waiting = [batch]
    while waiting:
        piece = waiting.pop()
        try:
            found, fault = work(piece), ""
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            # Only the words are kept: the error's frames hold the failed forward's tensors.
            found, fault = None, str(error).splitlines()[0]
        if found is not None:
            yield from found
        elif len(piece) == 1:
            raise UserError(
                f"one {called(piece[0])} does not fit into memory ({fault}). {shorter} dtype=bfloat16, or use a larger "
                "device."
            )
        else:
            clear_device_cache()
            half = len(piece) // 2
            waiting += [piece[half:], piece[:half]]
