"""Yes/no of pairs: the scores are those of every prompt read alone; a shared document is a prefix."""

import pytest

from patientdx.lm.binary import score
from patientdx.lm.prompts import tokenise
from patientdx.lm.ranking import tokenise_pairs

OPTIONS = (("Yes", "yes"), ("No", "no"))
DOCUMENTS = ("Heart rate 118 bpm (60-100), lactate 2.4 mmol/L.", "Sodium 139 mEq/L (136-145).", "Nothing.")
QUERIES = ((0, "high heart rate"), (1, "high heart rate"), (0, "sodium"), (2, "sodium"), (0, "a lactate above 2"))
PARTS = [("Text:\n", DOCUMENTS[d], f"\n\nSearch: {query}\nYes or No?") for d, query in QUERIES]


@pytest.fixture(scope="module")
def prompts(tokenizer):
    return tokenise_pairs(tokenizer, PARTS, OPTIONS, [d for d, _ in QUERIES])


@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_scores_are_those_of_prompts_read_one_by_one(tokenizer, tiny, prompts, batch_tokens):
    plain = tokenise(tokenizer, PARTS, OPTIONS)
    assert (prompts.ids, prompts.options) == (plain.ids, plain.options)
    expected = dict(zip(*score(tiny, plain, range(5), batch_tokens=1), strict=True))
    scores = dict(zip(*score(tiny, prompts, range(5), batch_tokens=batch_tokens), strict=True))
    assert scores.keys() == set(range(5))
    for position, row in scores.items():
        assert row == pytest.approx(expected[position], abs=1e-4)
    assert score(tiny, prompts, [], batch_tokens=1)[1].shape == (0, 2)


def test_only_prompts_of_one_document_share_a_prefix(prompts):
    assert len(DOCUMENTS[0]) // 3 < prompts.prefixes[0] < min(len(prompts.ids[i]) for i in (0, 2, 4))
    assert prompts.prefixes[1] == prompts.prefixes[2] == 0  # nothing to share
    assert 0 < prompts.prefix < prompts.prefixes[0]


def test_other_documents_are_another_tokenization(tokenizer, prompts):
    other = tokenise_pairs(tokenizer, PARTS, OPTIONS, [0, 1, 2, 3, 4])
    assert other.ids == prompts.ids
    assert other.fingerprint != prompts.fingerprint
