import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from patientdx.core.errors import UserError
from patientdx.lm import logprobs as module
from patientdx.lm.generate import continuation
from patientdx.lm.load import load_model
from patientdx.lm.logprobs import log_probabilities, token_losses

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny(tiny_base):
    return load_model(tiny_base, dtype=torch.float32, device=CPU)


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
    return [one.numpy() for one in (-log_p[range(len(row) - 1), row[1:]], mean, variance)]


def in_order(model, ids, batch_tokens=1, **rest):
    done, found = token_losses(model, ids, batch_tokens=batch_tokens, **rest)
    return [found[done.index(i)] for i in range(len(ids))]


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
@pytest.mark.parametrize("before", [0, 11])
@pytest.mark.parametrize("width", [7, 2048])  # of a slice of the vocabulary: it does not divide V, and is longer than V
def test_losses_and_moments_equal_a_full_softmax(tiny, batch_tokens, before, width, monkeypatch):
    monkeypatch.setattr(module, "_SLICE", width)
    monkeypatch.setattr(module, "_ROWS", 5)
    ids, prefix = records(), records((11,))[0][:before]
    for row, one in zip(ids, in_order(tiny, ids, batch_tokens, prefix=prefix), strict=True):
        for found, expected in zip((one.nll, one.mean, one.variance), full_softmax(tiny, row, prefix), strict=True):
            assert found.dtype == np.float64
            assert found.shape == (len(row) - 1,)
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)


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
        found = log_probabilities(hidden, head, target)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other.detach().numpy(), rtol=2e-4, atol=2e-4)
        np.testing.assert_array_equal(log_probabilities(hidden, head, target, moments=False)[0], found[0])


def test_without_moments_the_losses_are_the_same_and_there_are_none(tiny):
    for one, other in zip(in_order(tiny, records(), moments=False), in_order(tiny, records()), strict=True):
        assert np.array_equal(one.nll, other.nll)
        assert one.mean is None
        assert one.variance is None


@pytest.mark.parametrize("batch_tokens", [1, 64])
def test_shards_of_several_processes_are_the_whole(tiny, batch_tokens):
    ids = records()
    whole, seen = in_order(tiny, ids, batch_tokens), []
    for rank in range(3):
        done, found = token_losses(tiny, ids, batch_tokens=batch_tokens, shard=(rank, 3))
        seen += done
        assert all(np.array_equal(one.nll, whole[i].nll) for i, one in zip(done, found, strict=True))
    assert sorted(seen) == list(range(len(ids)))


def test_the_number_of_threads_changes_no_bit(tiny):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(np.concatenate([one.nll for one in in_order(tiny, records(), 64)]))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*found)


def test_a_batch_that_does_not_fit_is_halved_and_one_record_that_does_not_is_refused(tiny, monkeypatch):
    whole, real = in_order(tiny, records(), 100_000), module._losses

    def cramped(rows, most):
        if len(rows) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(module, "_losses", lambda model, rows, *rest: cramped(rows, 2) or real(model, rows, *rest))
    for one, other in zip(in_order(tiny, records(), 100_000), whole, strict=True):
        np.testing.assert_allclose(one.nll, other.nll, rtol=0, atol=1e-5)
    monkeypatch.setattr(module, "_losses", lambda model, rows, *rest: cramped(rows, 0))
    with pytest.raises(UserError, match="one record of 30 tokens does not fit into memory"):
        token_losses(tiny, records(), batch_tokens=100_000)


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


def test_the_greedy_continuation_is_the_likeliest_token_each_time(tiny):
    start = records((9,))[0]
    row = list(start)
    with torch.no_grad():
        for _ in range(12):
            row.append(int(tiny(torch.tensor([row])).logits[0, -1].float().argmax()))
    assert continuation(tiny, start, 12) == row[9:]
    assert continuation(tiny, start, 0) == []
