import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from patientdx.core.errors import UserError
from patientdx.lm.batching import plan_batches
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


def scored(model, prompts, batch_tokens=1, shard=(0, 1), rows=None):
    rows = range(len(prompts.ids)) if rows is None else rows
    done, found = score(model, prompts, rows, batch_tokens=batch_tokens, shard=shard)
    return found[np.argsort(done)], sorted(done)


def model_of(kind, **rest):
    torch.manual_seed(0)
    config = {"llama": LlamaConfig, "mistral": MistralConfig}[kind]
    return {"llama": LlamaForCausalLM, "mistral": MistralForCausalLM}[kind](config(**(SHAPE | rest))).eval()


@pytest.fixture
def tiny(tiny_base):
    return load_model(tiny_base, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("parent", ["tiny_base", "tiny_pivot"])
@pytest.mark.parametrize("batch_tokens", BATCHES)
@pytest.mark.parametrize("prefix", [0, 12])
def test_equals_the_plain_forward(request, parent, batch_tokens, prefix, make_prompts, plain):
    model = load_model(request.getfixturevalue(parent), dtype=torch.float32, device=CPU)
    prompts = make_prompts(prefix=prefix)
    found, done = scored(model, prompts, batch_tokens)
    assert done == list(range(len(prompts.ids)))
    expected = plain(model, prompts)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert expected.std() > 1e-2  # the prompts do differ, so that agreement says something


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("prefix", [12, 2])  # through the mask, and past it
def test_heads_of_attention_and_output(heads, tied, attention, prefix, make_prompts, plain):
    model = model_of("llama", num_key_value_heads=heads, tie_word_embeddings=tied, attn_implementation=attention)
    prompts = make_prompts(prefix=prefix)
    for batch_tokens in BATCHES:
        np.testing.assert_allclose(scored(model, prompts, batch_tokens)[0], plain(model, prompts), rtol=0, atol=1e-5)
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize("window", [None, 4, 8, 16, 40])
@pytest.mark.parametrize("prefix", [0, 2, 12, 30])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_sliding_window(window, prefix, attention, make_prompts, plain):
    model = model_of("mistral", num_key_value_heads=2, sliding_window=window, attn_implementation=attention)
    prompts = make_prompts(prefix=prefix)
    expected = plain(model, prompts)
    for batch_tokens in BATCHES:
        np.testing.assert_allclose(scored(model, prompts, batch_tokens)[0], expected, rtol=0, atol=1e-5)
    if window and window < 40:  # the window is at work: without it the scores are others
        model.config.sliding_window = None
        whole = model_of("mistral", num_key_value_heads=2, sliding_window=None)
        assert np.abs(plain(whole, prompts) - expected).max() > 1e-2


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_model_is_left_as_it_was(attention, make_prompts):
    model = model_of("llama", attn_implementation=attention)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = scored(model, make_prompts())[0]
    scored(model, make_prompts(prefix=2), 64)
    with pytest.raises(IndexError):
        scored(model, make_prompts(vocab=1000))  # ids beyond the vocabulary
    assert model.config._attn_implementation == attention
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert np.array_equal(scored(model, make_prompts())[0], first)


@pytest.mark.parametrize("batch_tokens", BATCHES)
@pytest.mark.parametrize("count", [2, 3, 20])
def test_shards_of_several_processes_are_the_whole(tiny, batch_tokens, count, make_prompts):
    prompts = make_prompts()
    whole, _ = scored(tiny, prompts, batch_tokens)
    found, seen = np.full_like(whole, np.nan), []
    for rank in range(count):
        done, values = score(tiny, prompts, range(8), batch_tokens=batch_tokens, shard=(rank, count))
        assert values.shape == (len(done), 2)
        found[done] = values
        seen += done
    assert sorted(seen) == list(range(8))
    assert np.array_equal(found, whole)  # the plan is one, so the numbers are the same to the last bit


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_of_threads_changes_no_bit_and_is_left_as_it_was(tiny_base, dtype, make_prompts):
    model = load_model(tiny_base, dtype=dtype, device=CPU)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(scored(model, make_prompts(), 64)[0])
            with pytest.raises(IndexError):
                scored(model, make_prompts(vocab=1000))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_rows_of_one_split_keep_the_prefix_of_all_and_their_own_order(tiny, make_prompts, plain):
    prompts = make_prompts()
    found, done = scored(tiny, prompts, 64, rows=[5, 1, 3])
    assert done == [0, 1, 2]
    np.testing.assert_allclose(found, plain(tiny, prompts)[[5, 1, 3]], rtol=0, atol=1e-4)
    none, done = scored(tiny, prompts, rows=[])
    assert (none.shape, done) == ((0, 2), [])


def test_the_same_prompt_twice_and_alone(tiny, plain):
    prompts = Prompts(((7, 8, 9), (7, 8, 9)), ((3,), (5,)), 0, 100)
    assert prompts.prefix == 2
    np.testing.assert_allclose(scored(tiny, prompts, 64)[0], plain(tiny, prompts), rtol=0, atol=1e-4)
    single = Prompts(((7,),), ((3,), (5,)), 0, 100)
    np.testing.assert_allclose(scored(tiny, single)[0], plain(tiny, single), rtol=0, atol=1e-4)


def test_the_real_model_equals_the_plain_forward(smollm2, plain):
    model = load_model(smollm2, dtype=torch.float32, device=CPU)
    readings = [("heart rate", 118), ("lactate", 4.1), ("sodium", 139), ("glucose", 90), ("urea", 31), ("pH", 7.1)]
    parts = [("Patient in intensive care. ", f"{n}: {v}. " * (i + 1), "High?") for i, (n, v) in enumerate(readings)]
    prompts = tokenise(load_tokenizer(smollm2), parts, [["Yes", " Yes"], ["No", " No"]], chat=True)
    assert prompts.prefix > 20
    expected = plain(model, prompts)
    for batch_tokens in (1, 1000):
        np.testing.assert_allclose(scored(model, prompts, batch_tokens)[0], expected, rtol=0, atol=1e-4)
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
    apart = scored(tiny, make_prompts(options=((3,), (4,), (5,))))[0]
    together = scored(tiny, make_prompts(options=((4, 3), (5,))))[0]
    np.testing.assert_allclose(together[:, 0], np.logaddexp(apart[:, 0], apart[:, 1]), atol=1e-5)
    np.testing.assert_allclose(together[:, 1], apart[:, 2], atol=1e-5)
    all_tokens = scored(tiny, make_prompts(options=(tuple(range(1, tiny.config.vocab_size)), (0,))))[0]
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


@given(st.lists(st.integers(1, 300), max_size=40), st.integers(1, 2000))
def test_plan_holds_each_prompt_once_within_the_budget_longest_first(lengths, budget):
    batches = plan_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= budget
    in_order = [lengths[i] for batch in batches for i in batch]
    assert in_order == sorted(lengths, reverse=True)


NO_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB.\nMore words."


class Small:
    """A model whose decoder runs out of memory above so many padded tokens."""

    def __init__(self, model, most: int, words: str = NO_MEMORY) -> None:
        self.model, self.most, self.words, self.widths = model, most, words, []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def get_decoder(self):
        def forward(input_ids, **rest):
            self.widths.append(tuple(input_ids.shape))
            if input_ids.numel() > self.most:
                raise torch.OutOfMemoryError(self.words)
            return self.model.get_decoder()(input_ids=input_ids, **rest)

        return forward


@pytest.mark.parametrize("most", [30, 60, 90, 1000])
def test_out_of_memory_halves_the_batch_and_keeps_the_scores(tiny, most, make_prompts, plain):
    prompts, small = make_prompts(), Small(tiny, most)
    found, done = scored(small, prompts, 100_000)
    assert done == list(range(8))
    np.testing.assert_allclose(found, plain(tiny, prompts), rtol=0, atol=1e-4)
    tried = [width for width in small.widths if width[0] * width[1] > most]
    assert bool(tried) == (most < 240)
    assert small.widths[1] == (8, 30)  # after the prefix, all at once
    assert len(small.widths) < 20


def test_a_prompt_that_does_not_fit_alone(tiny, make_prompts):
    words = (
        r"^one prompt of 42 tokens does not fit into memory \(CUDA out of memory. Tried to allocate 2.00 GiB.\). "
        r"Set scoring.max_tokens lower, dtype=bfloat16, or use a larger device.$"
    )
    with pytest.raises(UserError, match=words):
        scored(Small(tiny, 29), make_prompts(), 64)


def test_other_errors_are_not_taken_for_a_lack_of_memory(tiny, make_prompts):
    with pytest.raises(RuntimeError, match=r"^the device is gone$"):
        scored(Small(tiny, 29, "the device is gone"), make_prompts(), 64)


def test_models_that_change_their_logits_after_the_head_are_refused(tiny, make_prompts):
    tiny.config.final_logit_softcapping = 30.0
    words = (
        r"^llama changes its logits after the head \(final_logit_softcapping\), which scoring does not reproduce. "
        "Use a model of the Llama or Mistral family.$"
    )
    with pytest.raises(UserError, match=words):
        scored(tiny, make_prompts())


def test_each_prompt_is_run_once_and_the_prefix_once(tiny, make_prompts):
    prompts, small = make_prompts(), Small(tiny, 10_000)
    scored(small, prompts, 1)
    # One after another; the threads of a CPU may pass each other.
    assert small.widths[0] == (1, 12)
    assert sorted(small.widths[1:]) == sorted((1, n) for n in (3, 30, 9, 1, 17, 30, 8, 2))
