import time
import tracemalloc
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from patientdx.metrics import bootstrap, jackknife
from patientdx.metrics.bootstrap import interval, intervals, paired_difference, replicates
from patientdx.metrics.decision import sensitivity_at_specificity
from patientdx.metrics.ranking import auprc, auroc


def stays(seed: int = 0, patients: int = 150, events: float = 0.2):
    """Several stays a patient: scores, labels and subject ids in no particular order."""
    random = np.random.default_rng(seed)
    subject = random.permutation(np.repeat(np.arange(patients) * 7 + 100, random.integers(1, 4, patients)))
    label = random.random(subject.size) < events
    label[:2] = [True, False]
    return random.normal(size=subject.size) + label, label, subject


def test_value_counts_and_order():
    score, label, subject = stays()
    result = interval(auroc, score, label, subject, resamples=500, seed=1)
    assert result.value == auroc(score, label)
    assert result.low < result.value < result.high
    assert (result.n, result.events, result.patients) == (label.size, label.sum(), 150)
    assert result.level == 0.95
    narrow = interval(auroc, score, label, subject, resamples=500, level=0.5, seed=1)
    assert result.low < narrow.low < narrow.high < result.high


def test_equals_resampling_written_out():
    score, label, subject = stays(patients=40)
    drawn = replicates({"auroc": auroc}, score, label, subject, resamples=30, seed=3)["auroc"]
    random, names = np.random.default_rng(3), np.unique(subject)
    for value in drawn:
        chosen = names[random.integers(0, names.size, names.size)]
        rows = np.concatenate([np.flatnonzero(subject == name) for name in chosen])
        assert value == pytest.approx(roc_auc_score(label[rows], score[rows]), abs=1e-12)


def test_same_seed_same_numbers_whatever_the_block(monkeypatch):
    score, label, subject = stays()
    area = partial(sensitivity_at_specificity, target=0.9)
    first = intervals({"auroc": auroc, "at": area}, score, label, subject, resamples=200, seed=5)
    assert first == intervals({"at": area, "auroc": auroc}, score, label, subject, resamples=200, seed=5)
    assert first["at"] == interval(area, score, label, subject, resamples=200, seed=5)
    assert first["at"] != interval(area, score, label, subject, resamples=200, seed=6)
    monkeypatch.setattr(bootstrap, "_BLOCK", 1000)
    monkeypatch.setattr(jackknife, "_BLOCK", 1000)
    assert first == intervals({"auroc": auroc, "at": area}, score, label, subject, resamples=200, seed=5)


def test_subject_ids_may_be_text():
    score, label, subject = stays()
    named = np.array([f"{number:06d}" for number in subject])
    assert interval(auroc, score, label, named, resamples=50) == interval(auroc, score, label, subject, resamples=50)


def test_repeated_rows_of_a_patient_do_not_narrow_the_interval():
    score, label, subject = stays(patients=300)
    _, first = np.unique(subject, return_index=True)
    score, label, subject = score[first], label[first], subject[first]
    once = interval(auroc, score, label, subject, seed=2)
    ten_times = interval(auroc, *(np.tile(column, 10) for column in (score, label, subject)), seed=2)
    assert ten_times.high - ten_times.low == pytest.approx(once.high - once.low, rel=0.1)


def test_a_metric_without_a_declaration_has_the_percentiles_of_resamples():
    score, label, subject = stays(patients=60)

    def lowest(score, label, weight=None):
        return np.where(np.atleast_2d(weight) > 0, score, np.inf).min(axis=1) if weight is not None else score.min()

    result = interval(lowest, score, label, subject, resamples=300, seed=4)
    drawn = replicates({"": lowest}, score, label, subject, resamples=300, seed=4)[""]
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=1e-12)


def test_paired_difference_knows_what_the_models_share():
    score, label, subject = stays(patients=400)
    noise = np.random.default_rng(4).normal(size=score.size)
    worse = score + 0.8 * noise
    result = paired_difference(auroc, score, worse, label, subject, resamples=500, seed=9)
    assert result.value == auroc(score, label) - auroc(worse, label)
    a, b = (replicates({"m": auroc}, each, label, subject, resamples=1000, seed=9)["m"] for each in (score, worse))
    assert (result.high - result.low) / 3.92 == pytest.approx(np.std(a - b), rel=0.1)
    assert (result.high - result.low) / 3.92 < 0.8 * np.std(a - np.roll(b, 1))
    same = paired_difference(auroc, score, 2 * score + 1, label, subject, resamples=100)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_two_thousand_resamples_of_five_thousand_rows_are_quick_and_small():
    score, label, subject = stays(patients=2500, events=0.12)
    assert score.size > 4800
    metrics = {"auroc": auroc, "auprc": auprc}
    seconds = []
    for _ in range(3):
        start = time.process_time()
        intervals(metrics, score, label, subject, resamples=2000)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1
    tracemalloc.start()
    intervals(metrics, score, label, subject, resamples=2000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
