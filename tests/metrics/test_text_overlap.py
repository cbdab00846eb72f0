"""ROUGE, BLEU and chrF by hand and against the libraries' own corpus functions; what the bootstrap draws."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from patientdx.metrics.bootstrap import interval, patient_weights
from patientdx.metrics.paired import paired_estimate
from patientdx.metrics.text_overlap import NUMBERS, bleu, chrf, compare, mean, rate, ratio

REFERENCES = [
    "The patient has chest pain since Monday.",
    "No known drug allergies.",
    "He takes aspirin, 81 mg daily, and metoprolol 25 mg twice daily.",
    "Fracture of the left wrist; no surgery was needed.",
    "None.",
    "Shortness of breath (2 days), no fever.",
]
TEXTS = [
    "The patient has had chest pains since Monday .",
    "No known drug allergies.",
    "She takes aspirin 81 mg daily and lisinopril.",
    "",
    "The patient denies any past surgeries, and any history of a fracture.",
    "no fever no fever no fever no fever no fever",
]


def arrays(name: str, texts=TEXTS, references=REFERENCES) -> tuple[np.ndarray, np.ndarray]:
    """Score and label of a metric, as a run keeps them."""
    numbers = np.array([compare(a, b)[name] for a, b in zip(texts, references, strict=True)], dtype=np.float64)
    assert numbers.shape == (len(texts), NUMBERS[name])
    return (numbers[:, 0] if NUMBERS[name] == 2 else numbers[:, :-1]), numbers[:, -1]


def test_rouge_by_hand():
    # Stems: the patient ha chest pain since monday / the patient ha had chest pain since mondai: 7 words against 8.
    result = compare(TEXTS[0], REFERENCES[0])
    precision, recall = 7 / 8, 7 / 7
    assert result["rouge1"] == (pytest.approx(2 * precision * recall / (precision + recall)), 1.0)
    precision, recall = 5 / 7, 5 / 6  # all but has-chest; has-had and had-chest are in the answer alone
    assert result["rouge2"][0] == pytest.approx(2 * precision * recall / (precision + recall))
    assert result["rougeL"] == result["rouge1"]  # in the same order
    reordered = compare("Monday since pain chest", REFERENCES[0])
    assert reordered["rouge1"][0] == pytest.approx(2 * 1 * (4 / 7) / (1 + 4 / 7))
    assert reordered["rougeL"][0] == pytest.approx(2 * (1 / 4) * (1 / 7) / (1 / 4 + 1 / 7))
    values = [compare(a, b)["rouge1"][0] for a, b in zip(TEXTS, REFERENCES, strict=True)]
    assert mean(*arrays("rouge1")) == pytest.approx(np.mean(values))


def test_bleu_by_hand():
    # "a b c d e" against "a b c d f g": 4/5, 3/4, 2/3 and 1/2 of the n-grams; brevity exp(1 - 6/5).
    score, label = arrays("bleu", ["a b c d e"], ["a b c d f g"])
    assert score.tolist() == [[5, 4, 3, 2, 1]]
    assert label.tolist() == [6]
    assert bleu(score, label) == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25 * np.exp(1 - 6 / 5))
    # No 3-gram and no 4-gram is shared: half of one, and a quarter.
    score, label = arrays("bleu", ["a b x c d"], ["a b y c d"])
    assert bleu(score, label) == pytest.approx(100 * (4 / 5 * 2 / 4 * 0.5 / 3 * 0.25 / 2) ** 0.25)


def test_chrf_by_hand():
    score, label = arrays("chrf", ["a b c"], ["abd"])
    assert score.tolist() == [[3, 2, 1, 0, 0, 0, 0]]
    assert label.tolist() == [3]
    precision = recall = (2 / 3 + 1 / 2 + 0) / 3  # there are no longer n-grams
    assert chrf(score, label) == pytest.approx(100 * 5 * precision * recall / (4 * precision + recall))


CORPORA = {
    "all": (TEXTS, REFERENCES),
    "nothing shared": (["x y z", "q"], ["a b c", "d"]),
    "all empty": (["", ""], ["a b", "c"]),
    "shorter than four words": (["No fever.", "None"], ["No fever", "None"]),
    "the same": (REFERENCES, REFERENCES),
    "one letter": (["a"], ["a"]),
    "shorter references": (["a long answer to it", "word"], ["a", "ab"]),
}


@pytest.mark.parametrize("name", CORPORA)
def test_corpus_values_are_sacrebleus(name):
    texts, references = CORPORA[name]
    assert bleu(*arrays("bleu", texts, references)) == pytest.approx(BLEU().corpus_score(texts, [references]).score)
    assert chrf(*arrays("chrf", texts, references)) == pytest.approx(CHRF().corpus_score(texts, [references]).score)


def test_a_resample_of_numbers_is_a_resample_of_texts():
    """What the bootstrap works out of sums is what sacrebleu and rouge-score say of the drawn texts themselves."""
    drawn = np.concatenate(list(patient_weights(np.arange(len(TEXTS)), 40, 3)))
    values = {name: metric(*arrays(name), drawn) for name, metric in (("bleu", bleu), ("chrf", chrf), ("rougeL", mean))}
    for i, weight in enumerate(drawn.astype(int)):
        texts, references = (np.repeat(column, weight).tolist() for column in (TEXTS, REFERENCES))
        assert values["bleu"][i] == pytest.approx(BLEU().corpus_score(texts, [references]).score)
        assert values["chrf"][i] == pytest.approx(CHRF().corpus_score(texts, [references]).score)
        assert values["rougeL"][i] == pytest.approx(
            np.mean([compare(a, b)["rougeL"][0] for a, b in zip(texts, references, strict=True)])
        )
    result = interval(bleu, *arrays("bleu"), np.arange(len(TEXTS)), resamples=200)
    assert result.low <= result.value <= result.high
    assert result.n == len(TEXTS)


@pytest.mark.skipif("PATIENTDX_SHARED" not in os.environ, reason="the shared data sets are elsewhere")
def test_real_notes_are_compared_as_the_libraries_compare_them():
    """Notes of visits against the notes of other visits, with their lists, units and blank lines."""
    path = Path(os.environ["PATIENTDX_SHARED"]) / "data" / "benchmarks" / "aci-bench" / "valid.csv"
    with path.open(encoding="utf-8", newline="") as file:
        notes = [row["note"] for row in csv.DictReader(file)][:4]
    texts = notes[1:] + notes[:1]
    assert bleu(*arrays("bleu", texts, notes)) == pytest.approx(BLEU().corpus_score(texts, [notes]).score)
    assert chrf(*arrays("chrf", texts, notes)) == pytest.approx(CHRF().corpus_score(texts, [notes]).score)


def test_length_repetition_and_empty_answers():
    result = [compare(a, b) for a, b in zip(TEXTS, REFERENCES, strict=True)]
    assert [item["length_ratio"] for item in result] == [(9, 7), (4, 4), (8, 12), (0, 9), (12, 1), (10, 7)]
    assert [item["empty"][0] for item in result] == [0, 0, 0, 1, 0, 0]
    # Seven 4-grams, of which "no fever no fever" and "fever no fever no" are all there is.
    assert [item["repetition"][0] for item in result] == [0, 0, 0, 0, 0, pytest.approx(5 / 7)]
    assert compare("a b c", "d")["repetition"] == (0.0, 1.0)
    assert compare(" \n", "d")["empty"] == (1.0, 1.0)
    assert ratio(*arrays("length_ratio")) == 43 / 40
    assert rate(*arrays("empty")) == 1 / 6


def test_two_models_are_compared_on_the_same_draws():
    better, label = arrays("chrf", REFERENCES)
    worse, _ = arrays("chrf")
    result = paired_estimate(chrf, better, worse, label, np.arange(len(TEXTS)), resamples=200)
    assert result["value"] == pytest.approx(100 - chrf(worse, label))
    assert 0 < result["low"] <= result["value"] <= result["high"]
    assert result["p_value"] == 2 / 2 ** len(TEXTS)  # more than the draws' own 2 / 201
    same = paired_estimate(chrf, worse, worse, label, np.arange(len(TEXTS)), resamples=200)
    assert (same["value"], same["p_value"]) == (0, 1)


def test_every_metric_of_a_text_has_its_numbers():
    assert set(compare("a", "b")) == set(NUMBERS)
