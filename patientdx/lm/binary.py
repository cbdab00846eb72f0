"""Scores of yes/no and other one-token answers: one forward a prompt, the common prefix run once.

Axes: B rows of a batch, L positions, D hidden size, V vocabulary, N options.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from patientdx.core.threads import workers
from patientdx.lm.batching import check_head, expand_prefix_cache, hidden, last, padded, prefix_of, with_oom_backoff
from patientdx.lm.prefix_attention import after_prefix
from patientdx.lm.prompts import Prompts

_ROWS = 32  # of a product with the head


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
        """(n,) share of the next-token distribution on any option: what is missing to 1 is abstention."""
        return np.exp(self.option).sum(axis=1)


def plan(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices of prompts in batches of like length, longest first, at most `batch_tokens` padded tokens each.

    The plan is that of the whole task, whatever the number of processes, so that batching never changes a score.
    Longest first: running out of memory shows at once.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


@torch.inference_mode()
def score(
    model,
    prompts: Prompts,
    rows: Sequence[int],
    *,
    batch_tokens: int,
    share: tuple[int, int] = (0, 1),
    label: str = "",
) -> tuple[list[int], np.ndarray]:
    """Log mass on each option at the first answer position of the prompts `rows`.

    The last real position's hidden state goes through the head in float32 (bfloat16 logits would leave a handful of
    distinct margins). On running out of memory a batch is halved; UserError where one prompt alone does not fit.
    share: (rank, processes); this call scores every processes-th batch of the one plan.
    Returns the positions in `rows` scored here and their log masses, float64 (n, N).
    """
    check_head(model)
    ids = [prompts.ids[i] for i in rows]
    prefix = prompts.prefix
    mine = plan([len(row) - prefix for row in ids], batch_tokens)[share[0] :: share[1]]
    found: list[tuple[list[int], Tensor]] = []
    bar = tqdm(
        total=sum(map(len, mine)),
        desc=label,
        unit="prompt",
        disable=True if share[0] > 0 else None,
        leave=False,
    )
    with bar, after_prefix(model), workers(model.device) as at_once:
        past = prefix_of(model, ids[0][:prefix]) if prefix and mine else None
        for pieces in at_once(lambda batch: fitting(model, ids, batch, prefix, past), mine):
            found += pieces
            bar.update(sum(len(piece) for piece, _ in pieces))
        if not found:
            return [], np.empty((0, len(prompts.options)))
        hidden_BD = torch.cat([hidden_BD for _, hidden_BD in found])
        mass = log_mass(hidden_BD, model.get_output_embeddings(), prompts.options, at_once)
    return [i for piece, _ in found for i in piece], mass


def log_mass(hidden_BD: Tensor, head, options: Sequence[Sequence[int]], at_once: Callable = map) -> np.ndarray:
    """Log probability of each option's token set, float64 (B, N): logits and softmax in float32.

    The vocabulary is walked in slices, so that neither a float32 copy of the head nor a (B, V) matrix is ever held.
    Rows go through in blocks of one size, the last one filled up: a product's rounding depends on how many rows it
    has, and a prompt's score must not depend on how many others its process has scored. `at_once` maps over them.
    """
    n = len(hidden_BD)
    hidden_BD = hidden_BD.to(head.weight.device, torch.float32)
    blocks = torch.nn.functional.pad(hidden_BD, (0, 0, 0, -n % _ROWS)).split(_ROWS)
    return torch.cat(list(at_once(lambda block: _log_mass(block, head, options), blocks)))[:n].cpu().double().numpy()


@torch.inference_mode()
def _log_mass(hidden_BD: Tensor, head, options: Sequence[Sequence[int]]) -> Tensor:
    wanted = [torch.tensor(ids, device=hidden_BD.device) for ids in options]
    bias = getattr(head, "bias", None)
    total_B = torch.full((len(hidden_BD),), -torch.inf, device=hidden_BD.device)
    found = [[] for _ in options]
    for start in range(0, head.weight.shape[0], 8192):
        weight_VD = head.weight[start : start + 8192].float()
        bias_V = None if bias is None else bias[start : start + 8192].float()
        logits_BV = torch.nn.functional.linear(hidden_BD, weight_VD, bias_V)
        total_B = torch.logaddexp(total_B, torch.logsumexp(logits_BV, dim=-1))
        for kept, ids in zip(found, wanted, strict=True):
            kept.append(logits_BV[:, ids[(ids >= start) & (ids < start + 8192)] - start])
    return torch.stack([torch.logsumexp(torch.cat(k, 1), 1) - total_B for k in found], 1)


@torch.inference_mode()
def fitting(model, ids, batch: list[int], prefix: int, past) -> list[tuple[list[int], Tensor]]:
    """A batch's last hidden states (B, D), in as many pieces as memory asks for."""

    def read(piece: list[int]) -> list[tuple[list[int], Tensor]]:
        rows = [ids[i][prefix:] for i in piece]
        return [(piece, last(hidden(model, padded(rows), prefix, expand_prefix_cache(past, len(rows))), rows))]

    return list(with_oom_backoff(batch, read, lambda i: f"prompt of {len(ids[i])} tokens"))
