import time

import numpy as np
import pytest
from scipy.stats import norm, t

from patientdx.metrics.accuracy import accuracy
from patientdx.metrics.bootstrap import Bootstrap, bootstrap_p, paired_difference, replicates, spreads
from patientdx.metrics.calibration import brier
from patientdx.metrics.paired import delong, difference_of, holm, paired_estimate
from patientdx.metrics.ranking import auprc, auroc


def stays(n: int = 120, seed: int = 0, noise: float = 1.0, digits: int = 1):
    """Two correlated scores with ties."""
    random = np.random.default_rng(seed)
    label = random.random(n) < 0.3
    signal = random.normal(size=n) + label
    a, b = (np.round(signal + noise * random.normal(size=n), digits) for _ in range(2))
    return a, b, label


def written_out(score_a, score_b, label):
    """DeLong 1988, equations 3 to 6, as double loops over events and non-events."""
    placements = []
    for score in (score_a, score_b):
        pos, neg = score[label], score[~label]
        psi = [[1.0 if x > y else 0.5 if x == y else 0.0 for y in neg] for x in pos]
        placements.append((np.mean(psi, axis=1), np.mean(psi, axis=0)))
    s10, s01 = (np.cov([item[side] for item in placements]) for side in (0, 1))
    s = s10 / label.sum() + s01 / (~label).sum()
    return [item[0].mean() for item in placements], s[0, 0] + s[1, 1] - 2 * s[0, 1]


def test_delong_equals_the_double_loop():
    for seed in range(5):
        a, b, label = stays(seed=seed)
        areas, variance = written_out(a, b, label)
        result = delong(a, b, label)
        assert [result.auroc_a, result.auroc_b] == pytest.approx(areas, abs=1e-12)
        assert result.auroc_a == pytest.approx(auroc(a, label), abs=1e-12)
        assert result.standard_error == pytest.approx(variance**0.5, abs=1e-12)
        z = (areas[0] - areas[1]) / variance**0.5
        assert result.p_value == pytest.approx(2 * (1 - norm.cdf(abs(z))), abs=1e-9)
        assert (result.high - result.low) / 2 == pytest.approx(1.959964 * variance**0.5, abs=1e-6)
        back = delong(b, a, label)
        assert (back.difference, back.p_value) == pytest.approx((-result.difference, result.p_value))


def test_delong_agrees_with_the_bootstrap_where_rows_are_independent():
    a, b, label = stays(n=1500, digits=6)
    error = delong(a, b, label).standard_error
    drawn = [replicates({"": auroc}, s, label, np.arange(1500), resamples=1000)[""] for s in (a, b)]
    assert np.std(drawn[0] - drawn[1]) == pytest.approx(error, rel=0.1)


def test_delong_keeps_its_level():
    rejected = sum(delong(*stays(n=150, seed=seed)).p_value < 0.1 for seed in range(400))
    assert 25 <= rejected <= 58  # of 400 at 10 %


def test_delong_is_quick():
    a, b, label = stays(n=200_000, digits=8)
    start = time.process_time()
    delong(a, b, label)
    assert time.process_time() - start < 2


def test_delong_of_a_model_and_itself():
    a, _, label = stays()
    result = delong(a, 3 * a - 1, label)
    assert (result.difference, result.low, result.high, result.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize("metric", [auroc, auprc, brier])
def test_paired_estimate_is_the_paired_difference_with_a_p_value(metric):
    a, b, label = stays(n=300)
    a, b = (1 / (1 + np.exp(-score)) for score in (a, b))
    subject = np.arange(300) // 2
    result = paired_estimate(metric, a, b, label, subject, resamples=300, seed=4)
    same = paired_difference(metric, a, b, label, subject, resamples=300, seed=4)
    assert (result["value"], result["low"], result["high"]) == (same.value, same.low, same.high)
    draws = Bootstrap(resamples=300, seed=4)
    spread = [spreads({"": metric}, score, label, subject, draws)[""] for score in (a, b)]
    assert result == difference_of(same.value, *spread, 150, 0.95)
    error = np.std([metric(a, label, w) - metric(b, label, w) for w in (subject != np.arange(150)[:, None]) * 1.0])
    error *= np.sqrt(149)
    assert result["p_value"] == pytest.approx(2 * t.sf(abs(same.value) / error, 149))


def test_two_patients_show_nothing_however_often_they_are_drawn():
    label = np.ones(4, dtype=np.int64)
    for subject, least in ((["a", "a", "b", "b"], 0.5), (["a", "b", "c", "d"], 0.125)):
        result = paired_estimate(accuracy, label, 0 * label, label, subject, resamples=999)
        assert result["p_value"] == least
    for patients, least in ((1, 1.0), (2, 0.5), (9, 2 / 2**9), (10, 2 / 1000), (2000, 2 / 1000)):
        assert bootstrap_p(np.full(999, -1.0), patients) == least


def test_p_value_counts_the_rarer_side():
    assert bootstrap_p(np.array([-1.0, 1, 2, 3, 4, 5, 6, 7, 8]), 100) == pytest.approx(2 * 2 / 10)
    assert bootstrap_p(np.arange(1.0, 2000), 100) == pytest.approx(2 / 2000)
    assert bootstrap_p(np.zeros(50), 100) == 1
    assert bootstrap_p(np.array([np.nan, 1, 1, 1]), 100) == pytest.approx(2 / 4)
    assert bootstrap_p(np.array([np.nan]), 100) is None


def test_the_p_value_falls_below_the_level_where_the_interval_leaves_out_zero():
    for seed in range(20):
        a, b, label = stays(seed=seed, noise=2)
        result = paired_estimate(auroc, a, b, label, np.arange(label.size), level=0.9)
        leaves_out = result["low"] > 0 or result["high"] < 0
        assert leaves_out == (result["p_value"] < 0.1)


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, and 0.04 which may not fall below 0.06.
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({1: 0.5, 2: 0.9}) == {1: 1.0, 2: 1.0}
    assert holm({"alone": 0.04}) == {"alone": 0.04}
    assert holm({}) == {}
