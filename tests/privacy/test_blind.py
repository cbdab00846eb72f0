import numpy as np
import pytest

from patientdx.metrics.ranking import auroc
from patientdx.privacy.blind import blind_scores


def make(shifted, n=200):
    random = np.random.default_rng(0)
    member = np.arange(n) % 2
    words = random.choice(["one", "two", "three", "four"], (n, 6))
    texts = [" ".join(row) + (" new" if m and shifted else "") for row, m in zip(words, member, strict=True)]
    return texts, random.integers(50, 60, n) + 5 * member * shifted, member, [str(i // 4) for i in range(n)]


def test_a_split_that_differs_in_a_word_and_in_length_is_found_without_the_model():
    texts, tokens, member, subject = make(True)
    subject = [f"{m}-{s}" for m, s in zip(member, subject, strict=True)]
    result = blind_scores(texts, tokens, member, subject)
    assert auroc(result["bag_of_words"], member) > 0.99
    assert 0.6 < auroc(result["length"], member) < 0.99


def test_a_random_split_is_not_told_apart():
    result = blind_scores(*make(False))
    for name in ("bag_of_words", "length"):
        assert auroc(result[name], make(False)[2]) < 0.62, name  # three standard errors above 0.5


def test_no_record_is_scored_by_a_model_that_saw_its_patient():
    """Every patient has a word of their own, in members and non-members alike in form: only a leak could use it."""
    member = np.repeat(np.arange(40) % 2, 5)
    subject = np.repeat(np.arange(40), 5).astype(str)
    texts = [f"word{'abcdefghij'[int(s) % 10]}{'klmn'[int(s) // 10]}" for s in subject]
    result = blind_scores(texts, np.full(200, 7), member, list(subject))
    assert auroc(result["bag_of_words"], member) == pytest.approx(0.5, abs=0.2)
