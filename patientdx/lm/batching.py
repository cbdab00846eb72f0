"""The forward passes of all scorers: batches planned once, sharded over processes, halved where memory runs out.

Axes: B rows of a batch, L positions, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicCache

from patientdx.core.errors import UserError
from patientdx.core.progress import progress
from patientdx.lm.prefix_attention import after_prefix
from patientdx.lm.prompts import Prompts

R = TypeVar("R")
LayerCache = tuple[Tensor, Tensor]  # keys and values (B, heads, L, head size) of one layer


@dataclass(frozen=True)
class Batch:
    """Rows that run together, by their positions; `prefix` are the token ids that all of them begin with."""

    prefix: tuple[int, ...]
    positions: list[int]


@dataclass(frozen=True)
class Prefix:
    """Keys and values of `length` tokens that stand before every row of a batch; no layers where `length` is 0."""

    length: int = 0
    layers: Sequence[LayerCache] = ()

    def expand_prefix_cache(self, rows: int) -> DynamicCache:
        """A cache that begins with the prefix for each of `rows`."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self.layers):
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
        return cache


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices of rows in batches of similar length, longest first, at most `batch_tokens` padded tokens each.

    The plan covers the whole task, whatever the number of processes, so that sharding never changes a score. The
    longest rows come first, so that a lack of memory shows at once.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def plan_prompts(prompts: Prompts, rows: Sequence[int], batch_tokens: int, *, new_tokens: int = 0) -> list[Batch]:
    """Batches of the prompts `rows`, one family after the other; positions are those in `rows`.

    A family's common prefix does not count towards `batch_tokens`; the `new_tokens` of each row do.
    """
    members: dict[int, list[int]] = {}
    for position, i in enumerate(rows):
        members.setdefault(prompts.family(i), []).append(position)
    batches = []
    for family, positions in members.items():
        prefix = prompts.ids[rows[positions[0]]][: prompts.prefixes[family]]
        lengths = [len(prompts.ids[rows[position]]) - len(prefix) + new_tokens for position in positions]
        batches += [Batch(prefix, [positions[k] for k in batch]) for batch in plan_batches(lengths, batch_tokens)]
    return batches


def run_batches(
    model,
    batches: Sequence[Batch],
    forward: Callable[[list[int], Prefix], Sequence[R]],
    *,
    describe: Callable[[int], str],
    shard: tuple[int, int] = (0, 1),
    label: str = "",
    unit: str = "prompt",
    advice: str = "Set scoring.max_tokens lower,",
    map_batches: Callable[..., Any] = map,
) -> Iterator[tuple[int, R]]:
    """Position and result of each row, in the order of the plan; a prefix that batches share runs once.

    Args:
        forward: results of the rows at some positions behind a prefix, one for each row, in their order.
        describe: name of the row at a position, for the message that it does not fit into memory.
        label: of the progress bar; without one there is none.
        shard: (rank, processes); this call runs every processes-th batch of the plan.
        advice: how the user makes a row smaller.
        map_batches: `map`, or one that keeps the order and runs batches in parallel (`core.threads.workers`).

    Raises:
        UserError: a row alone does not fit into memory, or the model's head is not supported.
    """
    check_head(model)
    rank, processes = shard
    batches = batches[rank::processes]
    total = sum(len(batch.positions) for batch in batches)
    bar = progress(total=total, desc=label, unit=unit, show=not rank and bool(label), leave=False)
    with bar, after_prefix(model):
        for ids, group in groupby(batches, key=lambda batch: batch.prefix):
            prefix = run_prefix(model, ids)

            # inference_mode belongs to a thread, so each batch enters it again.
            @torch.inference_mode()
            def run(batch: Batch, prefix: Prefix = prefix) -> list[tuple[int, R]]:
                results = with_oom_backoff(batch.positions, lambda part: forward(part, prefix), describe, advice)
                return list(zip(batch.positions, results, strict=True))

            for results in map_batches(run, list(group)):
                for result in results:
                    bar.update()
                    yield result


def with_oom_backoff(
    batch: Sequence[int], work: Callable[[Any], Sequence[R]], describe: Callable[[int], str], advice: str
) -> Iterator[R]:
    """Results of `work` on a batch, computed in as many parts as memory requires.

    UserError where one row alone does not fit: `describe` names it, `advice` says how the user makes it smaller.
    """
    waiting = [batch]
    while waiting:
        part = waiting.pop()
        try:
            results, message = work(part), ""
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            # Only the text is kept: the error's frames hold the failed forward's tensors.
            results, message = None, str(error).splitlines()[0]
        if results is not None:
            yield from results
        elif len(part) == 1:
            raise UserError(
                f"one {describe(part[0])} does not fit into memory ({message}). {advice} dtype=bfloat16, or use a "
                "larger device."
            )
        else:
            clear_device_cache()
            half = len(part) // 2
            waiting += [part[half:], part[:half]]


def check_head(model) -> None:
    """UserError for a model whose head is more than a product: scorers compute the product themselves, for few rows."""
    keys = ("final_logit_softcapping", "logit_scale", "logits_scaling")
    unsupported = [key for key in keys if getattr(model.config, key, None)]
    if unsupported:
        raise UserError(
            f"{model.config.model_type} changes its logits after the head ({', '.join(unsupported)}), which scoring "
            "does not reproduce. Use a model of the Llama or Mistral family."
        )


def check_rotary(config, length: int) -> None:
    """UserError for a text beyond the length at which a model changes the frequencies of all its positions.

    What was computed for a shared prefix, or in a batch with a longer text, would then be that of another model.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type") if isinstance(rope, Mapping) else None
    if kind not in ("dynamic", "longrope"):
        return
    limit = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    limit = limit or config.max_position_embeddings
    if length > limit:
        raise UserError(
            f"{config.model_type} has other rotary frequencies for texts of more than {limit} tokens ({kind}), "
            f"so that texts cannot share what they begin with, and one has {length}. Set scoring.max_tokens={limit} or "
            "less, leaving room for the answer."
        )


@torch.inference_mode()
def run_prefix(model, ids: Sequence[int]) -> Prefix:
    """Keys and values of the tokens `ids`."""
    if not ids:
        return Prefix()
    cache = DynamicCache()
    model.get_decoder()(input_ids=torch.tensor([ids], device=model.device), past_key_values=cache, use_cache=True)
    return prefix_of_row(cache, 0, len(ids))


def prefix_of_row(cache: DynamicCache, b: int, length: int) -> Prefix:
    """The first `length` keys and values of row `b` of a cache."""
    layers: Any = cache.layers  # each of full attention, with keys and values (B, heads, L, head size)
    return Prefix(
        length, [(layer.keys[b : b + 1, :, :length], layer.values[b : b + 1, :, :length]) for layer in layers]
    )


def padded(rows: Sequence[Sequence[int]], fill: int = 0) -> Tensor:
    """(B, L) int64: token ids, `fill` right of each row's last."""
    return pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True, padding_value=fill)


def hidden_states(model, rows: Sequence[Sequence[int]], prefix: Prefix, cache: DynamicCache | None = None) -> Tensor:
    """Hidden states (B, L, D) of rows behind a prefix, padded on the right.

    cache: begins with the prefix and takes up the rows' keys and values, for a caller that continues from them.
    """
    if cache is None and prefix.layers:
        cache = prefix.expand_prefix_cache(len(rows))
    # Padding stands right of every real token and attention is causal, so no real position attends to it.
    ids_BL = padded(rows)
    check_rotary(model.config, prefix.length + ids_BL.shape[1])
    return model.get_decoder()(
        input_ids=ids_BL.to(model.device),
        position_ids=torch.arange(prefix.length, prefix.length + ids_BL.shape[1], device=model.device)[None],
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state


def last_hidden(hidden_BLD: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
    """Hidden state (B, D) of each row's last real token."""
    # Indices on the CPU fit a model spread over several devices too.
    return hidden_BLD[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])]
