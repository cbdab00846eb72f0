"""Intervals by leaving out patients, against the same written out, formulas of textbooks, and the truth."""

import math

import numpy as np
import pytest
from scipy.stats import norm, t, ttest_rel
from sklearn.metrics import average_precision_score, roc_auc_score

from patientdx.core.errors import UserError
from patientdx.metrics.accuracy import accuracy
from patientdx.metrics.bootstrap import Bootstrap, interval, paired_difference, spreads
from patientdx.metrics.calibration import log_loss
from patientdx.metrics.jackknife import Deletion, Jackknife
from patientdx.metrics.paired import delong, paired_estimate
from patientdx.metrics.ranking import auprc, auroc
from patientdx.metrics.text_overlap import bleu, mean


def stays(seed: int = 0, patients: int = 60, events: float = 0.2, lift: float = 1.0):
    """One to three stays a patient, whose scores have something in common."""
    random = np.random.default_rng(seed)
    subject = np.repeat(np.arange(patients), random.integers(1, 4, patients))
    label = random.random(subject.size) < events
    label[:3] = [True, False, True]
    label[-1] = True
    own = math.sqrt(0.4) * random.normal(size=patients)[subject]
    return own + math.sqrt(0.6) * random.normal(size=subject.size) + lift * label, label, subject


def test_the_interval_of_an_area_as_written_out():
    """Every patient left out by scikit-learn, then the formulas of the module on paper."""
    score, label, subject = stays()
    value = roc_auc_score(label, score)
    without = np.array([roc_auc_score(label[subject != one], score[subject != one]) for one in range(60)])
    parts = 59 / 60 * (without - without.mean()) ** 2
    ill = np.array([label[subject == one].any() for one in range(60)])
    degrees = parts.sum() ** 2 / (parts[ill].sum() ** 2 / (ill.sum() - 1) + parts[~ill].sum() ** 2 / ((~ill).sum() - 1))
    reach = t.ppf(0.975, degrees) * math.sqrt(parts.sum()) / (value * (1 - value))
    ends = [1 / (1 + math.exp(-(math.log(value / (1 - value)) + sign * reach))) for sign in (-1, 1)]
    result = interval(auroc, score, label, subject)
    assert (result.low, result.high) == pytest.approx(ends, abs=1e-9)


def test_the_interval_of_auprc_is_around_its_bias_as_written_out():
    """Every patient left out by scikit-learn, and the steps of docs/intervals.md on paper."""
    score, label, subject = stays()
    odds = [math.log(value / (1 - value)) for value in (
        average_precision_score(label[subject != one], score[subject != one]) for one in range(60)
    )]  # fmt: skip
    value = average_precision_score(label, score)
    middle, odds = math.log(value / (1 - value)), np.array(odds)
    ill = np.array([label[subject == one].any() for one in range(60)])
    rarer = min(ill.sum(), np.unique(subject[~label]).size)
    error = math.sqrt(59 / 60 * ((odds - odds.mean()) ** 2).sum() * rarer / (rarer - 1))
    reach, bias = t.ppf(0.975, rarer - 1) * error, 59 * (odds.mean() - middle)
    ends = [1 / (1 + math.exp(-(middle - bias / 2 + sign * reach))) for sign in (-1, 1)]
    result = interval(auprc, score, label, subject)
    assert (result.low, result.high) == pytest.approx(ends, abs=1e-9)


@pytest.mark.parametrize("lift", [0.4, 1.0])
def test_it_covers_auprc_of_thirty_events_as_often_as_it_says(lift):
    """The logit interval around the value itself covers 92 to 93 % of these."""
    grid = np.linspace(-9, 9 + lift, 20001)
    hits, alarms = 0.2 * norm.sf(grid - lift), 0.8 * norm.sf(grid)
    truth, covered = np.trapezoid(norm.pdf(grid - lift) * hits / (hits + alarms), grid), 0
    for seed in range(200):
        score, label, subject = stays(seed, patients=75, events=0.2, lift=lift)
        result = interval(auprc, score, label, subject)
        covered += result.low <= truth <= result.high
    assert covered / 200 >= 0.92


def test_the_standard_error_of_a_mean_is_the_textbooks():
    right = np.random.default_rng(2).random(50) < 0.7
    result = interval(accuracy, right, np.ones(50), np.arange(50))
    value, error = right.mean(), right.std(ddof=1) / math.sqrt(50)
    reach = t.ppf(0.975, 49) * error / (value * (1 - value))
    odds = value / (1 - value)
    expected = [odds * math.exp(sign * reach) / (1 + odds * math.exp(sign * reach)) for sign in (-1, 1)]
    assert (result.low, result.high) == pytest.approx(expected, abs=1e-9)


def test_the_difference_of_two_means_is_the_paired_t_test():
    random = np.random.default_rng(3)
    a, b = random.random((2, 40))
    result = paired_estimate(mean, a, b, np.ones(40), np.arange(40), level=0.9)
    same = ttest_rel(a, b)
    low, high = same.confidence_interval(0.9)
    assert (result["low"], result["high"], result["p_value"]) == pytest.approx((low, high, same.pvalue), abs=1e-9)


def test_the_standard_error_of_a_difference_of_areas_is_near_delongs():
    random = np.random.default_rng(4)
    label = random.random(400) < 0.3
    a = random.normal(size=400) + label
    b = a + random.normal(size=400)
    spread = [spreads({"": auroc}, x, label, np.arange(400), Bootstrap())[""] for x in (a, b)]
    assert all(isinstance(one, Jackknife) for one in spread)
    assert (spread[0] - spread[1]).standard_error == pytest.approx(delong(a, b, label).standard_error, rel=0.01)


@pytest.mark.parametrize(("count", "events", "lift", "least"), [(100, 0.12, 1.0, 0.93), (60, 0.4, 2.6, 0.93)])
def test_it_covers_an_area_as_often_as_it_says(count, events, lift, least):
    """A percentile interval covers 0.91 and 0.82 of these."""
    truth, covered = norm.cdf(lift / math.sqrt(2)), 0
    for seed in range(300):
        score, label, subject = stays(seed, patients=count, events=events, lift=lift)
        result = interval(auroc, score, label, subject)
        covered += result.low <= truth <= result.high
    assert covered / 300 >= least


def test_the_ends_of_the_range_are_not_passed_and_have_a_width():
    label = np.arange(40) < 10
    perfect = interval(auroc, label.astype(float), label, np.arange(40))
    reach = t.ppf(0.975, 9)
    assert (perfect.low, perfect.high) == (pytest.approx(20 / (20 + reach**2)), 1.0)
    wrong = interval(accuracy, np.zeros(40), np.ones(40), np.arange(40))
    assert (wrong.low, wrong.high) == (0.0, pytest.approx(t.ppf(0.975, 39) ** 2 / (40 + t.ppf(0.975, 39) ** 2)))
    counts = np.tile([10.0, 5, 3, 2, 1], (20, 1)) + np.arange(20)[:, None] % 3
    assert interval(bleu, counts, np.full(20, 12.0), np.arange(20)).low > 0
    loss = interval(log_loss, np.linspace(0.1, 0.9, 40)[::-1] ** 2, label, np.arange(40))
    assert 0 < loss.low < loss.value < loss.high
    assert loss.value / loss.low == pytest.approx(loss.high / loss.value)


def test_an_area_close_to_one_has_no_less_error_than_its_patients_allow():
    """Not its own small error, and no less than two draws for each of the ten patients with the event allow."""
    label = np.arange(200) < 10
    score = np.where(label, 1000.0, np.arange(200))
    score[0] = 198.5  # one of 190 non-events is above one of ten events
    result = interval(auroc, score, label, np.arange(200))
    perfect = interval(auroc, label.astype(float), label, np.arange(200))
    assert result.value == pytest.approx(1 - 1 / 1900)
    assert 0.75 < result.low < perfect.low + 0.05
    assert result.high > 0.9999


def test_patients_of_one_event_give_no_interval_and_the_reason():
    label = np.arange(20) == 15
    result = interval(auroc, np.arange(20.0), label, np.arange(20))
    assert np.isnan([result.low, result.high]).all()
    made = paired_estimate(auroc, np.arange(20.0), -np.arange(20.0), label, np.arange(20))
    assert (made["low"], made["high"], made["p_value"], made["events"]) == (None, None, None, 1)
    assert made["reason"] == "too few patients, or too few with an event, for an interval"


def test_what_is_alike_for_every_patient_has_a_p_value_by_signs():
    label = np.ones(6)
    result = paired_difference(accuracy, label, 0 * label, label, np.arange(6))
    assert (result.value, result.high) == (1.0, 1.0)
    assert result.low == pytest.approx(6 / (6 + t.ppf(0.975, 5) ** 2))
    assert paired_estimate(accuracy, label, 0 * label, label, np.arange(6))["p_value"] == 2 / 2**6


def test_many_patients_are_left_out_in_groups_with_their_events_apart():
    score, label, subject = stays(5, patients=900, events=0.05)
    deletion = Deletion.of(subject, label, 200)
    ill = np.array([label[subject == one].any() for one in range(900)])
    assert deletion.has_event.size == 200
    assert deletion.has_event.sum() == ill.sum() == deletion.rarer
    assert deletion.events == label.sum()
    assert all(np.unique(deletion.group[subject == one]).size == 1 for one in range(900))
    assert np.concatenate(list(deletion.weights())).sum(axis=0).tolist() == [199] * subject.size
    alone, grouped = (interval(auprc, score, label, subject, resamples=most) for most in (2000, 200))
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, rel=0.1)
    with pytest.raises(UserError, match="at least 2 patients; there are 1"):
        Deletion.of(np.zeros(5), np.zeros(5, dtype=bool), 10)


def test_the_paired_test_of_two_areas_holds_its_size():
    """Two models of the same area, whose scores share half their noise; 100 patients, about 15 events."""
    rejected = 0
    for seed in range(400):
        random = np.random.default_rng(seed)
        label = random.random(100) < 0.15
        label[:2] = [True, False]
        shared, *own = random.normal(size=(3, 100)) / math.sqrt(2)
        a, b = (shared + one + label for one in own)
        rejected += paired_estimate(auroc, a, b, label, np.arange(100))["p_value"] < 0.05
    assert 0.03 <= rejected / 400 <= 0.08
