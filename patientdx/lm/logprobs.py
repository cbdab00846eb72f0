"""Loss of every token of a record: one forward a record gives all that one forward can.

Axes: B rows of a batch, N predicted tokens of a batch, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from patientdx.core.errors import UserError
from patientdx.core.threads import workers
from patientdx.lm.batching import Batch, Prefix, hidden_states, plan_batches, run_batches

_SHORTER = "Shorten the text (task.template=compact, task.sections), set"
_ROWS, _SLICE = 512, 2048  # of a product with the head: 4 MB of logits, which stay in a core's cache


@dataclass(frozen=True)
class TokenLoss:
    """Of one record of L tokens, its tokens 2 to L: three arrays (L - 1,) float64, in nats.

    `nll` is -log p of the token itself. `mean` and `variance` are those of log p over the vocabulary under p, the
    model's distribution at that position; None without `moments`. The first token is predicted from nothing and has no
    loss.
    """

    nll: np.ndarray
    mean: np.ndarray | None = None
    variance: np.ndarray | None = None


def check_lengths(ids: Sequence[Sequence[int]], context: int | None, *, before: int = 0) -> None:
    """UserError for a record that has no token to predict, or that is longer than the model's context.

    before: tokens of a prefix that stands in front of each.
    """
    short = sum(len(row) < 2 for row in ids)
    if short:
        raise UserError(
            f"{short} of {len(ids)} records have fewer than 2 tokens, so no token has a loss. Leave them out, or give "
            "the task's text more sections."
        )
    longest = max((len(row) for row in ids), default=0) + before
    if context is not None and longest > context:
        behind_prefix = f" behind a prefix of {before}" if before else ""
        without = ", do without the prefix (privacy.recall=0)" if before else ""
        raise UserError(
            f"a record of {longest - before} tokens{behind_prefix} is longer than the model's context of {context}, "
            "and the loss of a record that is cut is not the record's. Shorten the text (task.template=compact, "
            f"task.sections){without}, or use a model with a longer context."
        )


@torch.inference_mode()
def token_losses(
    model,
    ids: Sequence[Sequence[int]],
    *,
    batch_tokens: int,
    moments: bool = True,
    prefix: Sequence[int] = (),
    shard: tuple[int, int] = (0, 1),
    label: str = "",
) -> tuple[list[int], list[TokenLoss]]:
    """Loss of every token but the first of the records `ids`, each behind `prefix`, which is run once.

    The hidden states go through the head in float32, in slices of the vocabulary: no (L, V) matrix of logits or
    log-probabilities is ever held, and memory does not grow with V. With `moments` the same pass gives mean and
    variance of log p under p. When memory runs out a batch is halved.
    shard: (rank, processes); this call takes every processes-th batch of the one plan.
    Returns the positions in `ids` measured here and their losses. UserError for records that are too short or too long,
    one that alone does not fit into memory, and a model whose losses are not finite numbers.
    """
    check_lengths(ids, getattr(model.config, "max_position_embeddings", None), before=len(prefix))

    def forward(positions: list[int], prefix: Prefix) -> list[TokenLoss]:
        rows = [ids[position] for position in positions]
        counts = [len(row) - 1 for row in rows]
        hidden_BLD = hidden_states(model, rows, prefix)
        hidden_ND = torch.cat([hidden_BLD[b, :count] for b, count in enumerate(counts)])
        target_N = torch.tensor([token for row in rows for token in row[1:]])
        del hidden_BLD
        columns = log_probabilities(hidden_ND, model.get_output_embeddings(), target_N, moments=moments)
        parts = [np.split(column, np.cumsum(counts)[:-1]) for column in columns]
        return [TokenLoss(-log_p, *rest) for log_p, *rest in zip(*parts, strict=True)]

    batches = [Batch(tuple(prefix), batch) for batch in plan_batches([len(row) for row in ids], batch_tokens)]
    with workers(model.device) as parallel_map:
        results = list(
            run_batches(
                model, batches, forward, describe=lambda i: f"record of {len(ids[i])} tokens", shard=shard,
                label=label, unit="record", advice=_SHORTER, map_batches=parallel_map,
            )
        )  # fmt: skip
    damaged = sum(not np.isfinite(loss.nll).all() for _, loss in results)
    if damaged:
        raise UserError(
            f"{damaged} of {len(results)} records have losses that are not numbers. Use dtype=float32; if that does "
            "not help, the model's weights are damaged."
        )
    return [position for position, _ in results], [loss for _, loss in results]


def log_probabilities(hidden_ND: Tensor, head, target_N: Tensor, *, moments: bool = True) -> tuple[np.ndarray, ...]:
    """log p of the targets (N,); with `moments` also mean (N,) and variance (N,) of log p over V under p. Float64.

    One pass over V in slices: logits in float32 minus the largest so far, and the sums of p, p·z and p·z², which are
    rescaled whenever a larger logit turns up (the online softmax of Milakov and Gimelshein 2018, carried to two
    moments).
    """
    weight_VD, bias_V = head.weight, getattr(head, "bias", None)
    hidden_ND = hidden_ND.to(weight_VD.device, torch.float32)
    blocks = zip(hidden_ND.split(_ROWS), target_N.to(weight_VD.device).split(_ROWS), strict=True)
    columns = [_online_softmax(hidden, weight_VD, bias_V, target, moments) for hidden, target in blocks]
    return tuple(torch.cat(column).cpu().double().numpy() for column in zip(*columns, strict=True))


def _online_softmax(hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, target_N: Tensor, moments: bool):
    target_logit = hidden_ND.new_zeros(len(hidden_ND), dtype=_sum_dtype(hidden_ND))
    top, sums = None, []
    for start in range(0, len(weight_VD), _SLICE):
        part = slice(start, start + _SLICE)
        bias = None if bias_V is None else bias_V[part].float()
        logits = torch.nn.functional.linear(hidden_ND, weight_VD[part].float(), bias)
        inside = ((target_N >= start) & (target_N < start + logits.shape[1])).nonzero(as_tuple=True)[0]
        target_logit[inside] = logits[inside, target_N[inside] - start].to(target_logit.dtype)
        highest = logits.amax(-1) if top is None else torch.maximum(top, logits.amax(-1))
        slice_sums = _sums(logits.sub_(highest[:, None]), moments)
        if top is not None:
            rescaled = _rescaled(sums, (top - highest).to(target_logit.dtype))
            slice_sums = [a + b for a, b in zip(slice_sums, rescaled, strict=True)]
        top, sums = highest, slice_sums
    assert top is not None, "a head has at least one row"
    log_total = sums[0].log()
    log_p = target_logit - top.to(target_logit.dtype) - log_total
    if not moments:
        return (log_p,)
    mean = sums[1] / sums[0]
    return log_p, mean - log_total, (sums[2] / sums[0] - mean.square()).clamp_min(0.0)


def _sums(z: Tensor, moments: bool) -> list[Tensor]:
    """Sums over the slice of exp z and, with `moments`, of z·exp z and z²·exp z, float64 (N,)."""
    p = z.exp()
    sums = [p.sum(-1)]
    for _ in range(2 if moments else 0):
        sums.append(p.mul_(z).sum(-1))
    return [column.to(_sum_dtype(column)) for column in sums]


def _sum_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype of sums: float64, and float32 on an Apple GPU, which has no float64."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _rescaled(sums: Sequence[Tensor], shift: Tensor) -> list[Tensor]:
    """The sums for z + shift in place of z, where shift (N,) is the growth of the largest logit, negative."""
    scale = shift.exp()
    rescaled = [scale * sums[0]]
    if len(sums) > 1:
        rescaled.append(scale * (sums[1] + shift * sums[0]))
        rescaled.append(scale * (sums[2] + 2 * shift * sums[1] + shift.square() * sums[0]))
    return rescaled
