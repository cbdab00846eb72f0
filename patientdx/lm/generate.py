"""Greedy text generation: the likeliest next token of many prompts at a time, until each ends or is stopped.

Axes: B rows of a batch, L positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patientdx.core.errors import UserError
from patientdx.lm.batching import Prefix, check_head, hidden_states, last_hidden, plan_prompts, run_batches
from patientdx.lm.prompts import Prompts

_SHORTER = "Use fewer task.new_tokens, worked examples, or a lower scoring.max_tokens,"


@dataclass(frozen=True)
class Continuation:
    """New tokens of one prompt, without the one that ended it; `ended`: by itself or at a stop text, not by length."""

    ids: tuple[int, ...]
    ended: bool


class Decoder:
    """Greedy decoding: at most `length` new tokens, until one of `ends` or until `stopped` holds for the new tokens.

    The head's product is in float32, with a copy of the head. Ties go to the smaller id. UserError for a model whose
    head is more than a product.
    """

    def __init__(
        self, model, length: int, ends: Collection[int] = (), stopped: Callable[[Sequence[int]], bool] | None = None
    ) -> None:
        check_head(model)
        self.model, self.length, self.ends, self.stopped = model, length, ends, stopped
        head = model.get_output_embeddings()
        bias = getattr(head, "bias", None)
        self._weight_VD, self._bias_V = head.weight.float(), None if bias is None else bias.float()

    @torch.inference_mode()
    def decode(self, rows: Sequence[Sequence[int]], prefix: Prefix) -> list[Continuation]:
        """Continuations of rows behind a prefix; a row leaves the batch once it has ended."""
        cache = prefix.expand_prefix_cache(len(rows))
        hidden_BD = last_hidden(hidden_states(self.model, rows, prefix, cache), rows)
        mask_BL = torch.zeros(
            len(rows), prefix.length + max(map(len, rows)), dtype=torch.long, device=self.model.device
        )
        for b, row in enumerate(rows):
            mask_BL[b, : prefix.length + len(row)] = 1
        running, new_tokens, ended = list(range(len(rows))), [[] for _ in rows], [False] * len(rows)
        for step in range(self.length):
            next_B = likeliest(self._logits(hidden_BD))
            for b, token in zip(running, next_B.tolist(), strict=True):
                if token not in self.ends:
                    new_tokens[b].append(token)
                ended[b] = token in self.ends or (self.stopped is not None and self.stopped(new_tokens[b]))
            remaining = [k for k, b in enumerate(running) if not ended[b]]
            if not remaining or step + 1 == self.length:
                break
            if len(remaining) < len(running):
                kept = torch.tensor(remaining)  # on the CPU, which fits a model spread over several devices too
                cache.batch_select_indices(kept)
                next_B, mask_BL, running = next_B[kept], mask_BL[kept], [running[k] for k in remaining]
            mask_BL = torch.nn.functional.pad(mask_BL, (0, 1), value=1)
            hidden_BD = self.model.get_decoder()(
                input_ids=next_B[:, None].to(self.model.device),
                # Padding lies between a short prompt and its answer: it is masked, and counts for no position.
                attention_mask=None if bool(mask_BL.all()) else mask_BL,
                position_ids=mask_BL.sum(1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
        return [Continuation(tuple(tokens), end) for tokens, end in zip(new_tokens, ended, strict=True)]

    def _logits(self, hidden_BD: Tensor) -> Tensor:
        # Of a model spread over several devices the head may lie on another than the last layer.
        hidden_BD = hidden_BD.to(self._weight_VD.device, torch.float32)
        return torch.nn.functional.linear(hidden_BD, self._weight_VD, self._bias_V)


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
    shard: tuple[int, int] = (0, 1),
    label: str = "",
) -> tuple[list[int], list[Continuation]]:
    """The likeliest next token, again and again, of the prompts `rows`: see `Decoder`.

    Prompts of similar length make a batch. Batches are those of the whole task, so that neither the number of processes
    nor the order changes an answer. Batching does change last bits, and with them the choice between two tokens that
    are equally likely but for rounding. batch_tokens counts padded tokens with the new ones. When memory runs out a
    batch is halved; UserError where one prompt alone does not fit. shard: (rank, processes), as in `lm.binary.score`.
    Returns the positions in `rows` continued here and their continuations.
    """
    decoder = Decoder(model, length, frozenset(ends), stopped)

    def forward(positions: list[int], prefix: Prefix) -> list[Continuation]:
        return decoder.decode([prompts.ids[rows[position]][prefix.length :] for position in positions], prefix)

    batches = plan_prompts(prompts, rows, batch_tokens, new_tokens=length)
    results = run_batches(
        model, batches, forward, describe=lambda _: "question with its answers", shard=shard, label=label,
        unit="answer", advice=_SHORTER,
    )  # fmt: skip
    positions, continuations = [], []
    for position, result in results:
        positions.append(position)
        continuations.append(result)
    return positions, continuations


def continuation(model, ids: Sequence[int], length: int) -> list[int]:
    """The `length` likeliest next tokens after `ids`; an end-of-text token does not stop it.

    A prompt alone, by the model's usual attention: batches would change the last bits, and with them the choice between
    two close tokens.
    """
    [result] = Decoder(model, length).decode([ids], Prefix())
    return list(result.ids)


def likeliest(logits_BV: Tensor) -> Tensor:
    """The id of each row's largest logit, the smallest id where several are; UserError where that is not finite."""
    largest_B1 = logits_BV.amax(-1, keepdim=True)
    if not bool(torch.isfinite(largest_B1).all()):
        raise UserError(
            "the model gives a next token a score that is not a number. Use dtype=float32; if that does not help, a "
            "parent's weights are damaged."
        )
    return (logits_BV == largest_B1).to(torch.uint8).argmax(-1)


def end_tokens(model, tokenizer) -> tuple[int, ...]:
    """The tokens with which this model ends a text, from its generation settings and its tokenizer."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = {configured} if isinstance(configured, int) else set(configured or ())
    return tuple(sorted(ids if tokenizer.eos_token_id is None else ids | {tokenizer.eos_token_id}))


def texts(tokenizer, continuations: Sequence[Continuation], stops: Sequence[str] = ()) -> Iterator[str]:
    """The continuations as text without special tokens, each up to the first of `stops` in it."""
    for result in continuations:
        text = tokenizer.decode(result.ids, skip_special_tokens=True)
        ends = [position for position in map(text.find, filter(None, stops)) if position >= 0]
        yield text[: min(ends)] if ends else text
