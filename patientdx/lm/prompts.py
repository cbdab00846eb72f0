"""From the parts of a prompt to token ids: chat template, cut of over-long contexts, common prefix, answer tokens."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from patientdx.core.errors import UserError
from patientdx.lm.chat_template import check_rendering, rendered


@dataclass(frozen=True)
class Prompts:
    """Tokenised prompts of one task for one tokenizer, the same for every merge of its parents.

    Attributes:
        ids: token ids of each prompt, in the order of the task.
        options: for each option the ids of its one-token variants.
        cut: how many contexts were shortened to fit.
        limit: the most tokens that a prompt may have.
        families: a number for each prompt; those of one family begin alike. Empty: all prompts are one family.
    """

    ids: tuple[tuple[int, ...], ...]
    options: tuple[tuple[int, ...], ...]
    cut: int
    limit: int
    families: tuple[int, ...] = ()

    def family(self, i: int) -> int:
        """The family of prompt `i`."""
        return self.families[i] if self.families else 0

    @cached_property
    def prefixes(self) -> dict[int, int]:
        """For each family the length of the token prefix that its prompts share, which runs once."""
        members: dict[int, list[tuple[int, ...]]] = {}
        for i, row in enumerate(self.ids):
            members.setdefault(self.family(i), []).append(row)
        return {family: self._shared(rows) for family, rows in members.items()}

    def _shared(self, rows: Sequence[Sequence[int]]) -> int:
        return common_prefix(rows)

    @property
    def prefix(self) -> int:
        """The shortest of the families' prefixes."""
        return min(self.prefixes.values())

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over all token ids, options and families: two tokenizations never share a score."""
        digest = hashlib.sha256(repr((self.options, self.families)).encode())
        for part in self._fingerprinted():
            digest.update(repr(part).encode())
        return digest.hexdigest()

    def _fingerprinted(self) -> Iterable:
        return self.ids


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Length of the longest common token prefix, leaving at least one token of each row."""
    first = rows[0]
    n = max(min(map(len, rows)) - 1, 0)
    for row in rows:
        while row[:n] != first[:n]:
            n -= 1
    return n


def tokenise(
    tokenizer,
    parts: Sequence[tuple[str, str, str]],
    options: Sequence[Sequence[str]],
    *,
    chat: bool = True,
    limit: int = 4096,
) -> Prompts:
    """Token ids of prompts given as (prefix, context, suffix); only the context is shortened, from its end.

    chat: render through the tokenizer's chat template, with its opening of the answer; UserError where it has none.
    limit: most tokens of a prompt; UserError where a prompt without its context is longer than that.
    """
    check_template(tokenizer, chat)
    ids, cut = [], 0
    for part in parts:
        row = _render(tokenizer, "".join(part), chat)
        if len(row) > limit:
            row = shorten(tokenizer, *part, chat, limit)
            cut += 1
        ids.append(tuple(row))
    return Prompts(tuple(ids), answer_tokens(tokenizer, options), cut, limit)


def check_template(tokenizer, chat: bool) -> None:
    """UserError where a chat is configured and the tokenizer has no chat template."""
    if chat and not tokenizer.chat_template:
        raise UserError(
            f"the model is marked chat_template: true, but the tokenizer in {tokenizer.name_or_path} has no chat "
            "template. "
            "Set base_model.chat_template=false, or give a folder whose tokenizer has one."
        )
    if chat:
        check_rendering(tokenizer)


def _render(tokenizer, text: str, chat: bool) -> list[int]:
    if not chat:
        return tokenizer(text)["input_ids"]
    return rendered(tokenizer, [{"role": "user", "content": text}])


def shorten(tokenizer, prefix: str, context: str, suffix: str, chat: bool, limit: int, answer: int = 0) -> list[int]:
    """Token ids of the prompt with so much of the context's end left out that `limit` holds them.

    UserError where no such cut exists; its message counts the tokens of `answer` that need room beside the prompt.
    """
    # Tokens at the cut may join differently, so the cut is repeated until the prompt fits.
    offsets = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    ends = [end for _, end in offsets]
    keep = len(ends)
    row = _render(tokenizer, prefix + context + suffix, chat)
    while (excess := len(row) - limit) > 0:
        if keep <= 1:
            least = len(_render(tokenizer, prefix + suffix, chat))
            beside = f" and its answer {answer}" if answer else ""
            raise UserError(
                f"a prompt has {least} tokens without its record{beside}, but {limit + answer} are the most that it "
                "may have. Set scoring.max_tokens higher, ask for fewer worked examples (task.shots) or new tokens "
                "(task.new_tokens), or use a model with a longer context."
            )
        keep = max(keep - excess, 1)
        row = _render(tokenizer, prefix + context[: ends[keep - 1]] + suffix, chat)
    return row


def answer_tokens(tokenizer, options: Sequence[Sequence[str]]) -> tuple[tuple[int, ...], ...]:
    """For each option the ids of those of its variants that are a single token; UserError where one has none."""
    option_ids = tuple(tuple(_single_tokens(tokenizer, variants)) for variants in options)
    for ids, variants in zip(option_ids, options, strict=True):
        if not ids:
            raise UserError(
                f"none of the answers {list(variants)} is a single token of this tokenizer, so the first token cannot "
                "tell the options apart. Give the task options that are one token each."
            )
    shared = sorted(token for token, count in Counter(chain(*option_ids)).items() if count > 1)
    if shared:
        words = [tokenizer.decode([token]) for token in shared]
        raise UserError(
            f"the options {[list(v) for v in options]} share the answers {words}: nothing would tell them apart. "
            "Give each option answers of its own."
        )
    return option_ids


def _single_tokens(tokenizer, variants: Iterable[str]) -> list[int]:
    encoded = (tokenizer(variant, add_special_tokens=False)["input_ids"] for variant in variants)
    return list(dict.fromkeys(ids[0] for ids in encoded if len(ids) == 1))
