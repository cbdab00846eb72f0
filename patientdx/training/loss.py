"""Cross entropy of chosen tokens, without the logits of the others.

Axes: B rows, L positions, D hidden size, V vocabulary, N positions with a target.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from patientdx.lm.batching import padded
from patientdx.training.texts import Text

IGNORED = -100  # no target; transformers' Trainer counts the others
_ROWS = 256  # of logits that are held at a time


def inputs_and_targets(texts: Sequence[Text]) -> tuple[Tensor, Tensor]:
    """Inputs and targets (B, L) int64 of some texts: each position's target is the next token, or IGNORED.

    Padding is on the right and attention causal, so no mask is needed.
    """
    targets = [(*[IGNORED] * (text.first - 1), *text.ids[text.first :]) for text in texts]
    return padded([text.ids[:-1] for text in texts]), padded(targets, IGNORED)


def hidden_at(model, ids_BL: Tensor, rows_N: Tensor, positions_N: Tensor) -> Tensor:
    """(N, D) last hidden states of a causal language model at some positions.

    A matrix, not a (B, L, D) block: a head's product with the latter would copy the head for every row.
    """
    hidden_BLD = model.get_decoder()(input_ids=ids_BL, use_cache=False).last_hidden_state
    return hidden_BLD[rows_N, positions_N]


def target_losses(model, ids_BL: Tensor, targets_BL: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) float32 cross entropy of each target, row by row, and (N, D) the hidden states behind them.

    With gradients, through the model's own head (`lm.logprobs.token_losses` is without, in float32). Logits are
    computed for 256 positions at a time, and again in the backward pass: memory does not grow with N times V.
    """
    rows_N, positions_N = (targets_BL != IGNORED).nonzero(as_tuple=True)
    hidden_ND = hidden_at(model, ids_BL, rows_N, positions_N)
    targets_N = targets_BL[rows_N, positions_N]
    head = model.get_output_embeddings()
    parts = zip(hidden_ND.split(_ROWS), targets_N.split(_ROWS), strict=True)
    return torch.cat([checkpoint(_cross_entropy, head, *part, use_reentrant=False) for part in parts]), hidden_ND


def _cross_entropy(head, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(head(hidden_ND).float(), targets_N, reduction="none")


@torch.no_grad()
def evaluate_texts(model, ids_BL: Tensor, targets_BL: Tensor, options: Sequence[Sequence[int]]) -> Tensor:
    """(B, 3) float32 of each row: summed loss, number of targets, margin of option 0 at its last token.

    The margin is the log mass of option 0's tokens minus that of all other options', as in scoring; without `options`,
    where answers are not yes or no, it is 0.
    """
    losses_N, hidden_ND = target_losses(model, ids_BL, targets_BL)
    counts_B = (targets_BL != IGNORED).sum(1)
    margin_B = torch.zeros(len(counts_B), device=losses_N.device)
    if options:
        logits_BV = model.get_output_embeddings()(hidden_ND[counts_B.cumsum(0) - 1]).float()
        first, *others = (logits_BV[:, list(ids)] for ids in options)
        margin_B = first.logsumexp(1) - torch.cat(others, 1).logsumexp(1)
    sums_B = torch.stack([part.sum() for part in losses_N.split(counts_B.tolist())])
    return torch.stack([sums_B, counts_B.float(), margin_B], 1)
