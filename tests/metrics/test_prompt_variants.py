import json
from itertools import combinations

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import spearmanr

from patientdx.metrics.paired import paired_estimate
from patientdx.metrics.prompt_variants import VariantScores, abstention, variant_spread
from patientdx.metrics.ranking import auroc


def stays(n: int = 200, seed: int = 0):
    random = np.random.default_rng(seed)
    risk = random.normal(size=n)
    label = random.random(n) < expit(risk)
    return np.round(expit(risk), 2), label, np.arange(n) // 2, random


def test_abstention_by_hand():
    result = abstention([0.2, 0.4, 0.6, 0.8, 1.0])
    assert result["mean"] == pytest.approx(0.6)
    assert result["quantiles"] == pytest.approx({"0.05": 0.24, "0.25": 0.4, "0.5": 0.6, "0.75": 0.8, "0.95": 0.96})
    assert (result["lowest"], result["highest"], result["below_half"]) == (0.2, 1, 0.4)


def test_a_model_that_understands_reverses_and_loses_nothing():
    score, label, subject, _ = stays()
    result = variant_spread(score, {"survival": VariantScores(1 - score, True)}, label, subject, resamples=50)
    item = result["wordings"]["survival"]
    assert item["auroc"]["value"] == pytest.approx(result["auroc"]["value"])
    assert item["difference"]["value"] == pytest.approx(0, abs=1e-12)
    assert item["not_reversed"]["value"] == 0
    assert result["spearman"] == {"names": ["question", "survival"], "values": [[1, 1], [1, 1]]}
    assert result["auroc_spread"] == pytest.approx(0, abs=1e-12)
    json.dumps(result, allow_nan=False)


def test_a_model_that_says_yes_to_both_is_caught():
    score, label, subject, _ = stays()
    result = variant_spread(score, {"survival": VariantScores(score, True)}, label, subject, resamples=200)
    item, area = result["wordings"]["survival"], auroc(score, label)
    assert item["auroc"]["value"] == pytest.approx(1 - area)
    assert item["difference"]["value"] == pytest.approx(1 - 2 * area)
    assert item["difference"]["high"] < 0
    assert item["difference"]["p_value"] < 1e-6
    assert item["not_reversed"]["value"] == 1
    assert result["spearman"]["values"][0] == pytest.approx([1, -1])
    assert result["auroc_spread"] == pytest.approx(2 * area - 1)


def test_numbers_of_noisy_wordings():
    score, label, subject, random = stays()
    other = np.round(np.clip(score + 0.2 * random.normal(size=200), 0, 1), 1)
    survival = np.round(expit(-2 * score + random.normal(size=200)), 1)
    wordings = {"shorter": VariantScores(other), "survival": VariantScores(survival, inverted=True)}
    result = variant_spread(score, wordings, label, subject, resamples=100, seed=3)
    reordered = {"shorter": other, "survival": -survival}
    for index, (name, values) in enumerate(reordered.items(), start=1):
        item = result["wordings"][name]
        assert item["auroc"]["value"] == auroc(values, label)
        assert result["spearman"]["values"][0][index] == pytest.approx(spearmanr(score, values).statistic)
        same = paired_estimate(auroc, values, score, label, subject, resamples=100, seed=3)
        assert item["difference"] == same
    assert result["spearman"]["values"][1][2] == pytest.approx(spearmanr(other, -survival).statistic)
    areas = [auroc(values, label) for values in (score, *reordered.values())]
    assert result["auroc_spread"] == pytest.approx(max(areas) - min(areas))


def test_pairs_are_counted_as_if_one_by_one():
    score, label, subject, random = stays(n=60)
    survival = np.round(random.random(60), 1)
    wordings = {"kept": VariantScores(survival), "reversed": VariantScores(survival, inverted=True)}
    result = variant_spread(score, wordings, label, subject, resamples=20)["wordings"]
    ordered = [(i, j) for i, j in combinations(range(60), 2) if score[i] != score[j]]
    signs = [np.sign((score[i] - score[j]) * (survival[i] - survival[j])) for i, j in ordered]
    assert result["kept"]["not_kept"] == {"value": sum(s <= 0 for s in signs) / len(ordered), "pairs": len(ordered)}
    assert result["reversed"]["not_reversed"]["value"] == sum(s >= 0 for s in signs) / len(ordered)
    assert 0 in signs


def test_constant_scores_say_so():
    score, label, subject, _ = stays(n=40)
    flat = np.full(40, 0.5)
    result = variant_spread(score, {"flat": VariantScores(flat, True)}, label, subject, resamples=20)
    assert result["wordings"]["flat"]["not_reversed"]["value"] == 1
    assert result["wordings"]["flat"]["auroc"]["value"] == 0.5
    assert result["spearman"]["values"] == [[1, None], [None, None]]
    result = variant_spread(flat, {"other": VariantScores(score)}, label, subject, resamples=20)
    reason = {"value": None, "reason": "the question's score is the same for every row"}
    assert result["wordings"]["other"]["not_kept"] == reason
    json.dumps(result, allow_nan=False)


def test_a_survival_certain_to_the_last_digit_keeps_its_order():
    score = np.array([1e-3, 1e-2, 0.1, 0.2])
    survival = np.array([4e-20, 3e-20, 2e-20, 1e-20])  # 1 - p would be 1 four times
    result = variant_spread(score, {"s": VariantScores(survival, True)}, [0, 1, 0, 1], [1, 2, 3, 4], resamples=20)
    assert result["wordings"]["s"]["not_reversed"]["value"] == 0
