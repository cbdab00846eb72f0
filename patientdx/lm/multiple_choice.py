"""Log-probability of answers of several tokens: the question runs once, every option continues from its cache.

Axes: B rows of a batch, L positions, D hidden size, R predicted tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from patientdx.core.errors import UserError
from patientdx.core.threads import workers
from patientdx.lm.batching import Prefix, hidden_states, plan_prompts, prefix_of_row, run_batches
from patientdx.lm.chat_template import rendered
from patientdx.lm.logprobs import log_probabilities
from patientdx.lm.prompts import Prompts, check_template, shorten

_ROWS = 64  # of a product with the head, always: its rounding depends on how many rows it has
_WAITING = 4096  # hidden states that wait for the head


@dataclass(frozen=True)
class OptionPrompts(Prompts):
    """Tokenised questions with several answers; those of one family begin with the same worked examples.

    continuations: for each question the token ids of each of its options. `limit` is of a question and an option.
    """

    continuations: tuple[tuple[tuple[int, ...], ...], ...] = ()

    @cached_property
    def width(self) -> int:
        """The most options that a question has."""
        return max(map(len, self.continuations))

    def _fingerprinted(self) -> Iterable:
        return zip(self.ids, self.continuations, strict=True)


def tokenise_options(
    tokenizer,
    parts: Sequence[tuple[str, str, str]],
    options: Sequence[Sequence[str]],
    *,
    chat: bool = False,
    limit: int = 4096,
) -> OptionPrompts:
    """Token ids of questions given as (prefix, context, suffix), and of the options of each, one text an option.

    An option follows the question after a blank, or without one where a chat opens its answer; its tokens are those
    that the question and the option together have after the question's own, as in lm-evaluation-harness 0.4.13. Only
    the context is shortened, from its end, so that the longest option fits too. Questions with the same prefix are a
    family. UserError where a chat is configured and there is no template, where an option has no token of its own, and
    where a question is too long without its context.
    """
    check_template(tokenizer, chat)
    texts = ["".join(part) for part in parts]
    if chat:
        conversations = ([{"role": "user", "content": text}] for text in texts)
        texts = [rendered(tokenizer, messages, tokenize=False) for messages in conversations]
    delimiter = "" if chat else " "
    answered = [
        text + delimiter + option
        for text, question_options in zip(texts, options, strict=True)
        for option in question_options
    ]
    answered_ids = iter(_encode(tokenizer, answered, chat))
    ids, continuations, cut = [], [], 0
    for i, row in enumerate(_encode(tokenizer, texts, chat)):
        endings = tuple(tuple(next(answered_ids)[len(row) :]) for _ in options[i])
        if not all(endings):
            empty = next(text for text, tokens in zip(options[i], endings, strict=True) if not tokens)
            raise UserError(
                f"the option {empty!r} of question {i + 1} has no token of its own behind the question. "
                "Mend the option, or use task.answer=letter."
            )
        read = max(map(len, endings)) - 1  # the last token of an option is no input
        if len(row) > limit - read:
            row, cut = shorten(tokenizer, *parts[i], chat, limit - read, read), cut + 1
        ids.append(tuple(row))
        continuations.append(endings)
    numbers: dict[str, int] = {}
    families = tuple(numbers.setdefault(prefix, len(numbers)) for prefix, _, _ in parts)
    return OptionPrompts(tuple(ids), (), cut, limit, families, tuple(continuations))


def _encode(tokenizer, texts: Sequence[str], chat: bool) -> list[list[int]]:
    # A chat template writes the special tokens itself.
    return tokenizer(list(texts), add_special_tokens=not chat)["input_ids"] if texts else []


@torch.inference_mode()
def score_options(
    model,
    prompts: OptionPrompts,
    rows: Sequence[int],
    *,
    batch_tokens: int,
    shard: tuple[int, int] = (0, 1),
    label: str = "",
) -> tuple[list[int], np.ndarray]:
    """Log-probability of every option of the questions `rows`, the sum over its tokens, in nats.

    A family's common prefix runs once, a question once, and an option only as far as its second last token. The hidden
    states go through the head in float32. When memory runs out a batch is halved; UserError where one question alone
    does not fit. shard: (rank, processes), as in `lm.binary.score`.
    Returns the positions in `rows` scored here and their sums, float64 (n, prompts.width), NaN where a question has
    fewer options.
    """

    def forward(positions: list[int], prefix: Prefix) -> list[Tensor]:
        numbers = [rows[position] for position in positions]
        suffixes = [prompts.ids[i][prefix.length :] for i in numbers]
        return _run_options(model, suffixes, [prompts.continuations[i] for i in numbers], prefix)

    head, batches = model.get_output_embeddings(), plan_prompts(prompts, rows, batch_tokens)
    positions, sums, waiting = [], [], []
    with workers(model.device) as parallel_map:
        for position, hidden_RD in run_batches(
            model, batches, forward, describe=lambda _: "question with its answers", shard=shard, label=label,
            unit="question", map_batches=parallel_map,
        ):  # fmt: skip
            positions.append(position)
            waiting.append((hidden_RD, prompts.continuations[rows[position]]))
            if sum(len(hidden) for hidden, _ in waiting) >= _WAITING:
                sums += _option_sums(waiting, head, parallel_map)
                waiting.clear()
        sums += _option_sums(waiting, head, parallel_map)
    scores = np.full((len(positions), prompts.width), np.nan)
    for row, values in enumerate(sums):
        scores[row, : len(values)] = values
    return positions, scores


def _run_options(
    model, questions: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]], prefix: Prefix
) -> list[Tensor]:
    """Of each question the hidden states (R, D) that predict the tokens of its options, one option after the other."""
    required = any(len(option) > 1 for question_options in options for option in question_options)
    cache = prefix.expand_prefix_cache(len(questions)) if required else None
    hidden_BLD = hidden_states(model, questions, prefix, cache)
    results = []
    for b, (question, question_options) in enumerate(zip(questions, options, strict=True)):
        last_1D = hidden_BLD[b, len(question) - 1 : len(question)]
        tails = [option[:-1] for option in question_options if len(option) > 1]
        tail_states = iter(())
        if tails and cache is not None:
            read = prefix_of_row(cache, b, prefix.length + len(question))
            tail_states = iter(hidden_states(model, tails, read))
        parts = [
            torch.cat([last_1D, next(tail_states)[: len(option) - 1]]) if len(option) > 1 else last_1D
            for option in question_options
        ]
        results.append(torch.cat(parts))
    return results


def _option_sums(
    waiting: Sequence[tuple[Tensor, Sequence[Sequence[int]]]], head, map_blocks: Callable
) -> Iterator[list[float]]:
    """Of each question the sum of log p over the tokens of each option."""
    if not waiting:
        return
    hidden_RD = torch.cat([hidden for hidden, _ in waiting])
    target_R = torch.tensor([token for _, options in waiting for option in options for token in option])
    count, short = len(hidden_RD), -len(hidden_RD) % _ROWS
    blocks = zip(
        torch.nn.functional.pad(hidden_RD, (0, 0, 0, short)).split(_ROWS),
        torch.nn.functional.pad(target_R, (0, short)).split(_ROWS),
        strict=True,
    )
    parts = map_blocks(lambda block: _log_p(block[0], head, block[1]), list(blocks))
    log_p = iter(np.concatenate(list(parts))[:count].tolist())
    for _, options in waiting:
        yield [sum(next(log_p) for _ in option) for option in options]


@torch.inference_mode()
def _log_p(hidden_RD: Tensor, head, target_R: Tensor) -> np.ndarray:
    return log_probabilities(hidden_RD, head, target_R, moments=False)[0]
