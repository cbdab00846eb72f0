"""Scores of yes/no and other one-token answers: one forward a prompt, a prefix that prompts share runs once.

Axes: B rows of a batch, D hidden size, V vocabulary, N options.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from patientdx.core.threads import workers
from patientdx.lm.batching import Prefix, hidden_states, last_hidden, plan_prompts, run_batches
from patientdx.lm.prompts import Prompts

_ROWS = 32  # of a product with the head
_SLICE = 8192  # of the vocabulary


@dataclass(frozen=True)
class Scores:
    """Per prompt: `option` (n, N) float64, log of the probability mass on each option's variants, before any
    renormalisation; rows in the order of the prompts."""

    option: np.ndarray

    @property
    def margin(self) -> np.ndarray:
        """(n,) logsumexp of the first option's variants minus that of the second's: yes against no."""
        return self.option[:, 0] - self.option[:, 1]

    @property
    def probability(self) -> np.ndarray:
        """(n,) p(yes) = sigmoid(margin)."""
        return 1.0 / (1.0 + np.exp(-self.margin))

    @property
    def mass(self) -> np.ndarray:
        """(n,) part of the next-token distribution on any option: what is missing to 1 is abstention."""
        return np.exp(self.option).sum(axis=1)


@torch.inference_mode()
def score(
    model, prompts: Prompts, rows: Sequence[int], *, batch_tokens: int, shard: tuple[int, int] = (0, 1), label: str = ""
) -> tuple[list[int], np.ndarray]:
    """Log mass on each option at the first answer position of the prompts `rows`; pairs (`PairPrompts`) alike.

    The last real position's hidden state goes through the head in float32 (bfloat16 logits would leave a handful of
    distinct margins). A prefix that a family shares runs once, and `batch_tokens` counts what comes behind it. When
    memory runs out a batch is halved; UserError where one prompt alone does not fit.
    shard: (rank, processes); this call scores every processes-th batch of the one plan.
    Returns the positions in `rows` scored here and their log masses, float64 (n, N).
    """

    def forward(positions: list[int], prefix: Prefix) -> list[Tensor]:
        suffixes = [prompts.ids[rows[position]][prefix.length :] for position in positions]
        return list(last_hidden(hidden_states(model, suffixes, prefix), suffixes))

    def describe(position: int) -> str:
        return f"prompt of {len(prompts.ids[rows[position]])} tokens"

    batches = plan_prompts(prompts, rows, batch_tokens)
    with workers(model.device) as parallel_map:
        scored = list(
            run_batches(
                model, batches, forward, describe=describe, shard=shard, label=label, map_batches=parallel_map
            )
        )  # fmt: skip
        if not scored:
            return [], np.empty((0, len(prompts.options)))
        positions, hidden = zip(*scored, strict=True)
        mass = log_mass(torch.stack(hidden), model.get_output_embeddings(), prompts.options, parallel_map)
    return list(positions), mass


def log_mass(hidden_BD: Tensor, head, options: Sequence[Sequence[int]], map_blocks: Callable = map) -> np.ndarray:
    """Log probability of each option's token set, float64 (B, N): logits and softmax in float32.

    The head is applied to slices of the vocabulary, so that neither a float32 copy of the head nor a (B, V) matrix is
    ever held. Rows go through in blocks of one size, the last one padded: a product's rounding depends on how many rows
    it has, and a prompt's score must not depend on how many others its process has scored.
    """
    n = len(hidden_BD)
    hidden_BD = hidden_BD.to(head.weight.device, torch.float32)
    blocks = torch.nn.functional.pad(hidden_BD, (0, 0, 0, -n % _ROWS)).split(_ROWS)
    return torch.cat(list(map_blocks(lambda block: _log_mass(block, head, options), blocks)))[:n].cpu().double().numpy()


@torch.inference_mode()
def _log_mass(hidden_BD: Tensor, head, options: Sequence[Sequence[int]]) -> Tensor:
    option_ids = [torch.tensor(ids, device=hidden_BD.device) for ids in options]
    bias = getattr(head, "bias", None)
    total_B = torch.full((len(hidden_BD),), -torch.inf, device=hidden_BD.device)
    option_logits: list[list[Tensor]] = [[] for _ in options]
    for start in range(0, head.weight.shape[0], _SLICE):
        weight_VD = head.weight[start : start + _SLICE].float()
        bias_V = None if bias is None else bias[start : start + _SLICE].float()
        logits_BV = torch.nn.functional.linear(hidden_BD, weight_VD, bias_V)
        total_B = torch.logaddexp(total_B, torch.logsumexp(logits_BV, dim=-1))
        for slices, ids in zip(option_logits, option_ids, strict=True):
            slices.append(logits_BV[:, ids[(ids >= start) & (ids < start + _SLICE)] - start])
    return torch.stack([torch.logsumexp(torch.cat(slices, 1), 1) - total_B for slices in option_logits], 1)
