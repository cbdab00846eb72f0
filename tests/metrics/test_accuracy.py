"""Shares of right answers, plain and under many weights, and McNemar's exact test."""

from math import comb

import numpy as np
import pytest

from patientdx.metrics.accuracy import accuracy, accuracy_at_half, share
from patientdx.metrics.bootstrap import interval
from patientdx.metrics.paired import mcnemar

ANSWERS = np.array([0, 1, 2, 3, 1, 0])
RIGHT = np.array([0, 1, 0, 3, 2, 0])


def test_accuracy_is_the_share_of_right_answers():
    assert accuracy(ANSWERS, RIGHT) == 4 / 6
    assert accuracy(ANSWERS, RIGHT, [0, 0, 1, 0, 1, 0]) == 0


def test_share_weighs_a_row_by_its_parts():
    assert share([3, 0], [3, 1]) == 3 / 4
    assert accuracy([3, 0], [3, 1]) == 1 / 2


def test_one_half_is_no_yes():
    assert accuracy_at_half([0.5, 0.51, 0.2], [0, 1, 1]) == 2 / 3


def test_the_bootstrap_interval_is_near_the_normal_one():
    result = interval(accuracy, np.tile(ANSWERS, 30), np.tile(RIGHT, 30), np.arange(180), resamples=500)
    assert result.value == pytest.approx(4 / 6)
    half = 1.96 * np.sqrt(result.value * (1 - result.value) / 180)  # the normal interval of a share
    assert result.low == pytest.approx(result.value - half, abs=0.02)
    assert result.high == pytest.approx(result.value + half, abs=0.02)


def test_mcnemar_is_the_binomial_of_the_rows_that_differ():
    a = [1] * 9 + [0] * 2 + [1] * 20 + [0] * 5
    b = [0] * 9 + [1] * 2 + [1] * 20 + [0] * 5
    result = mcnemar(a, b)
    assert (result.only_a, result.only_b) == (9, 2)
    tail = sum(comb(11, k) for k in range(3)) / 2**11  # at most 2 of 11 tosses
    assert result.p_value == pytest.approx(2 * tail)
    assert mcnemar(b, a).p_value == pytest.approx(result.p_value)
    assert mcnemar([1, 0], [1, 0]).p_value == 1.0
