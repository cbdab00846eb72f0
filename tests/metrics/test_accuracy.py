"""Shares of right answers, plain and under many weights, and McNemar's exact test."""

from math import comb

import numpy as np
import pytest

from patientdx.metrics.accuracy import accuracy, accuracy_at_half, share
from patientdx.metrics.bootstrap import interval
from patientdx.metrics.paired import mcnemar
from patientdx.metrics.specification import metric_spec

SAID = np.array([0, 1, 2, 3, 1, 0])
RIGHT = np.array([0, 1, 0, 3, 2, 0])


def test_accuracy_is_the_share_of_right_answers():
    assert accuracy(SAID, RIGHT) == 4 / 6
    assert accuracy(SAID, RIGHT, [0, 0, 1, 0, 1, 0]) == 0


def test_a_weight_is_how_often_a_row_is_there():
    weight = np.random.default_rng(0).integers(0, 4, (50, 6))
    weight[7] = 0
    for metric, score, label in (
        (accuracy, SAID, RIGHT),
        (share, [0, 1, 2, 0, 3, 1], [1, 1, 3, 2, 3, 1]),
        (accuracy_at_half, np.linspace(0, 1, 6), [0, 1, 0, 1, 1, 0]),
    ):
        found = metric(score, label, weight)
        for row, value in zip(weight, found, strict=True):
            if row.any():
                assert value == pytest.approx(metric(np.repeat(score, row), np.repeat(label, row)))
        assert np.isnan(found[7])


def test_share_weighs_a_row_by_what_it_asks():
    assert share([3, 0], [3, 1]) == 3 / 4
    assert accuracy([3, 0], [3, 1]) == 1 / 2


def test_one_half_is_no_yes():
    assert accuracy_at_half([0.5, 0.51, 0.2], [0, 1, 1]) == 2 / 3


def test_every_metric_says_its_direction_and_takes_the_bootstrap():
    for metric in (accuracy, share, accuracy_at_half):
        assert metric_spec(metric).greater_is_better is True
    found = interval(accuracy, np.tile(SAID, 30), np.tile(RIGHT, 30), np.arange(180), resamples=500)
    assert found.value == pytest.approx(4 / 6)
    half = 1.96 * np.sqrt(found.value * (1 - found.value) / 180)  # the normal interval of a share
    assert found.low == pytest.approx(found.value - half, abs=0.02)
    assert found.high == pytest.approx(found.value + half, abs=0.02)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: accuracy([1, 2], [1]), "of one shape"),
        (lambda: accuracy([], []), "of one shape"),
        (lambda: accuracy([np.nan], [1]), "must be numbers"),
        (lambda: accuracy([1], [1], [-1]), "not negative"),
        (lambda: share([2], [1]), "0 to `label`"),
        (lambda: share([0], [0]), "some row must have parts"),
        (lambda: accuracy_at_half([0.3], [2]), "labels are 0 and 1"),
        (lambda: mcnemar([1, 0], [1]), "on the same rows"),
        (lambda: mcnemar([1, 2], [1, 0]), "right \\(1\\) or wrong \\(0\\)"),
    ],
)
def test_what_does_not_fit_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_mcnemar_is_the_binomial_of_the_rows_that_differ():
    a = [1] * 9 + [0] * 2 + [1] * 20 + [0] * 5
    b = [0] * 9 + [1] * 2 + [1] * 20 + [0] * 5
    found = mcnemar(a, b)
    assert (found.only_a, found.only_b) == (9, 2)
    tail = sum(comb(11, k) for k in range(3)) / 2**11  # at most 2 of 11 tosses
    assert found.p_value == pytest.approx(2 * tail)
    assert mcnemar(b, a).p_value == pytest.approx(found.p_value)
    assert mcnemar([1, 0], [1, 0]).p_value == 1.0
