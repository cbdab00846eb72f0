"""Losses of tokens and their moments: against a softmax over the full vocabulary in float64."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from patientdx.core.errors import UserError
from patientdx.lm import logprobs as module
from patientdx.lm.logprobs import log_probabilities, token_losses


def records(lengths=(3, 30, 9, 2, 17, 30, 8), vocab=300):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, vocab, (n,), generator=generator).tolist() for n in lengths]


@torch.no_grad()
def full_softmax(model, row, before=()):
    """nll, mean and variance of tokens 2 to L by the whole causal model and a (L, V) matrix in float64."""
    logits = model(torch.tensor([[*before, *row]])).logits[0, len(before) :].double()
    log_p = torch.log_softmax(logits[:-1], -1)
    p = log_p.exp()
    mean = (p * log_p).sum(-1)
    variance = (p * (log_p - mean[:, None]) ** 2).sum(-1)
    return [column.numpy() for column in (-log_p[range(len(row) - 1), row[1:]], mean, variance)]


def in_order(model, ids, batch_tokens=1, **rest):
    positions, losses = token_losses(model, ids, batch_tokens=batch_tokens, **rest)
    return [losses[positions.index(i)] for i in range(len(ids))]


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
@pytest.mark.parametrize("before", [0, 11])
@pytest.mark.parametrize("width", [7, 2048])  # of a slice of the vocabulary: one does not divide V, one is longer
def test_losses_and_moments_equal_a_full_softmax(tiny, batch_tokens, before, width, monkeypatch):
    monkeypatch.setattr(module, "_SLICE", width)
    monkeypatch.setattr(module, "_ROWS", 5)
    ids, prefix = records(), records((11,))[0][:before]
    for row, loss in zip(ids, in_order(tiny, ids, batch_tokens, prefix=prefix), strict=True):
        for column, expected in zip((loss.nll, loss.mean, loss.variance), full_softmax(tiny, row, prefix), strict=True):
            assert column.dtype == np.float64
            assert column.shape == (len(row) - 1,)
            np.testing.assert_allclose(column, expected, rtol=0, atol=2e-4)


def test_a_head_with_a_bias_and_far_apart_logits():
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 5000)
    head.weight.data *= 20
    hidden, target = torch.randn(9, 8), torch.randint(0, 5000, (9,))
    log_p = torch.log_softmax(torch.nn.functional.linear(hidden.double(), head.weight.double(), head.bias.double()), -1)
    p = log_p.exp()
    mean = (p * log_p).sum(-1)
    expected = log_p[range(9), target], mean, (p * (log_p - mean[:, None]) ** 2).sum(-1)
    with torch.inference_mode():
        columns = log_probabilities(hidden, head, target)
        for column, exact in zip(columns, expected, strict=True):
            np.testing.assert_allclose(column, exact.detach().numpy(), rtol=2e-4, atol=2e-4)
        np.testing.assert_array_equal(log_probabilities(hidden, head, target, moments=False)[0], columns[0])


def test_without_moments_the_losses_are_the_same_and_there_are_none(tiny):
    for loss, other in zip(in_order(tiny, records(), moments=False), in_order(tiny, records()), strict=True):
        assert np.array_equal(loss.nll, other.nll)
        assert loss.mean is None
        assert loss.variance is None


def test_records_too_short_or_too_long_are_refused(tiny):
    with pytest.raises(UserError, match="1 of 2 records have fewer than 2 tokens"):
        token_losses(tiny, [[1, 2], [3]], batch_tokens=1)
    with pytest.raises(UserError, match=r"a record of 2049 tokens is longer than the model's context of 2048"):
        token_losses(tiny, [[1] * 2049], batch_tokens=1)
    with pytest.raises(UserError, match=r"2040 tokens behind a prefix of 9 is longer.*privacy\.recall=0"):
        token_losses(tiny, [[1] * 2040], batch_tokens=1, prefix=[1] * 9)


def test_a_model_without_finite_losses_is_refused():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**shape, vocab_size=20)).eval()
    model.model.norm.weight.data[:] = torch.nan
    with pytest.raises(UserError, match="2 of 2 records have losses that are not numbers"):
        token_losses(model, [[1, 2, 3], [4, 5]], batch_tokens=1)
