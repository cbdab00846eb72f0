"""Yes/no scores: against the plain forward of every prompt alone, whatever the model, the batch and the prefix."""

import math

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from patientdx.lm.binary import Scores, log_mass, score
from patientdx.lm.load import load_model, load_tokenizer
from patientdx.lm.prompts import Prompts, tokenise

CPU = torch.device("cpu")
BATCHES = [1, 64, 100_000]
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "initializer_range": 0.2,
}


def scored(model, prompts, batch_tokens=1, rows=None):
    rows = range(len(prompts.ids)) if rows is None else rows
    positions, scores = score(model, prompts, rows, batch_tokens=batch_tokens)
    assert sorted(positions) == list(range(len(rows)))
    return scores[np.argsort(positions)]


def model_of(kind, **rest):
    torch.manual_seed(0)
    config = {"llama": LlamaConfig, "mistral": MistralConfig}[kind]
    return {"llama": LlamaForCausalLM, "mistral": MistralForCausalLM}[kind](config(**(SHAPE | rest))).eval()


@pytest.mark.parametrize("parent", ["tiny_base", "tiny_pivot"])
@pytest.mark.parametrize("batch_tokens", BATCHES)
@pytest.mark.parametrize("prefix", [0, 12])
def test_equals_the_plain_forward(request, parent, batch_tokens, prefix, make_prompts, plain):
    model = load_model(request.getfixturevalue(parent), dtype=torch.float32, device=CPU)
    prompts = make_prompts(prefix=prefix)
    expected = plain(model, prompts)
    np.testing.assert_allclose(scored(model, prompts, batch_tokens), expected, rtol=0, atol=1e-4)
    assert expected.std() > 1e-2  # the prompts do differ, so that agreement has a meaning


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("prefix", [12, 2])  # through the mask, and past it
def test_heads_of_attention_and_output(heads, tied, attention, prefix, make_prompts, plain):
    model = model_of("llama", num_key_value_heads=heads, tie_word_embeddings=tied, attn_implementation=attention)
    prompts = make_prompts(prefix=prefix)
    for batch_tokens in BATCHES:
        np.testing.assert_allclose(scored(model, prompts, batch_tokens), plain(model, prompts), rtol=0, atol=1e-5)
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize("window", [None, 4, 8, 16, 40])
@pytest.mark.parametrize("prefix", [0, 2, 12, 30])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_sliding_window(window, prefix, attention, make_prompts, plain):
    model = model_of("mistral", num_key_value_heads=2, sliding_window=window, attn_implementation=attention)
    prompts = make_prompts(prefix=prefix)
    expected = plain(model, prompts)
    for batch_tokens in BATCHES:
        np.testing.assert_allclose(scored(model, prompts, batch_tokens), expected, rtol=0, atol=1e-5)
    if window and window < 40:  # the window has an effect: without it the scores differ
        model.config.sliding_window = None
        unlimited = model_of("mistral", num_key_value_heads=2, sliding_window=None)
        assert np.abs(plain(unlimited, prompts) - expected).max() > 1e-2


def test_rows_of_one_split_keep_the_prefix_of_all_and_their_order(tiny, make_prompts, plain):
    prompts = make_prompts()
    expected = plain(tiny, prompts)[[5, 1, 3]]
    np.testing.assert_allclose(scored(tiny, prompts, 64, rows=[5, 1, 3]), expected, rtol=0, atol=1e-4)
    assert scored(tiny, prompts, rows=[]).shape == (0, 2)


def test_the_same_prompt_twice_and_alone(tiny, plain):
    prompts = Prompts(((7, 8, 9), (7, 8, 9)), ((3,), (5,)), 0, 100)
    assert prompts.prefix == 2
    np.testing.assert_allclose(scored(tiny, prompts, 64), plain(tiny, prompts), rtol=0, atol=1e-4)
    single = Prompts(((7,),), ((3,), (5,)), 0, 100)
    np.testing.assert_allclose(scored(tiny, single), plain(tiny, single), rtol=0, atol=1e-4)


def test_the_real_model_equals_the_plain_forward(smollm2, plain):
    model = load_model(smollm2, dtype=torch.float32, device=CPU)
    readings = [("heart rate", 118), ("lactate", 4.1), ("sodium", 139), ("glucose", 90), ("urea", 31), ("pH", 7.1)]
    parts = [("Patient in intensive care. ", f"{n}: {v}. " * (i + 1), "High?") for i, (n, v) in enumerate(readings)]
    prompts = tokenise(load_tokenizer(smollm2), parts, [["Yes", " Yes"], ["No", " No"]], chat=True)
    assert prompts.prefix > 20
    expected = plain(model, prompts)
    for batch_tokens in (1, 1000):
        np.testing.assert_allclose(scored(model, prompts, batch_tokens), expected, rtol=0, atol=1e-4)
    assert len(np.unique(expected[:, 0].round(3))) == 6


def test_margin_probability_and_mass():
    scores = Scores(np.log(np.array([[0.3, 0.1], [0.2, 0.2], [1e-9, 0.9]])))
    np.testing.assert_allclose(scores.margin, [math.log(3), 0.0, math.log(1e-9 / 0.9)])
    np.testing.assert_allclose(scores.probability, [0.75, 0.5, 1e-9 / (0.9 + 1e-9)])
    np.testing.assert_allclose(scores.mass, [0.4, 0.4, 0.9 + 1e-9])


@pytest.mark.parametrize("vocab", [50, 8192, 8193, 20_000])
@pytest.mark.parametrize("bias", [False, True])
def test_log_mass_walks_the_vocabulary_in_slices(vocab, bias):
    torch.manual_seed(0)
    head, hidden_BD = torch.nn.Linear(16, vocab, bias=bias), torch.randn(5, 16)
    options = ((0, vocab - 1, 7), (3,), (vocab // 2, 11))
    logp_BV = torch.log_softmax(head(hidden_BD).double(), -1)
    expected = torch.stack([torch.logsumexp(logp_BV[:, list(ids)], 1) for ids in options], 1)
    np.testing.assert_allclose(log_mass(hidden_BD, head, options), expected.detach().numpy(), rtol=0, atol=2e-6)


def test_variants_of_an_answer_add_up_as_a_set(tiny, make_prompts):
    apart = scored(tiny, make_prompts(options=((3,), (4,), (5,))))
    together = scored(tiny, make_prompts(options=((4, 3), (5,))))
    np.testing.assert_allclose(together[:, 0], np.logaddexp(apart[:, 0], apart[:, 1]), atol=1e-5)
    np.testing.assert_allclose(together[:, 1], apart[:, 2], atol=1e-5)
    all_tokens = scored(tiny, make_prompts(options=(tuple(range(1, tiny.config.vocab_size)), (0,))))
    np.testing.assert_allclose(Scores(all_tokens).mass, 1.0, atol=1e-5)


def test_a_float32_head_leaves_more_distinct_margins_than_a_bfloat16_one():
    torch.manual_seed(0)
    head, hidden_BD = torch.nn.Linear(64, 500, bias=False), torch.randn(200, 64)
    with torch.no_grad():
        head.weight[:, 0], hidden_BD[:, 0] = 1.4, 16.0  # logits about 22, where bfloat16's steps are 0.125
        head, hidden_BD = head.bfloat16(), hidden_BD.bfloat16()
        logits_BV = head(hidden_BD)
    coarse = len(torch.unique(logits_BV[:, 3].float() - logits_BV[:, 5].float()))
    fine = len(np.unique(Scores(log_mass(hidden_BD, head, ((3,), (5,)))).margin))
    assert fine > 190
    assert coarse < 50
