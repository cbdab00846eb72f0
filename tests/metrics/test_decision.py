from functools import partial

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score, roc_curve

from patientdx.metrics.decision import (
    PERCENTS,
    alerts_per_100,
    decision_curve,
    net_benefit,
    npv,
    ppv,
    sensitivity,
    sensitivity_at_specificity,
    specificity,
    threshold_for_alerts,
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
    result = [metric(SCORE, LABEL) for metric in AT_HALF]
    assert result == pytest.approx([2 / 3, 3 / 5, 2 / 4, 3 / 4, 50])


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


def test_a_resample_without_alerts_has_no_value():
    assert np.isnan(ppv(SCORE, LABEL, [[1, 1, 1, 1, 0, 0, 0, 0]], threshold=0.5)).all()
    assert alerts_per_100(SCORE, LABEL, threshold=0.9) == 0


def test_net_benefit_by_hand():
    score, label = [0.05, 0.10, 0.20, 0.30, 0.60], [0, 1, 0, 0, 1]
    curve = decision_curve(score, label, [0.1, 0.25, 0.5])
    # At 10 %: 2 true and 2 false alarms, odds 1/9; at 25 %: 1 and 1, odds 1/3; at 50 %: 1 and 0.
    assert curve["model"] == pytest.approx([2 / 5 - 2 / 5 / 9, 1 / 5 - 1 / 5 / 3, 1 / 5])
    assert curve["treat_all"] == pytest.approx([2 / 5 - 3 / 5 / 9, 2 / 5 - 3 / 5 / 3, 2 / 5 - 3 / 5])
    assert curve["treat_none"] == [0, 0, 0]


def test_a_net_benefit_is_a_point_of_the_curve_and_has_an_interval():
    score, label = stays()
    score = (score - score.min()) / (score.max() - score.min())
    curve = decision_curve(score, label)
    for number in (4, 9, 29):
        benefit = net_benefit(score, label, threshold=curve["threshold"][number])
        assert benefit == pytest.approx(curve["model"][number], abs=1e-12)
    weights = np.random.default_rng(0).integers(0, 3, (5, 300)).astype(float)
    repeated = [np.repeat(np.arange(300), row.astype(int)) for row in weights]
    one_by_one = [net_benefit(score[rows], label[rows], threshold=0.2) for rows in repeated]
    np.testing.assert_allclose(net_benefit(score, label, weights, threshold=0.2), one_by_one)


def test_a_budget_of_alerts_is_kept_and_used():
    score, label = stays()
    for share in (0.05, 0.25, 0.8):
        threshold = threshold_for_alerts(score, label, share)
        assert (score >= threshold).mean() <= share
        lower = score[score < threshold].max()
        assert (score >= lower).mean() > share
    with pytest.raises(ValueError, match=r"the highest score alone gives 100.0% alerts, more than 10.0%"):
        threshold_for_alerts(np.full(300, 0.4), label, 0.1)


def test_every_percent_written_out():
    random = np.random.default_rng(0)
    score, label = random.random(200), random.random(200) < 0.2
    curve = decision_curve(score, label)
    assert curve["threshold"] == [percent / 100 for percent in range(1, 51)] == list(PERCENTS)
    for t, model in zip(curve["threshold"], curve["model"], strict=True):
        alerts = score >= t
        benefit = (alerts & label).sum() / 200 - (alerts & ~label).sum() / 200 * t / (1 - t)
        assert model == pytest.approx(benefit, abs=1e-12)


def test_treating_all_pays_until_the_prevalence():
    label = np.arange(100) < 20
    curve = decision_curve(np.linspace(0, 1, 100), label, [0.19, 0.2, 0.21])
    assert [value > 1e-12 for value in curve["treat_all"]] == [True, False, False]
