"""Yes/no scores of many questions about the same documents: a document runs once, and every question goes on from it.

Axes: B rows of a batch, D hidden size, N options.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from patientdx.core.threads import workers
from patientdx.lm.batching import check_head, prefix_of
from patientdx.lm.binary import fitting, log_mass
from patientdx.lm.multiple_choice import family_batches
from patientdx.lm.prefix_attention import after_prefix
from patientdx.lm.prompts import Prompts, tokenise


@dataclass(frozen=True)
class PairPrompts(Prompts):
    """Tokenised prompts of pairs. families: a number for each prompt; those of one family begin with one document."""

    families: tuple[int, ...] = ()

    @cached_property
    def prefixes(self) -> dict[int, int]:
        """For each family the length of its longest common token prefix; 0 where a prompt has no fellow."""
        members: dict[int, list[tuple[int, ...]]] = {}
        for row, family in zip(self.ids, self.families, strict=True):
            members.setdefault(family, []).append(row)
        return {family: _shared(rows) if len(rows) > 1 else 0 for family, rows in members.items()}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over token ids, answer tokens and families: two tokenizations never share an answer."""
        digest = hashlib.sha256(repr((self.options, self.families)).encode())
        for row in self.ids:
            digest.update(repr(row).encode())
        return digest.hexdigest()


def _shared(rows: Sequence[tuple[int, ...]]) -> int:
    """Length of the longest common prefix, leaving at least one token of each."""
    first, n = rows[0], min(map(len, rows)) - 1
    for row in rows:
        while row[:n] != first[:n]:
            n -= 1
    return n


def tokenise_pairs(
    tokenizer,
    parts: Sequence[tuple[str, str, str]],
    options: Sequence[Sequence[str]],
    documents: Sequence[int],
    *,
    chat: bool = True,
    limit: int = 4096,
) -> PairPrompts:
    """As `patientdx.lm.prompts.tokenise`, of (before, document, after); `documents` numbers them, one a prompt."""
    found = tokenise(tokenizer, parts, options, chat=chat, limit=limit)
    return PairPrompts(found.ids, found.options, found.cut, found.limit, tuple(documents))


@torch.inference_mode()
def score_pairs(
    model,
    prompts: PairPrompts,
    rows: Sequence[int],
    *,
    batch_tokens: int,
    share: tuple[int, int] = (0, 1),
    label: str = "",
) -> tuple[list[int], np.ndarray]:
    """Log mass on each option at the first answer position of the prompts `rows`, as `choice.score` has it.

    A document that several prompts of the task share runs once; `batch_tokens` counts what comes behind it. Batches
    are those of the whole task, whatever the number of processes. On running out of memory a batch is halved; UserError
    where one prompt alone does not fit. share: (rank, processes).
    Returns the positions in `rows` scored here and their log masses, float64 (n, N).
    """
    check_head(model)
    ids = [prompts.ids[i] for i in rows]
    mine = family_batches(prompts, rows, batch_tokens)[share[0] :: share[1]]
    total = sum(len(batch) for _, batch in mine)
    bar = tqdm(total=total, desc=label, unit="candidate", disable=True if share[0] > 0 else None, leave=False)
    found: list[tuple[list[int], Tensor]] = []
    with bar, after_prefix(model), workers(model.device) as at_once:
        for family, batches in groupby(mine, key=lambda one: one[0]):
            own = [batch for _, batch in batches]
            before = prompts.prefixes[family]
            past = prefix_of(model, ids[own[0][0]][:before]) if before else None

            def read(batch: list[int], before: int = before, past=past) -> list[tuple[list[int], Tensor]]:
                return fitting(model, ids, batch, before, past)

            for pieces in at_once(read, own):
                found += pieces
                bar.update(sum(len(piece) for piece, _ in pieces))
        if not found:
            return [], np.empty((0, len(prompts.options)))
        hidden_BD = torch.cat([hidden_BD for _, hidden_BD in found])
        mass = log_mass(hidden_BD, model.get_output_embeddings(), prompts.options, at_once)
    return [i for piece, _ in found for i in piece], mass
