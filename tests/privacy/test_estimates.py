import numpy as np
import pytest
from scipy.stats import binomtest

from patientdx.privacy.estimates import tpr_at


def apart(n: int) -> list[str]:
    """A patient for each of n stays."""
    return [f"p{i}" for i in range(n)]


def test_the_threshold_lets_exactly_the_allowed_false_alarms_pass():
    outside = np.arange(1000.0)  # 10 false alarms at 1 %: those above 989
    inside = np.array([989.0, 989.5, 1200.0, 5.0])
    result = tpr_at(np.concatenate([inside, outside]), [1] * 4 + [0] * 1000, 0.01, apart(1004))
    assert result["value"] == 0.5
    assert (result["found"], result["members"], result["false_alarms"], result["non_members"]) == (2, 4, 10, 1000)
    exact = binomtest(2, 4).proportion_ci(0.95, method="exact")
    assert (result["low"], result["high"]) == pytest.approx((exact.low, exact.high))


def test_ties_at_the_threshold_never_let_more_false_alarms_pass():
    score, member = np.zeros(3000), np.repeat([1, 0], [1000, 2000])
    result = tpr_at(score, member, 0.01, apart(3000))
    assert (result["value"], result["false_alarms"]) == (0.0, 0)


def test_too_few_non_members_are_not_resolvable():
    result = tpr_at(np.arange(1009.0), [1] * 10 + [0] * 999, 0.01, apart(1009))
    assert result == {"value": None, "reason": "not resolvable with 999 non-members: 1000 are needed"}
    assert tpr_at(np.arange(1010.0), [1] * 10 + [0] * 1000, 0.01, apart(1010))["value"] is not None
    assert "10000 are needed" in tpr_at(np.arange(1010.0), [1] * 10 + [0] * 1000, 0.001, apart(1010))["reason"]


def test_stays_of_one_patient_are_no_independent_members():
    """Ten patients of eight stays each, recognised together or not at all, are ten members and no eighty."""
    outside, found = np.arange(1000.0), np.repeat([2000.0] * 3 + [0.0] * 7, 8)
    subject = [f"p{i // 8}" for i in range(80)] + apart(1000)
    result = tpr_at(np.concatenate([found, outside]), [1] * 80 + [0] * 1000, 0.01, subject)
    exact = binomtest(3, 10).proportion_ci(0.95, method="exact")
    assert (result["value"], result["found"], result["members"]) == (0.3, 24, 80)
    assert (result["low"], result["high"]) == pytest.approx((exact.low, exact.high))
    none = tpr_at(np.concatenate([0 * found, outside]), [1] * 80 + [0] * 1000, 0.01, subject)
    assert (none["low"], none["high"]) == pytest.approx((0, binomtest(0, 10).proportion_ci(0.95, method="exact").high))


def test_an_interval_by_patient_covers():
    """20 patients with six stays, of whom each is recognised with a chance of its own, 0.3 on average."""
    random, covered = np.random.default_rng(0), 0
    subject = [f"p{i // 6}" for i in range(120)] + apart(1000)
    for _ in range(400):
        hit = random.random(120) < np.repeat(random.beta(0.6, 1.4, 20), 6)
        score = np.concatenate([np.where(hit, 2000.0, 0.0), np.arange(1000.0)])
        result = tpr_at(score, [1] * 120 + [0] * 1000, 0.01, subject)
        covered += result["low"] <= 0.3 <= result["high"]
    assert covered / 400 > 0.94
