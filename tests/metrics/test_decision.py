import numpy as np
import pytest

from patientdx.metrics.decision import PERCENTS, decision_curve


def test_net_benefit_by_hand():
    score, label = [0.05, 0.10, 0.20, 0.30, 0.60], [0, 1, 0, 0, 1]
    curve = decision_curve(score, label, [0.1, 0.25, 0.5])
    # At 10 %: 2 true and 2 false alarms, odds 1/9; at 25 %: 1 and 1, odds 1/3; at 50 %: 1 and 0.
    assert curve["model"] == pytest.approx([2 / 5 - 2 / 5 / 9, 1 / 5 - 1 / 5 / 3, 1 / 5])
    assert curve["treat_all"] == pytest.approx([2 / 5 - 3 / 5 / 9, 2 / 5 - 3 / 5 / 3, 2 / 5 - 3 / 5])
    assert curve["treat_none"] == [0, 0, 0]


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


def test_thresholds_outside_are_errors():
    for t in (0, 1, -0.1):
        with pytest.raises(ValueError, match="thresholds of a decision curve must lie between 0 and 1"):
            decision_curve([0.1, 0.2], [0, 1], [t])
    with pytest.raises(ValueError, match="both classes are needed"):
        decision_curve([0.1, 0.2], [0, 0])
