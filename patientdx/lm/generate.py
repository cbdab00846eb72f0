"""What a model says: greedy continuation of many prompts at a time, until it stops or is stopped.

Axes: B rows of a batch, L positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm
from transformers.cache_utils import DynamicCache

from patientdx.core.errors import UserError
from patientdx.lm.batching import check_head, expand_prefix_cache, hidden, last, padded, prefix_of, with_oom_backoff
from patientdx.lm.binary import plan
from patientdx.lm.multiple_choice import called
from patientdx.lm.prefix_attention import after_prefix
from patientdx.lm.prompts import Prompts

_SHORTER = "Use fewer task.new_tokens, worked examples, or a lower scoring.max_tokens,"


@dataclass(frozen=True)
class Continuation:
    """New tokens of one prompt, without the one that ended it; `ended`: by itself or at a stop text, not by length."""

    ids: tuple[int, ...]
    ended: bool


@torch.inference_mode()
def generate(
    model,
    prompts: Prompts,
    rows: Sequence[int],
    *,
    length: int,
    ends: Sequence[int],
    batch_tokens: int,
    stopped: Callable[[Sequence[int]], bool] | None = None,
    share: tuple[int, int] = (0, 1),
    label: str = "",
) -> tuple[list[int], list[Continuation]]:
    """The likeliest next token, again and again, of the prompts `rows`: at most `length` new ones.

    A row ends with one of the tokens `ends`, or once `stopped` says so of its new tokens. Ties go to the smaller id.
    Prompts of like length make a batch, of which a row leaves once it has ended; batches are those of the whole task,
    so that neither the number of processes nor the order changes an answer. Batching does change last bits, and with
    them the choice between two tokens that are equally likely but for rounding. The head's product is in float32.
    batch_tokens counts padded tokens with the new ones. On running out of memory a batch is halved; UserError where one
    prompt alone does not fit. share: (rank, processes), as in `patientdx.lm.binary.score`.
    Returns the positions in `rows` continued here and their continuations.
    """
    check_head(model)
    ids = [prompts.ids[i] for i in rows]
    prefix = prompts.prefix
    mine = plan([len(row) - prefix + length for row in ids], batch_tokens)[share[0] :: share[1]]
    head = model.get_output_embeddings()
    bias = getattr(head, "bias", None)
    weight_VD, bias_V = head.weight.float(), None if bias is None else bias.float()

    def logits(hidden_BD: Tensor) -> Tensor:
        # Of a model spread over several devices the head may lie on another than the last layer.
        return torch.nn.functional.linear(hidden_BD.to(weight_VD.device, torch.float32), weight_VD, bias_V)

    places, found = [], []
    bar = tqdm(total=sum(map(len, mine)), desc=label, unit="answer", disable=True if share[0] else None, leave=False)
    with bar, after_prefix(model):
        past = prefix_of(model, ids[0][:prefix]) if prefix and mine else None
        work = partial(_continued, model, logits, ids, prefix, past, length, frozenset(ends), stopped)
        for batch in mine:
            for place, one in with_oom_backoff(batch, work, called, _SHORTER):
                places.append(place)
                found.append(one)
                bar.update()
    return places, found


def _continued(model, logits, ids, prefix: int, past, length: int, ends, stopped, batch) -> list:
    """(place, continuation) of a batch."""
    rows = [ids[place][prefix:] for place in batch]
    hidden_BD, cache = _read(model, rows, prefix, past)
    there_BL = torch.zeros(len(rows), prefix + max(map(len, rows)), dtype=torch.long, device=model.device)
    for b, row in enumerate(rows):
        there_BL[b, : prefix + len(row)] = 1
    running, said = list(range(len(batch))), [[] for _ in batch]
    over = [False] * len(batch)
    for step in range(length):
        next_B = _likeliest(logits(hidden_BD))
        left = []
        for k, (b, token) in enumerate(zip(running, next_B.tolist(), strict=True)):
            if token not in ends:
                said[b].append(token)
            over[b] = token in ends or (stopped is not None and stopped(said[b]))
            if not over[b]:
                left.append(k)
        if not left or step + 1 == length:
            break
        if len(left) < len(running):
            kept = torch.tensor(left)  # on the CPU, which fits a model spread over several devices too
            cache.batch_select_indices(kept)
            next_B, there_BL, running = next_B[kept], there_BL[kept], [running[k] for k in left]
        there_BL = torch.nn.functional.pad(there_BL, (0, 1), value=1)
        hidden_BD = model.get_decoder()(
            input_ids=next_B[:, None].to(model.device),
            # Padding lies between a short prompt and its answer: it is masked, and counts for no position.
            attention_mask=None if bool(there_BL.all()) else there_BL,
            position_ids=there_BL.sum(1, keepdim=True) - 1,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
    return [(place, Continuation(tuple(said[b]), over[b])) for b, place in enumerate(batch)]


def _read(model, rows: Sequence[Sequence[int]], prefix: int, past) -> tuple[Tensor, DynamicCache]:
    """Hidden state (B, D) of each row's last token behind the common prefix, and the keys and values of all."""
    cache = expand_prefix_cache(past, len(rows), wanted=True)
    return last(hidden(model, padded(rows), prefix, cache), rows), cache


def _likeliest(logits_BV: Tensor) -> Tensor:
    """The id of each row's largest logit, the smallest id where several are; UserError where that is no number."""
    largest_B1 = logits_BV.amax(-1, keepdim=True)
    if not bool(torch.isfinite(largest_B1).all()):
        raise UserError(
            "the model gives a next token a score that is not a number. Use dtype=float32; if that does not help, a "
            "parent's weights are damaged."
        )
    largest = logits_BV == largest_B1
    return largest.to(torch.uint8).argmax(-1)


def end_tokens(model, tokenizer) -> tuple[int, ...]:
    """The tokens with which this model ends what it says, from its generation settings and its tokenizer."""
    said = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    named = [said] if isinstance(said, int) else list(said or ())
    return tuple(sorted({*named, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])}))


def texts(tokenizer, found: Sequence[Continuation], stops: Sequence[str] = ()) -> Iterator[str]:
    """The continuations as text without special tokens, each up to the first of `stops` in it."""
    for one in found:
        text = tokenizer.decode(one.ids, skip_special_tokens=True)
        ends = [place for place in map(text.find, filter(None, stops)) if place >= 0]
        yield text[: min(ends)] if ends else text
