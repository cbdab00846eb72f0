"""From the parts of a prompt to token ids: chat template, cut of over-long records, common prefix, answer tokens."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from patientdx.core.errors import UserError


@dataclass(frozen=True)
class Prompts:
    """Tokenised prompts of one task for one tokenizer, the same for every merge of its parents.

    ids: token ids of each prompt, in the order given. options: for each option the ids of its one-token variants.
    cut: how many records were shortened to fit. limit: the most tokens a prompt may have.
    """

    ids: tuple[tuple[int, ...], ...]
    options: tuple[tuple[int, ...], ...]
    cut: int
    limit: int

    @cached_property
    def prefix(self) -> int:
        """Length of the longest common token prefix, leaving at least one token of each prompt."""
        shortest = min(self.ids, key=len)
        n = len(shortest) - 1
        for row in self.ids:
            while row[:n] != shortest[:n]:
                n -= 1
        return max(n, 0)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over all token ids and answer tokens: two tokenizations never share an answer."""
        digest = hashlib.sha256(repr(self.options).encode())
        for row in self.ids:
            digest.update(repr(row).encode())
        return digest.hexdigest()


def tokenise(
    tokenizer,
    parts: Sequence[tuple[str, str, str]],
    options: Sequence[Sequence[str]],
    *,
    chat: bool = True,
    limit: int = 4096,
) -> Prompts:
    """Token ids of prompts given as (before, record, after); only `record` is shortened, from its end.

    chat: render through the tokenizer's chat template, with its opening of the answer; UserError where it has none.
    limit: most tokens of a prompt; UserError where a prompt without its record is longer than that.
    """
    check_template(tokenizer, chat)
    ids, cut = [], 0
    for before, record, after in parts:
        row = _render(tokenizer, before + record + after, chat)
        if len(row) > limit:
            row = shorten(tokenizer, before, record, after, chat, limit)
            cut += 1
        ids.append(tuple(row))
    return Prompts(tuple(ids), answer_tokens(tokenizer, options), cut, limit)


def check_template(tokenizer, chat: bool) -> None:
    """UserError where a chat is asked for and the tokenizer has no chat template."""
    if chat and not tokenizer.chat_template:
        raise UserError(
            f"the model is marked chat_template: true, but the tokenizer in {tokenizer.name_or_path} has no chat "
            "template. "
            "Set base_model.chat_template=false, or give a folder whose tokenizer has one."
        )


def _render(tokenizer, text: str, chat: bool) -> list[int]:
    if not chat:
        return tokenizer(text)["input_ids"]
    messages = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)[
        "input_ids"
    ]


def shorten(tokenizer, before: str, record: str, after: str, chat: bool, limit: int, answer: int = 0) -> list[int]:
    """Token ids of the prompt with so much of the record's end left out that `limit` holds them.

    UserError where that cannot be; it says how many tokens of `answer` had to be left room for beside them.
    """
    # Tokens at the cut may join differently, so the cut is repeated until the whole prompt fits.
    ends = [
        end for _, end in tokenizer(record, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    ]
    keep = len(ends)
    excess = len(_render(tokenizer, before + record + after, chat)) - limit
    while excess > 0:
        if keep <= 1:
            least = len(_render(tokenizer, before + after, chat))
            beside = f" and its answer {answer}" if answer else ""
            raise UserError(
                f"a prompt has {least} tokens without its record{beside}, but {limit + answer} are the most that it "
                "may have. Set scoring.max_tokens higher, ask for fewer worked examples (task.shots) or new tokens "
                "(task.new_tokens), or use a model with a longer context."
            )
        keep = max(keep - excess, 1)
        row = _render(tokenizer, before + record[: ends[keep - 1]] + after, chat)
        excess = len(row) - limit
    return row


def answer_tokens(tokenizer, options: Sequence[Sequence[str]]) -> tuple[tuple[int, ...], ...]:
    """For each option the ids of those of its variants that are a single token; UserError where one has none."""
    found = tuple(tuple(_single(tokenizer, variants)) for variants in options)
    for ids, variants in zip(found, options, strict=True):
        if not ids:
            raise UserError(
                f"none of the answers {list(variants)} is a single token of this tokenizer, so the first token cannot "
                "tell the options apart. Give the task options that are one token each."
            )
    shared = sorted(token for token, count in Counter(chain(*found)).items() if count > 1)
    if shared:
        words = [tokenizer.decode([token]) for token in shared]
        raise UserError(
            f"the options {[list(v) for v in options]} share the answers {words}: nothing would tell them apart. "
            "Give each option answers of its own."
        )
    return found


def _single(tokenizer, variants: Iterable[str]) -> Iterable[int]:
    seen = set()
    for variant in variants:
        ids = tokenizer(variant, add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and ids[0] not in seen:
            seen.add(ids[0])
            yield ids[0]
