"""Membership inference: was this record in the training data? Scores of losses; higher always means "member".

Losses are in nats per token. The published formulas are for losses or likelihoods with either sign; here the sign of
each is such that a member is expected to score higher.
"""

from __future__ import annotations

import zlib as compression
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Scores = NDArray[np.float64]


def of_losses(
    mean_loss: ArrayLike,
    compressed: ArrayLike,
    reference_loss: ArrayLike | None,
    population: ArrayLike,
    is_drawn: ArrayLike,
    *,
    out: ArrayLike | None = None,
) -> dict[str, Scores]:
    """By attack those that take a record's mean loss: loss and zlib, and with a reference model reference and rmia.

    `reference_loss` (n,): None without such a model. out (n,): likelihood under models without the record; None: under
    the reference. The other arguments as below.
    """
    scores = {"loss": loss(mean_loss), "zlib": zlib(mean_loss, compressed)}
    if reference_loss is not None:
        out = np.exp(-np.asarray(reference_loss)) if out is None else out
        scores["reference"] = reference(mean_loss, reference_loss)
        scores["rmia"] = rmia(np.exp(-np.asarray(mean_loss)), out, population, is_drawn)
    return scores


def loss(mean_loss: ArrayLike) -> Scores:
    """(n,) -L (Yeom et al. 2018). `mean_loss` (n,): L, a record's mean loss per token."""
    return -np.asarray(mean_loss, dtype=np.float64)


def zlib(mean_loss: ArrayLike, compressed: ArrayLike) -> Scores:
    """(n,) -L / bytes of the compressed text (Carlini et al. 2021, with the mean loss, as mimir has it).

    `compressed` (n,) as `compressed_bytes` counts them. Carlini divides the total log perplexity instead, which ranks
    records of other lengths differently.
    """
    return -np.asarray(mean_loss, dtype=np.float64) / np.asarray(compressed, dtype=np.float64)


def compressed_bytes(texts: Sequence[str]) -> NDArray[np.int64]:
    """(n,) length of each text in UTF-8 after zlib at its usual level."""
    return np.array([len(compression.compress(text.encode())) for text in texts], dtype=np.int64)


def reference(mean_loss: ArrayLike, reference_loss: ArrayLike) -> Scores:
    """(n,) L of another model minus L: how much likelier the record is than under a model without it.

    Carlini et al. 2021. `reference_loss` (n,): of the same tokens, so both models need one tokenizer.
    """
    return np.asarray(reference_loss, dtype=np.float64) - np.asarray(mean_loss, dtype=np.float64)


def min_k(nll: ArrayLike, k: float) -> float:
    """Mean log-likelihood of the k % least likely tokens of one record (Shi et al. 2024, Min-K% Prob).

    `nll` (T,): losses of its tokens. At least one token is taken.
    """
    nll = np.asarray(nll, dtype=np.float64)
    return float(-np.sort(nll)[::-1][: _count(len(nll), k)].mean())


def min_k_pp(nll: ArrayLike, mean: ArrayLike, variance: ArrayLike, k: float) -> float:
    """Min-K%++ of one record (Zhang et al. 2025): tokens are standardised before the k % lowest are averaged.

    A token's value is (log p - mean) / standard deviation, both of log p over the vocabulary under the model's own p:
    `nll`, `mean`, `variance` (T,) as in `patientdx.lm.logprobs.TokenLoss`. Where the model is certain of a single token
    there is no spread; the deviation is held at 1e-6 or more.
    """
    nll, mean = np.asarray(nll, dtype=np.float64), np.asarray(mean, dtype=np.float64)
    standard = (-nll - mean) / np.maximum(np.sqrt(np.asarray(variance, dtype=np.float64)), 1e-6)
    return float(np.sort(standard)[: _count(len(standard), k)].mean())


def rmia(
    likelihood: ArrayLike, out: ArrayLike, population: ArrayLike, is_drawn: ArrayLike, *, a: float = 1.0, g: float = 1.0
) -> Scores:
    """(n,) RMIA, offline (Zarifzadeh, Liu and Shokri, ICML 2024): which share of a population does the record dominate?

    A record x dominates z of the population where [P(x | model) / P(x)] / [P(z | model) / P(z)] is at least `g` (γ).
    P(x) is ((1 + a) P_out(x) + 1 - a) / 2, with P_out the mean likelihood under models without x; a is 1 where these
    models differ from the target in the record alone. Both are per token here, exp(-L): the authors take the
    probability of a class.

    likelihood (n,) of each record under the model, out (n,) under the others. population (m,): the records of z, by
    number. is_drawn (n, m): which of these count for a record, so not those of its own patient; at least one.
    """
    likelihood, out = np.asarray(likelihood, dtype=np.float64), np.asarray(out, dtype=np.float64)
    ratio = likelihood / (((1 + a) * out + 1 - a) / 2)
    counted = np.asarray(is_drawn, dtype=bool)
    dominated = (ratio[:, None] / ratio[np.asarray(population)] >= g) & counted
    return dominated.sum(axis=1) / counted.sum(axis=1)


def _count(tokens: int, k: float) -> int:
    return max(1, int(tokens * k / 100))


def neighbour(mean_loss: ArrayLike, neighbours_loss: ArrayLike) -> Scores:
    """(n,) mean L of the record's neighbours minus L (Mattern et al. 2023).

    `neighbours_loss` (n, m): each of m texts that differ from the record in some words.
    """
    return np.asarray(neighbours_loss, dtype=np.float64).mean(axis=1) - np.asarray(mean_loss, dtype=np.float64)


def recall(mean_loss: ArrayLike, prefixed_loss: ArrayLike) -> Scores:
    """(n,) L after a prefix of non-members over L (Xie et al. 2024, ReCaLL): such a prefix hurts members more.

    Both losses are of the same tokens.
    """
    return np.asarray(prefixed_loss, dtype=np.float64) / np.asarray(mean_loss, dtype=np.float64)
