"""Log-probability of whole answers: the question runs once, and every option continues from its keys and values.

Axes: B rows of a batch, L positions, D hidden size, R predicted tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from patientdx.core.errors import UserError
from patientdx.core.threads import workers
from patientdx.lm.batching import check_head, expand_prefix_cache, hidden, padded, prefix_of, with_oom_backoff
from patientdx.lm.binary import plan
from patientdx.lm.logprobs import log_probabilities
from patientdx.lm.prefix_attention import after_prefix
from patientdx.lm.prompts import check_template, shorten

_ROWS = 64  # of a product with the head, always: its rounding depends on how many rows it has
_KEPT = 4096  # hidden states that wait for the head
_Read = tuple[int, Tensor, tuple[tuple[int, ...], ...]]  # place, hidden states (R, D), the options that they predict


@dataclass(frozen=True)
class OptionPrompts:
    """Tokenised questions with several answers, the same for every merge of its parents.

    ids: token ids of each question. continuations: for each question the token ids of each of its options.
    families: a number for each question; those of one family begin alike (the same worked examples).
    cut: how many records were shortened to fit. limit: the most tokens that a question and an option may have.
    """

    ids: tuple[tuple[int, ...], ...]
    continuations: tuple[tuple[tuple[int, ...], ...], ...]
    families: tuple[int, ...]
    cut: int
    limit: int

    @cached_property
    def prefixes(self) -> dict[int, int]:
        """For each family the length of its longest common token prefix, leaving at least one token of each."""
        found: dict[int, tuple[tuple[int, ...], int]] = {}
        for row, family in zip(self.ids, self.families, strict=True):
            first, n = found.get(family, (row, len(row) - 1))
            n = min(n, len(row) - 1)
            while row[:n] != first[:n]:
                n -= 1
            found[family] = first, n
        return {family: n for family, (_, n) in found.items()}

    @property
    def prefix(self) -> int:
        """The shortest of the families' common prefixes."""
        return min(self.prefixes.values())

    @cached_property
    def width(self) -> int:
        """The most options that a question has."""
        return max(map(len, self.continuations))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over all token ids of questions and options: two tokenizations never share an answer."""
        digest = hashlib.sha256(repr(self.families).encode())
        for row, options in zip(self.ids, self.continuations, strict=True):
            digest.update(repr((row, options)).encode())
        return digest.hexdigest()


def tokenise_options(
    tokenizer,
    parts: Sequence[tuple[str, str, str]],
    options: Sequence[Sequence[str]],
    *,
    chat: bool = False,
    limit: int = 4096,
) -> OptionPrompts:
    """Token ids of questions given as (before, record, after), and of the options of each, one text an option.

    An option follows the question after a blank, or without one where a chat opens its answer; its tokens are those
    that the question and the option together have after the question's own, as in lm-evaluation-harness 0.4.13. Only
    `record` is shortened, from its end, so that the longest option fits too. Questions with the same `before` are a
    family. UserError where a chat is asked for and there is no template, where an option has no token of its own, and
    where a question is too long without its record.
    """
    check_template(tokenizer, chat)
    texts = ["".join(part) for part in parts]
    if chat:
        turns = ([{"role": "user", "content": text}] for text in texts)
        texts = [tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]
    delimiter = "" if chat else " "
    contexts = _encoded(tokenizer, texts, chat)
    counts = [len(own) for own in options]
    wholes = iter(
        _encoded(tokenizer, [t + delimiter + o for t, own in zip(texts, options, strict=True) for o in own], chat)
    )
    ids, continuations, cut = [], [], 0
    for place, (row, count) in enumerate(zip(contexts, counts, strict=True)):
        own = tuple(tuple(next(wholes)[len(row) :]) for _ in range(count))
        if not all(own):
            empty = next(text for text, tokens in zip(options[place], own, strict=True) if not tokens)
            raise UserError(
                f"the option {empty!r} of question {place + 1} has no token of its own behind the question. "
                "Mend the option, or use task.answer=letter."
            )
        read = max(map(len, own)) - 1  # nobody reads the last token of an option
        if len(row) > limit - read:
            row, cut = shorten(tokenizer, *parts[place], chat, limit - read, read), cut + 1
        ids.append(tuple(row))
        continuations.append(own)
    numbers: dict[str, int] = {}
    families = tuple(numbers.setdefault(before, len(numbers)) for before, _, _ in parts)
    return OptionPrompts(tuple(ids), tuple(continuations), families, cut, limit)


def _encoded(tokenizer, texts: Sequence[str], chat: bool) -> list[list[int]]:
    # A chat template writes the special tokens itself.
    return tokenizer(list(texts), add_special_tokens=not chat)["input_ids"] if texts else []


@torch.inference_mode()
def score_options(
    model,
    prompts: OptionPrompts,
    rows: Sequence[int],
    *,
    batch_tokens: int,
    share: tuple[int, int] = (0, 1),
    label: str = "",
) -> tuple[list[int], np.ndarray]:
    """Log-probability of every option of the questions `rows`, the sum over its tokens, in nats.

    A family's common prefix runs once, a question once, and an option only as far as its second last token. The hidden
    states go through the head in float32. On running out of memory a batch is halved; UserError where one question alone
    does not fit. share: (rank, processes), as in `patientdx.lm.binary.score`.
    Returns the positions in `rows` scored here and their sums, float64 (n, prompts.width), NaN where a question has
    fewer options.
    """
    check_head(model)
    mine = family_batches(prompts, rows, batch_tokens)[share[0] :: share[1]]
    places, sums, waiting = [], [], []
    total = sum(len(batch) for _, batch in mine)
    bar = tqdm(total=total, desc=label, unit="question", disable=True if share[0] > 0 else None, leave=False)
    with bar, after_prefix(model), workers(model.device) as at_once:
        for place, hidden_RD, options in _all_read(model, prompts, rows, mine, at_once):
            places.append(place)
            waiting.append((hidden_RD, options))
            bar.update()
            if sum(len(hidden) for hidden, _ in waiting) >= _KEPT:
                sums += _sums(waiting, model.get_output_embeddings(), at_once)
                waiting.clear()
        sums += _sums(waiting, model.get_output_embeddings(), at_once)
    found = np.full((len(places), prompts.width), np.nan)
    for row, values in enumerate(sums):
        found[row, : len(values)] = values
    return places, found


def called(_: object) -> str:
    """What does not fit into memory, where one alone does not."""
    return "question with its answers"


def _all_read(model, prompts: OptionPrompts, rows: Sequence[int], mine, at_once: Callable) -> Iterator[_Read]:
    """What `_read` finds of every question of the batches, a family after the other, each behind its own prefix."""
    for family, batches in groupby(mine, key=lambda one: one[0]):
        own = [batch for _, batch in batches]
        before = prompts.prefixes[family]
        past = prefix_of(model, prompts.ids[rows[own[0][0]]][:before]) if before else None
        asked = [
            [(place, prompts.ids[rows[place]][before:], prompts.continuations[rows[place]]) for place in batch]
            for batch in own
        ]
        work = partial(_read, model, before, past)
        for found in at_once(lambda batch, work=work: list(with_oom_backoff(batch, work, called)), asked):
            yield from found


def family_batches(prompts: OptionPrompts, rows: Sequence[int], batch_tokens: int) -> list[tuple[int, list[int]]]:
    """(family, positions in `rows`) of each batch of the whole task, family after family."""
    members: dict[int, list[int]] = {}
    for place, i in enumerate(rows):
        members.setdefault(prompts.families[i], []).append(place)
    found = []
    for family, places in members.items():
        lengths = [len(prompts.ids[rows[place]]) - prompts.prefixes[family] for place in places]
        found += [(family, [places[k] for k in batch]) for batch in plan(lengths, batch_tokens)]
    return found


@torch.inference_mode()
def _read(model, before: int, past, batch) -> list[_Read]:
    """Of each question: its place, the hidden states (R, D) that predict its options' tokens, and those options."""
    rows = [row for _, row, _ in batch]
    more = any(len(option) > 1 for _, _, options in batch for option in options)
    cache = expand_prefix_cache(past, len(rows), wanted=more)
    hidden_BLD = hidden(model, padded(rows), before, cache)
    found = []
    for b, (place, row, options) in enumerate(batch):
        last_1D = hidden_BLD[b, len(row) - 1 : len(row)]
        tails = [option[:-1] for option in options if len(option) > 1]
        after = iter(())
        if tails:
            end = before + len(row)
            own = [(layer.keys[b : b + 1, :, :end], layer.values[b : b + 1, :, :end]) for layer in cache.layers]
            after = iter(hidden(model, padded(tails), end, expand_prefix_cache(own, len(tails))))
        parts = [
            torch.cat([last_1D, next(after)[: len(option) - 1]]) if len(option) > 1 else last_1D for option in options
        ]
        found.append((place, torch.cat(parts), options))
    return found


def _sums(waiting, head, at_once: Callable) -> Iterator[list[float]]:
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
    parts = at_once(lambda block: _log_p(block[0], head, block[1]), list(blocks))
    log_p = iter(np.concatenate(list(parts))[:count].tolist())
    for _, options in waiting:
        yield [sum(next(log_p) for _ in option) for option in options]


@torch.inference_mode()
def _log_p(hidden_RD: Tensor, head, target_R: Tensor) -> np.ndarray:
    return log_probabilities(hidden_RD, head, target_R, moments=False)[0]
