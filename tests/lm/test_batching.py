"""What holds for every scorer: shards, threads, prefixes and a lack of memory change no value; and the plan."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patientdx.core.errors import UserError
from patientdx.lm.batching import padded, plan_batches
from patientdx.lm.binary import score
from patientdx.lm.generate import generate
from patientdx.lm.logprobs import token_losses
from patientdx.lm.multiple_choice import OptionPrompts, score_options
from patientdx.lm.ranking import PairPrompts

COUNT, FAMILIES = 8, (0, 0, 1, 0, 2, 0, 1, 0)


def run_binary(model, prompts, **batching):
    return score(model, prompts, range(COUNT), **batching)


def run_ranking(model, prompts, **batching):
    pairs = PairPrompts(prompts.ids, prompts.options, 0, prompts.limit, FAMILIES)
    return score(model, pairs, range(COUNT), **batching)


def run_multiple_choice(model, prompts, **batching):
    continuations = tuple(((3,), (4, i), (5, 6, 7)) for i in range(COUNT))
    questions = OptionPrompts(prompts.ids, (), 0, prompts.limit, FAMILIES, continuations)
    return score_options(model, questions, range(COUNT), **batching)


def run_logprobs(model, prompts, **batching):
    records = [row[prompts.prefix - 2 :] for row in prompts.ids]  # of at least two tokens
    positions, losses = token_losses(model, records, prefix=prompts.ids[0][: prompts.prefix], **batching)
    return positions, [loss.nll for loss in losses]


def run_generate(model, prompts, **batching):
    positions, texts = generate(model, prompts, range(COUNT), length=4, ends=(), **batching)
    return positions, [np.array(text.ids) for text in texts]


SCORERS = {
    "prompt of 42 tokens": run_binary,
    "prompt of 42 tokens ": run_ranking,
    "question with its answers": run_multiple_choice,
    "record of 32 tokens": run_logprobs,
    "question with its answers ": run_generate,
}


def in_order(run, model, prompts, batch_tokens=64, shard=(0, 1)) -> dict[int, np.ndarray]:
    return dict(zip(*run(model, prompts, batch_tokens=batch_tokens, shard=shard), strict=True))


def assert_same(values: dict[int, np.ndarray], expected: dict[int, np.ndarray], atol: float = 0.0) -> None:
    assert values.keys() == expected.keys() == set(range(COUNT))
    for i, value in values.items():
        np.testing.assert_allclose(value, expected[i], rtol=0, atol=atol)


@pytest.fixture(params=SCORERS, ids=[run.__name__ for run in SCORERS.values()])
def run(request):
    return SCORERS[request.param]


@pytest.mark.parametrize("batch_tokens", [1, 64])
@pytest.mark.parametrize("count", [2, 20])
def test_shards_of_several_processes_make_up_all_bit_for_bit(run, tiny, make_prompts, batch_tokens, count):
    values = {}
    for rank in range(count):
        shard = in_order(run, tiny, make_prompts(), batch_tokens, (rank, count))
        assert not values.keys() & shard.keys()
        values |= shard
    assert_same(values, in_order(run, tiny, make_prompts(), batch_tokens))


def test_the_number_of_threads_changes_no_bit_and_is_left_as_it_was(run, tiny, make_prompts):
    before, values = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            values.append(in_order(run, tiny, make_prompts()))
            with pytest.raises(IndexError):
                in_order(run, tiny, make_prompts(vocab=1000))  # ids beyond the vocabulary
            assert torch.get_num_threads() == threads
            assert tiny.config._attn_implementation == "sdpa"
    finally:
        torch.set_num_threads(before)
    assert_same(values[1], values[0])


@pytest.mark.parametrize("most", [46, 90, 1000])
def test_a_batch_is_halved_when_memory_runs_out_and_scores_stay(run, tiny, make_prompts, limited, most):
    model = limited(tiny, most)
    values = in_order(run, model, make_prompts(), 100_000)
    assert_same(values, in_order(run, tiny, make_prompts(), 100_000), atol=1e-4)
    assert any(rows * width > most for rows, width in model.widths) == (most < 240)
    assert len(model.widths) < 60


@pytest.mark.parametrize(("name", "run"), SCORERS.items(), ids=[run.__name__ for run in SCORERS.values()])
def test_a_row_that_does_not_fit_alone_is_refused(name, run, tiny, make_prompts, limited):
    message = (
        rf"^one {name.strip()} does not fit into memory \(CUDA out of memory. Tried to allocate 2.00 GiB.\). .*"
        r"dtype=bfloat16, or use a larger device.$"
    )
    with pytest.raises(UserError, match=message):
        in_order(run, limited(tiny, 29), make_prompts())


def test_other_errors_are_not_taken_for_a_lack_of_memory(run, tiny, make_prompts, limited):
    with pytest.raises(RuntimeError, match=r"^the device is gone$"):
        in_order(run, limited(tiny, 29, "the device is gone"), make_prompts())


@pytest.mark.parametrize(("run", "alone"), [(run_binary, ()), (run_ranking, (4,))])  # one document has one question
def test_a_prefix_runs_once_and_each_row_once(run, alone, tiny, make_prompts, limited):
    model, prompts = limited(tiny), make_prompts()
    in_order(run, model, prompts, 1)
    lengths = [len(row) - (0 if i in alone else prompts.prefix) for i, row in enumerate(prompts.ids)]
    assert model.widths[0] == (1, prompts.prefix)
    # One after another; the threads of a CPU may run them in another order.
    assert sorted(model.widths[1:]) == sorted((1, n) for n in lengths)


def test_models_that_change_their_logits_after_the_head_are_refused(run, tiny, make_prompts, monkeypatch):
    monkeypatch.setattr(tiny.config, "final_logit_softcapping", 30.0, raising=False)
    message = (
        r"^llama changes its logits after the head \(final_logit_softcapping\), which scoring does not reproduce. "
        "Use a model of the Llama or Mistral family.$"
    )
    with pytest.raises(UserError, match=message):
        in_order(run, tiny, make_prompts())


@given(st.lists(st.integers(1, 300), max_size=40), st.integers(1, 2000))
def test_a_plan_holds_each_row_once_within_the_budget_longest_first(lengths, budget):
    batches = plan_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= budget
    planned = [lengths[i] for batch in batches for i in batch]
    assert planned == sorted(lengths, reverse=True)


def test_rows_are_padded_on_the_right():
    assert padded([(1, 2, 3), (4,)], -100).tolist() == [[1, 2, 3], [4, -100, -100]]
