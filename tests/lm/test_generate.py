"""Greedy continuation in batches: that of transformers' generate, row by row; its end, and its text."""

import pytest
import torch

from patientdx.core.errors import UserError
from patientdx.lm.generate import Continuation, continuation, end_tokens, generate, likeliest, texts
from patientdx.lm.prompts import Prompts

LENGTH = 12


@pytest.fixture(scope="module")
def prompts(tokenizer):
    parts = [f"The patient, {60 + i} years: " + "heart rate 88 bpm; " * (i % 5) + "yes or no?" for i in range(10)]
    return Prompts(tuple(tuple(tokenizer(part)["input_ids"]) for part in parts), (), 0, 2048)


@pytest.fixture(scope="module")
def plain(tiny, prompts):
    """Each prompt alone through transformers' generate, without an end token."""
    rows = []
    for row in prompts.ids:
        ids = torch.tensor([row])
        settings = {"do_sample": False, "max_new_tokens": LENGTH, "eos_token_id": None, "pad_token_id": 0}
        rows.append(tiny.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(row) :].tolist())
    return rows


def continuations(model, prompts, rows=None, **more) -> list[Continuation]:
    rows = range(len(prompts.ids)) if rows is None else rows
    results = generate(model, prompts, rows, **{"length": LENGTH, "ends": (), "batch_tokens": 4096} | more)
    by_position = dict(zip(*results, strict=True))
    return [by_position[position] for position in range(len(rows))]


@pytest.mark.parametrize("batch_tokens", [1, 120, 4096])
def test_every_row_continues_as_it_does_alone(tiny, prompts, plain, batch_tokens):
    results = continuations(tiny, prompts, batch_tokens=batch_tokens)
    assert [list(row.ids) for row in results] == plain
    assert not any(row.ended for row in results)


def test_a_row_that_ends_leaves_and_the_others_go_on(tiny, prompts, plain):
    ends = (plain[0][3], plain[4][1])
    results = continuations(tiny, prompts, ends=ends)
    for row, alone in zip(results, plain, strict=True):
        stop = next((k for k, token in enumerate(alone) if token in ends), None)
        assert list(row.ids) == (alone if stop is None else alone[:stop])
        assert row.ended == (stop is not None)
    assert {row.ended for row in results} == {True, False}


def test_a_stop_text_ends_a_row_and_is_cut_off(tiny, prompts, plain, tokenizer):
    full = tokenizer.decode(plain[2])
    stop = full[4:7]
    results = continuations(tiny, prompts, [2], stopped=lambda ids: stop in tokenizer.decode(ids))
    assert results[0].ended
    assert len(results[0].ids) < LENGTH
    (text,) = texts(tokenizer, results, [stop])
    assert text == full[: full.index(stop)]


def test_of_equally_likely_tokens_the_smaller_is_chosen():
    assert likeliest(torch.tensor([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0]])).tolist() == [1, 0]


def test_a_score_that_is_no_number_is_refused():
    for bad in (float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"a score that is not a number\. Use dtype=float32"):
            likeliest(torch.tensor([[1.0, 2.0], [bad, 0.0]]))
    assert likeliest(torch.tensor([[-torch.inf, 2.0]])).tolist() == [1]


def test_the_tokens_that_end_an_answer_are_the_models_and_the_tokenizers(tiny, tokenizer):
    assert tokenizer.eos_token_id in end_tokens(tiny, tokenizer)


def test_special_tokens_are_no_text(tokenizer):
    ids = tokenizer("yes<|im_end|>no")["input_ids"]
    assert list(texts(tokenizer, [Continuation(tuple(ids), True)])) == ["yesno"]


def test_the_continuation_of_one_row_does_not_end(tiny, prompts, plain):
    assert [continuation(tiny, row, LENGTH) for row in prompts.ids] == plain
    assert continuation(tiny, prompts.ids[0], 0) == []
