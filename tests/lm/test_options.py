"""Whole answers scored behind a shardd question: against the plain forward, whatever the batch or the shard."""

import numpy as np
import pytest
import torch

from patientdx.core.errors import UserError
from patientdx.lm import multiple_choice as module
from patientdx.lm.batching import with_oom_backoff
from patientdx.lm.load import load_model, load_tokenizer
from patientdx.lm.multiple_choice import OptionPrompts, called, score_options, tokenise_options

LETTERS = ("A", "B", "C", "D")
TEXTS = ("heart rate", "No", "the interval of 60 to 100 bpm", "sodium")


@pytest.fixture(scope="module")
def model(tiny_base):
    return load_model(tiny_base, dtype=torch.float32, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    return load_tokenizer(tiny_base)


@pytest.fixture(scope="module")
def prompts(tokenizer):
    """Nine questions of two families and several lengths, with four options of few or many tokens; one has three."""
    parts = []
    for i in range(9):
        before = "Question: is it? Answer: Yes\n\n" if i % 3 else "The patient, 71 years.\n"
        parts.append((before, f"Heart rate {60 + 7 * i} bpm." * (1 + i % 4), f"\nQuestion {i}: which one?\nAnswer:"))
    found = [TEXTS if i % 2 else LETTERS for i in range(9)]
    found[4] = TEXTS[:3]
    return tokenise_options(tokenizer, parts, found)


def plainly(model, prompts: OptionPrompts) -> np.ndarray:
    """Every option behind its question through the whole causal language model, one at a time."""
    found = np.full((len(prompts.ids), prompts.width), np.nan)
    with torch.no_grad():
        for i, (row, options) in enumerate(zip(prompts.ids, prompts.continuations, strict=True)):
            for j, option in enumerate(options):
                log_p_LV = torch.log_softmax(model(torch.tensor([[*row, *option]])).logits[0].double(), -1)
                found[i, j] = sum(log_p_LV[len(row) - 1 + k, token].item() for k, token in enumerate(option))
    return found


def scored(model, prompts: OptionPrompts, rows=None, **more) -> np.ndarray:
    rows = range(len(prompts.ids)) if rows is None else rows
    places, values = score_options(model, prompts, rows, **{"batch_tokens": 1} | more)
    found = np.full((len(rows), prompts.width), np.nan)
    found[places] = values
    return found


@pytest.mark.parametrize("batch_tokens", [1, 90, 4096])
def test_sums_are_those_of_the_plain_forward(model, prompts, batch_tokens):
    found = scored(model, prompts, batch_tokens=batch_tokens)
    np.testing.assert_allclose(found, plainly(model, prompts), atol=2e-4)
    assert np.isnan(found).sum() == 1  # the fourth option that one question does not have
    assert np.isnan(found[4, 3])


def test_a_family_shards_its_beginning_and_only_its_own(prompts):
    assert set(prompts.families) == {0, 1}
    for family, n in prompts.prefixes.items():
        rows = [row for row, own in zip(prompts.ids, prompts.families, strict=True) if own == family]
        assert n >= 8
        assert len({row[:n] for row in rows}) == 1
        assert len({row[: n + 1] for row in rows}) > 1
    assert prompts.prefix == min(prompts.prefixes.values())


def test_shards_put_together_are_the_whole_bit_for_bit(model, prompts):
    whole = scored(model, prompts, batch_tokens=200)
    found = np.full_like(whole, np.nan)
    for rank in range(3):
        places, values = score_options(model, prompts, range(9), batch_tokens=200, shard=(rank, 3))
        found[places] = values
    np.testing.assert_array_equal(found, whole)


def test_a_question_alone_scores_as_among_others(model, prompts):
    whole = scored(model, prompts)
    for i in (0, 4, 5):
        np.testing.assert_array_equal(scored(model, prompts, [i])[0], whole[i])


def test_a_model_without_sdpa_gives_the_same(tiny_base, prompts, model):
    from transformers import AutoModelForCausalLM

    eager = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32, attn_implementation="eager").eval()
    np.testing.assert_allclose(scored(eager, prompts), scored(model, prompts), atol=2e-4)


def test_the_question_runs_once_and_an_option_to_its_second_last_token(model, prompts, tokenizer, monkeypatch):
    ran = []
    original = module.padded
    monkeypatch.setattr(module, "padded", lambda rows: (ran.append([len(row) for row in rows]), original(rows))[1])
    scored(model, prompts, [1])  # options as text
    (question,), tails = ran
    assert question == len(prompts.ids[1]) - prompts.prefixes[prompts.families[1]]
    assert tails == [len(option) - 1 for option in prompts.continuations[1] if len(option) > 1]
    ran.clear()
    short = tokenise_options(tokenizer, [("", "", "Is it so? Answer:")], [("yes", "no")])
    scored(model, short)  # answers of one token: nothing is left to run
    assert (len(ran), short.width) == (1, 2)


def test_an_option_is_the_tokens_that_it_adds_to_the_question(tokenizer):
    made = tokenise_options(tokenizer, [("", "", "Is it so? Answer:")], [("Yes", "No")])
    for option, text in zip(made.continuations[0], ("Yes", "No"), strict=True):
        assert (*made.ids[0], *option) == tuple(tokenizer(f"Is it so? Answer: {text}")["input_ids"])


def test_in_a_chat_the_option_follows_the_opened_answer_without_a_blank(tokenizer):
    made = tokenise_options(tokenizer, [("", "", "Is it so?")], [("Yes", "No")], chat=True)
    opened = "<|im_start|>user\nIs it so?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(made.ids[0]) == opened
    assert [tokenizer.decode(option) for option in made.continuations[0]] == ["Yes", "No"]


def test_a_long_record_is_cut_so_that_the_longest_option_fits(tokenizer):
    part = ("Abstract: ", "heart rate 88 bpm; " * 40, "\nQuestion: high?\nAnswer:")
    made = tokenise_options(tokenizer, [part], [TEXTS], limit=120)
    assert made.cut == 1
    assert len(made.ids[0]) + max(map(len, made.continuations[0])) - 1 <= 120
    assert tokenizer.decode(made.ids[0]).endswith("\nQuestion: high?\nAnswer:")
    assert made.continuations == tokenise_options(tokenizer, [part], [TEXTS]).continuations


def test_another_option_another_fingerprint(tokenizer):
    parts = [("", "", "Is it so? Answer:")]
    one, other = (tokenise_options(tokenizer, parts, [words]) for words in (("Yes", "No"), ("Yes", "no")))
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint == tokenise_options(tokenizer, parts, [("Yes", "No")]).fingerprint


def test_an_option_without_a_token_is_refused(tokenizer):
    with pytest.raises(UserError, match=r"the option '' of question 1 has no token of its own"):
        tokenise_options(tokenizer, [("", "", "Is it so?")], [("Yes", "")], chat=True)


def test_a_batch_is_halved_when_memory_runs_out_and_one_question_too_many_is_refused():
    def work(piece):
        if len(piece) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return [10 * one for one in piece]

    assert list(with_oom_backoff([1, 2, 3, 4, 5], work, called)) == [10, 20, 30, 40, 50]

    def never(piece):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(UserError, match="one question with its answers does not fit into memory"):
        list(with_oom_backoff([1, 2], never, called))

    def broken(piece):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(with_oom_backoff([1], broken, called))
