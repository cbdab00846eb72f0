"""The mark of the coverage benchmark for misses on one side."""

import numpy as np

from experiments.benchmarks import coverage


def test_tails_differ_where_one_side_has_more_than_twice_the_misses_beyond_chance():
    assert not coverage.tails_differ(0, 0)
    assert not coverage.tails_differ(4, 0)  # (2/3)^4 is 0.20
    assert coverage.tails_differ(0, 8)  # (2/3)^8 is 0.04
    assert not coverage.tails_differ(20, 10)
    assert coverage.tails_differ(24, 4)


def test_a_cell_has_coverage_and_both_sides():
    pairs = np.array([[0.0, 1.0]] * 90 + [[0.6, 1.0]] * 9 + [[0.0, 0.4]])
    assert coverage._covered(0.5, pairs) == "90.0 (9.0, 1.0)"
    pairs[-1] = 0.6, 1.0
    assert coverage._covered(0.5, pairs) == "90.0 (10.0, 0.0)!"
