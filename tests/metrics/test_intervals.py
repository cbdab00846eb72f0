import numpy as np
import pytest

from patientdx.metrics.bootstrap import intervals
from patientdx.metrics.calibration import brier, calibration_slope
from patientdx.metrics.intervals import estimate, estimates, on_rows, on_scores
from patientdx.metrics.jackknife import Jackknife
from patientdx.metrics.ranking import auroc


def stays(n: int = 80, seed: int = 0):
    random = np.random.default_rng(seed)
    return random.random(n), random.random(n) < 0.4, np.arange(n) // 2


def test_estimates_are_the_intervals_by_patient_with_the_events():
    score, label, subject = stays()
    result, drawn = estimates({"auroc": auroc, "brier": brier}, score, label, subject, resamples=100, seed=1)
    same = intervals({"auroc": auroc, "brier": brier}, score, label, subject, resamples=100, seed=1)
    for name, item in same.items():
        events = int(min(label.sum(), 80 - label.sum()))
        assert result[name] == {"value": item.value, "low": item.low, "high": item.high, "events": events}
        assert isinstance(drawn[name], Jackknife)


def test_what_has_no_value_has_the_reason_and_the_others_stay():
    label = np.arange(20) < 10
    result, drawn = estimates(
        {"slope": calibration_slope, "brier": brier}, label * 0.5, label, np.arange(20), resamples=9
    )
    reason = "no slope can be fitted: the score is constant, or a threshold separates the classes"
    assert result["slope"] == {"value": None, "reason": reason}
    assert result["brier"]["value"] == 0.125
    assert list(drawn) == ["brier"]


def test_a_value_without_any_resample_says_so():
    reason = "none of 3 resamples has a value: too few patients for an interval"
    expected = {"value": 0.5, "low": None, "high": None, "dropped": 3, "reason": reason}
    assert estimate(0.5, np.full(3, np.nan), 0.95) == expected
    assert estimate(2, np.array([1.0, np.nan, 3.0]), 0.5) == {"value": 2, "low": 1.5, "high": 2.5, "dropped": 1}


def test_a_metric_of_other_scores_or_of_some_rows_takes_weights():
    score, label, _ = stays()
    other, rows, weight = score[::-1].copy(), np.arange(10, 60), np.ones((3, 80))
    weight[1, 20:30] = 2
    assert on_scores(auroc, other)(score, label) == auroc(other, label)
    assert on_scores(auroc, other)(score, label, weight) == pytest.approx(auroc(other, label, weight))
    assert on_rows(auroc, rows)(score, label) == auroc(score[rows], label[rows])
    assert on_rows(auroc, rows)(score, label, weight) == pytest.approx(auroc(score[rows], label[rows], weight[:, rows]))
