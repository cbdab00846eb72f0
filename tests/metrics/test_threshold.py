from functools import partial

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score, roc_curve

from patientdx.metrics.decision import (
    alerts_per_100,
    npv,
    ppv,
    sensitivity,
    sensitivity_at_specificity,
    specificity,
    threshold_for_sensitivity,
    youden_threshold,
)

SCORE = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
LABEL = [0, 0, 0, 1, 0, 1, 0, 1]
AT_HALF = [partial(metric, threshold=0.5) for metric in (sensitivity, specificity, ppv, npv, alerts_per_100)]


def stays(n: int = 300, seed: int = 0):
    random = np.random.default_rng(seed)
    label = random.random(n) < 0.2
    return np.round(random.normal(size=n) + label, 1), label


def test_a_case_by_hand():
    found = [metric(SCORE, LABEL) for metric in AT_HALF]
    assert found == pytest.approx([2 / 3, 3 / 5, 2 / 4, 3 / 4, 50])


def test_agree_with_scikit_learn():
    score, label = stays()
    alert = score >= 0.5
    assert sensitivity(score, label, threshold=0.5) == pytest.approx(recall_score(label, alert))
    assert specificity(score, label, threshold=0.5) == pytest.approx(recall_score(~label, ~alert))
    assert ppv(score, label, threshold=0.5) == pytest.approx(precision_score(label, alert))
    assert npv(score, label, threshold=0.5) == pytest.approx(precision_score(~label, ~alert))


def test_youden_threshold_is_the_best_of_the_roc_curve():
    # At 0.4: 3 of 3 events, 3 of 5 non-events spared. 0.8 gains less.
    assert youden_threshold(SCORE, LABEL) == 0.4
    # 0.4 and 0.2 are equally good: the higher one, with fewer alerts.
    assert youden_threshold([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1]) == 0.4
    for seed in range(5):
        score, label = stays(seed=seed)
        false_alarms, hits, thresholds = roc_curve(label, score, drop_intermediate=False)
        assert youden_threshold(score, label) == thresholds[np.argmax(np.round(hits - false_alarms, 12))]


def test_threshold_for_a_sensitivity_is_the_highest_that_reaches_it():
    assert threshold_for_sensitivity(SCORE, LABEL, 1 / 3) == 0.8
    assert threshold_for_sensitivity(SCORE, LABEL, 0.34) == 0.6
    assert threshold_for_sensitivity(SCORE, LABEL, 2 / 3) == 0.6
    assert threshold_for_sensitivity(SCORE, LABEL, 1) == 0.4


def test_sensitivity_at_a_specificity_is_read_from_the_roc_curve():
    assert sensitivity_at_specificity(SCORE, LABEL, target=1.0) == pytest.approx(1 / 3)
    assert sensitivity_at_specificity(SCORE, LABEL, target=0.8) == pytest.approx(2 / 3)
    assert sensitivity_at_specificity(SCORE, LABEL, target=0.6) == 1
    assert sensitivity_at_specificity([0.1, 0.9], [1, 0], target=0.95) == 0
    for seed in range(5):
        score, label = stays(seed=seed)
        false_alarms, hits, _ = roc_curve(label, score, drop_intermediate=False)
        for target in (0.9, 0.95):
            best = hits[false_alarms <= 1 - target + 1e-12].max()
            assert sensitivity_at_specificity(score, label, target=target) == pytest.approx(best)


@pytest.mark.parametrize("metric", [*AT_HALF, partial(sensitivity_at_specificity, target=0.9)])
def test_weights_stand_for_repeated_rows(metric):
    score, label = stays(n=120)
    weight = np.random.default_rng(1).multinomial(120, np.full(120, 1 / 120), size=20).astype(float)
    found = metric(score, label, weight)
    for value, row in zip(found, weight.astype(int), strict=True):
        rows = np.repeat(np.arange(120), row)
        assert value == pytest.approx(metric(score[rows], label[rows]), abs=1e-12)
    one_class = np.stack([label, ~label]).astype(float)
    assert np.isnan(metric(score, label, one_class)).all()


def test_what_has_no_value_says_why():
    with pytest.raises(ValueError, match="nothing to take a share of: every row is on the other side"):
        ppv(SCORE, LABEL, threshold=0.9)
    with pytest.raises(ValueError, match="nothing to take a share of: every row is on the other side"):
        npv(SCORE, LABEL, threshold=0.0)
    assert np.isnan(ppv(SCORE, LABEL, [[1, 1, 1, 1, 0, 0, 0, 0]], threshold=0.5)).all()
    assert alerts_per_100(SCORE, LABEL, threshold=0.9) == 0
    for score in ([0.3] * 4, [0.9, 0.8, 0.2, 0.1]):
        with pytest.raises(ValueError, match="no threshold does better than chance"):
            youden_threshold(score, [0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"a sensitivity of 1.5 was asked for; it must be above 0 and at most 1"):
        threshold_for_sensitivity(SCORE, LABEL, 1.5)
    with pytest.raises(ValueError, match=r"a specificity of 90 was asked for; it must lie between 0 and 1"):
        sensitivity_at_specificity(SCORE, LABEL, target=90)
