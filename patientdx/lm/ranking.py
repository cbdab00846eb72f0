"""Prompts of many questions about the same documents: a document runs once, and every question continues from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patientdx.lm.prompts import Prompts, common_prefix, tokenise


@dataclass(frozen=True)
class PairPrompts(Prompts):
    """Tokenised prompts of pairs; those of one family begin with one document. `lm.binary.score` scores them."""

    def _shared(self, rows: Sequence[Sequence[int]]) -> int:
        # A document with a single question runs with it in one piece.
        return common_prefix(rows) if len(rows) > 1 else 0

    @property
    def prefix(self) -> int:
        """Length of the token prefix that all prompts share, whatever their document."""
        return common_prefix(self.ids)


def tokenise_pairs(
    tokenizer,
    parts: Sequence[tuple[str, str, str]],
    options: Sequence[Sequence[str]],
    documents: Sequence[int],
    *,
    chat: bool = True,
    limit: int = 4096,
) -> PairPrompts:
    """As `lm.prompts.tokenise`, of (prefix, document, suffix); documents: the number of each prompt's document."""
    prompts = tokenise(tokenizer, parts, options, chat=chat, limit=limit)
    return PairPrompts(prompts.ids, prompts.options, prompts.cut, limit, tuple(documents))
