"""Greedy continuation in batches: that of transformers' own generate, row by row; where it stops, and what is left."""

import pytest
import torch

from patientdx.core.errors import UserError
from patientdx.lm.generate import Continuation, end_tokens, generate, likeliest, texts
from patientdx.lm.load import load_model, load_tokenizer
from patientdx.lm.prompts import Prompts

LENGTH = 12


@pytest.fixture(scope="module")
def model(tiny_base):
    return load_model(tiny_base, dtype=torch.float32, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    return load_tokenizer(tiny_base)


@pytest.fixture(scope="module")
def prompts(tokenizer):
    parts = [f"The patient, {60 + i} years: " + "heart rate 88 bpm; " * (i % 5) + "yes or no?" for i in range(10)]
    return Prompts(tuple(tuple(tokenizer(part)["input_ids"]) for part in parts), (), 0, 2048)


@pytest.fixture(scope="module")
def plain(model, prompts):
    """Each prompt alone through transformers' own generate, without an end token."""
    found = []
    for row in prompts.ids:
        asked = torch.tensor([row])
        given = {"do_sample": False, "max_new_tokens": LENGTH, "eos_token_id": None, "pad_token_id": 0}
        found.append(model.generate(asked, attention_mask=torch.ones_like(asked), **given)[0, len(row) :].tolist())
    return found


def said(model, prompts, rows=None, **more) -> list[Continuation]:
    rows = range(len(prompts.ids)) if rows is None else rows
    places, found = generate(model, prompts, rows, **{"length": LENGTH, "ends": (), "batch_tokens": 4096} | more)
    assert sorted(places) == list(range(len(rows)))
    return [one for _, one in sorted(zip(places, found, strict=True), key=lambda pair: pair[0])]


@pytest.mark.parametrize("batch_tokens", [1, 120, 4096])
def test_every_row_says_what_it_says_alone(model, prompts, plain, batch_tokens):
    found = said(model, prompts, batch_tokens=batch_tokens)
    assert [list(one.ids) for one in found] == plain
    assert not any(one.ended for one in found)


def test_a_row_that_ends_leaves_and_the_others_go_on(model, prompts, plain):
    ends = (plain[0][3], plain[4][1])
    found = said(model, prompts, ends=ends)
    for one, whole in zip(found, plain, strict=True):
        stop = next((k for k, token in enumerate(whole) if token in ends), None)
        assert list(one.ids) == (whole if stop is None else whole[:stop])
        assert one.ended == (stop is not None)
    assert {one.ended for one in found} == {True, False}


def test_a_stop_text_ends_a_row_and_is_cut_off(model, prompts, plain, tokenizer):
    whole = tokenizer.decode(plain[2])
    stop = whole[4:7]
    found = said(model, prompts, [2], stopped=lambda ids: stop in tokenizer.decode(ids))
    assert found[0].ended
    assert len(found[0].ids) < LENGTH
    (text,) = texts(tokenizer, found, [stop])
    assert text == whole[: whole.index(stop)]


def test_shards_put_together_are_the_whole(model, prompts):
    whole = said(model, prompts, batch_tokens=150)
    found = {}
    for rank in range(3):
        places, ones = generate(model, prompts, range(10), length=LENGTH, ends=(), batch_tokens=150, shard=(rank, 3))
        found |= dict(zip(places, ones, strict=True))
    assert [found[i] for i in range(10)] == whole


def test_of_equally_likely_tokens_the_smaller_is_said():
    assert likeliest(torch.tensor([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0]])).tolist() == [1, 0]


def test_a_score_that_is_no_number_is_refused():
    for bad in (float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"a score that is not a number\. Use dtype=float32"):
            likeliest(torch.tensor([[1.0, 2.0], [bad, 0.0]]))
    assert likeliest(torch.tensor([[-torch.inf, 2.0]])).tolist() == [1]


def test_the_tokens_that_end_an_answer_are_the_models_and_the_tokenizers(model, tokenizer):
    assert tokenizer.eos_token_id in end_tokens(model, tokenizer)


def test_special_tokens_are_no_text(tokenizer):
    ids = tokenizer("yes<|im_end|>no")["input_ids"]
    assert list(texts(tokenizer, [Continuation(tuple(ids), True)])) == ["yesno"]
