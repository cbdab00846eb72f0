import numpy as np
from scipy.stats import binomtest

from patientdx.privacy.estimates import tpr_at


def test_the_threshold_lets_exactly_the_allowed_false_alarms_pass():
    outside = np.arange(1000.0)  # 10 false alarms at 1 %: those above 989
    inside = np.array([989.0, 989.5, 1200.0, 5.0])
    result = tpr_at(np.concatenate([inside, outside]), [1] * 4 + [0] * 1000, 0.01)
    assert result["value"] == 0.5
    assert (result["found"], result["members"], result["false_alarms"], result["non_members"]) == (2, 4, 10, 1000)
    exact = binomtest(2, 4).proportion_ci(0.95, method="exact")
    assert (result["low"], result["high"]) == (exact.low, exact.high)


def test_ties_at_the_threshold_never_let_more_false_alarms_pass():
    score, member = np.zeros(3000), np.repeat([1, 0], [1000, 2000])
    result = tpr_at(score, member, 0.01)
    assert (result["value"], result["false_alarms"]) == (0.0, 0)


def test_too_few_non_members_are_not_resolvable():
    result = tpr_at(np.arange(1009.0), [1] * 10 + [0] * 999, 0.01)
    assert result == {"value": None, "reason": "not resolvable with 999 non-members: 1000 are needed"}
    assert tpr_at(np.arange(1010.0), [1] * 10 + [0] * 1000, 0.01)["value"] is not None
    assert "10000 are needed" in tpr_at(np.arange(1010.0), [1] * 10 + [0] * 1000, 0.001)["reason"]
