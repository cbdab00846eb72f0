import math

import numpy as np
import pytest

from patientdx.privacy import dlt


def summed(total, tokens, edges=(), weight=None):
    columns = dlt.columns(total, tokens, edges)
    weight = np.ones(len(total)) if weight is None else np.asarray(weight, dtype=float)
    return {name: weight @ column for name, column in columns.items()}


def test_token_and_record_weighting_by_hand():
    # Records of 2 and 8 tokens with mean losses 3 and 1: (6 + 8) / 10, and (3 + 1) / 2.
    sums = summed([6.0, 8.0], [2, 8])
    assert dlt.loss(sums) == pytest.approx(1.4)
    assert dlt.record_loss(sums) == pytest.approx(2.0)
    assert dlt.perplexity(sums) == pytest.approx(math.exp(1.4))
    # The first record twice: (12 + 8) / 12 and (3 + 3 + 1) / 3.
    twice = summed([6.0, 8.0], [2, 8], weight=[2, 1])
    assert dlt.loss(twice) == pytest.approx(20 / 12)
    assert dlt.record_loss(twice) == pytest.approx(7 / 3)


def test_the_matched_difference_compares_like_lengths_only():
    # Short records (3 tokens) have loss 2 a token in both sets, long ones (10 tokens) loss 1: the sets differ in
    # nothing but how many are long.
    test = summed([6, 6, 6, 10], [3, 3, 3, 10], [5])
    other = summed([6, 10, 10, 10], [3, 10, 10, 10], [5])
    assert dlt.loss(test) - dlt.loss(other) == pytest.approx(28 / 19 - 36 / 33)
    assert dlt.matched_difference(test, other) == pytest.approx(0.0)
    assert dlt.matched_share(test, other) == 1.0
    # Of a longer kind, which the other set lacks, nothing can be said: the three short ones are left, of four.
    test = summed([6, 6, 6, 30], [3, 3, 3, 20], [5, 15])
    other = summed([9, 10], [3, 10], [5, 15])
    assert dlt.matched_difference(test, other) == pytest.approx(2.0 - 3.0)
    assert dlt.matched_share(test, other) == pytest.approx(0.75)
    # All of one length: the outer bins are empty in both.
    test, other = summed([6, 9], [3, 3], [2, 5]), summed([3, 3], [3, 3], [2, 5])
    assert dlt.matched_difference(test, other) == pytest.approx(1.5)


def test_the_matched_difference_takes_resamples_at_once_and_is_nan_where_no_bin_is_shared():
    test, other = dlt.columns([6, 10], [3, 10], [5]), dlt.columns([9, 20], [3, 10], [5])
    weights = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 1.0]])
    other_weights = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    result = dlt.matched_difference(
        {name: weights @ column for name, column in test.items()},
        {name: other_weights @ column for name, column in other.items()},
    )
    np.testing.assert_allclose(result, [0.5 * (2 - 3) + 0.5 * (1 - 2), 2 - 3, np.nan])


def test_edges_part_the_records_into_bins_of_like_number():
    edges = dlt.length_edges(np.arange(1, 51), np.arange(51, 101))
    np.testing.assert_allclose(edges, [20.8, 40.6, 60.4, 80.2])
    assert dlt.length_edges([7, 7, 7]).tolist() == [7.0]
    columns = dlt.columns(np.ones(100), np.arange(1, 101), edges)
    assert [columns[f"records_{index}"].sum() for index in range(5)] == [20] * 5
