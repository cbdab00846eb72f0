import numpy as np
import pytest

from patientdx.privacy.lira import halves, lira


def test_every_patient_is_in_half_of_the_models_with_all_their_records():
    subjects = ["b", "a", "b", "c"]
    inside = halves(subjects, 6, seed=1)
    assert inside.shape == (6, 4)
    assert inside.sum(axis=0).tolist() == [3] * 4
    assert np.array_equal(inside[:, 0], inside[:, 2])
    assert np.array_equal(halves(subjects[::-1], 6, seed=1), inside[:, ::-1])
    many = halves([*map(str, range(30))], 6, seed=1)
    assert many.sum(axis=1).tolist() == [15] * 6  # and every model has half of the patients
    assert not np.array_equal(halves([*map(str, range(30))], 6, seed=2), many)


def test_the_score_is_the_distance_from_the_models_without_the_record_by_hand():
    shadows = np.array([[9.0, 1.0], [9.0, 5.0], [1.0, 9.0], [3.0, 9.0]])
    inside = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    # Without it: 1 and 3, and 1 and 5. One spread for both: sqrt((2 + 8) / 2).
    result = lira([4.0, 3.0], shadows, inside)
    assert result.tolist() == pytest.approx([(4 - 2) / np.sqrt(5), 0.0])


def test_with_many_models_each_record_has_its_own_spread():
    random = np.random.default_rng(0)
    shadows = random.normal(0, [1.0, 10.0], (80, 2))
    inside = np.repeat([[0], [1]], 40, axis=0) * np.ones((1, 2))
    result = lira([2.0, 2.0], shadows, inside)
    assert result[0] == pytest.approx((2 - shadows[:40, 0].mean()) / shadows[:40, 0].std(ddof=1))
    assert result[0] > 4 * result[1]
