"""Answers of several tokens behind a shared question: against the plain forward, and how they are tokenised."""

import numpy as np
import pytest
import torch

from patientdx.core.errors import UserError
from patientdx.lm.multiple_choice import OptionPrompts, score_options, tokenise_options

LETTERS = ("A", "B", "C", "D")
TEXTS = ("heart rate", "No", "the interval of 60 to 100 bpm", "sodium")


@pytest.fixture(scope="module")
def prompts(tokenizer):
    """Nine questions of two families and several lengths, with four options of few or many tokens; one has three."""
    parts = []
    for i in range(9):
        before = "Question: is it? Answer: Yes\n\n" if i % 3 else "The patient, 71 years.\n"
        parts.append((before, f"Heart rate {60 + 7 * i} bpm." * (1 + i % 4), f"\nQuestion {i}: which one?\nAnswer:"))
    options = [TEXTS if i % 2 else LETTERS for i in range(9)]
    options[4] = TEXTS[:3]
    return tokenise_options(tokenizer, parts, options)


def plainly(model, prompts: OptionPrompts) -> np.ndarray:
    """Every option behind its question through the whole causal language model, one at a time."""
    sums = np.full((len(prompts.ids), prompts.width), np.nan)
    with torch.no_grad():
        for i, (row, options) in enumerate(zip(prompts.ids, prompts.continuations, strict=True)):
            for j, option in enumerate(options):
                log_p_LV = torch.log_softmax(model(torch.tensor([[*row, *option]])).logits[0].double(), -1)
                sums[i, j] = sum(log_p_LV[len(row) - 1 + k, token].item() for k, token in enumerate(option))
    return sums


def scored(model, prompts: OptionPrompts, rows=None, **more) -> np.ndarray:
    rows = range(len(prompts.ids)) if rows is None else rows
    positions, values = score_options(model, prompts, rows, **{"batch_tokens": 1} | more)
    return values[np.argsort(positions)]


@pytest.mark.parametrize("batch_tokens", [1, 90, 4096])
def test_sums_are_those_of_the_plain_forward(tiny, prompts, batch_tokens):
    sums = scored(tiny, prompts, batch_tokens=batch_tokens)
    np.testing.assert_allclose(sums, plainly(tiny, prompts), atol=2e-4)
    assert np.isnan(sums).sum() == 1  # the fourth option that one question does not have
    assert np.isnan(sums[4, 3])


def test_a_family_shares_its_beginning_and_no_more(prompts):
    assert set(prompts.families) == {0, 1}
    for family, n in prompts.prefixes.items():
        rows = [row for i, row in enumerate(prompts.ids) if prompts.families[i] == family]
        assert n >= 8
        assert len({row[:n] for row in rows}) == 1
        assert len({row[: n + 1] for row in rows}) > 1
    assert prompts.prefix == min(prompts.prefixes.values())


def test_a_question_alone_scores_as_among_others(tiny, prompts):
    scores = scored(tiny, prompts)
    for i in (0, 4, 5):
        np.testing.assert_array_equal(scored(tiny, prompts, [i])[0], scores[i])


def test_a_model_without_sdpa_gives_the_same(tiny_base, prompts, tiny):
    from transformers import AutoModelForCausalLM

    eager = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32, attn_implementation="eager").eval()
    np.testing.assert_allclose(scored(eager, prompts), scored(tiny, prompts), atol=2e-4)


def test_the_question_runs_once_and_an_option_to_its_second_last_token(tiny, prompts, tokenizer, limited):
    model = limited(tiny)
    scored(model, prompts, [1])  # options as text
    prefix = prompts.prefixes[prompts.families[1]]
    tails = [len(option) - 1 for option in prompts.continuations[1] if len(option) > 1]
    assert model.widths == [(1, prefix), (1, len(prompts.ids[1]) - prefix), (len(tails), max(tails))]
    model.widths.clear()
    short = tokenise_options(tokenizer, [("", "", "Is it so? Answer:")], [("yes", "no")])
    scored(model, short)  # answers of one token: nothing is left to run
    assert (len(model.widths), short.width) == (2, 2)


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
