import math

import numpy as np
import pytest

from patientdx.privacy.canaries import canaries, candidates, continued, exposure, longest_common


def test_canaries_are_different_and_come_from_the_seed():
    make = canaries((1, 4, 16), 3, seed=5)
    assert [item.copies for item in make] == [1, 1, 1, 4, 4, 4, 16, 16, 16]
    assert len({item.text for item in make}) == 9
    assert make == canaries((1, 4, 16), 3, seed=5)
    assert {item.text for item in make}.isdisjoint({item.text for item in canaries((1, 4, 16), 3, seed=6)})


def test_candidates_have_the_form_of_canaries_and_are_none():
    make = canaries((1, 2), 2)
    others = candidates(make, 500)
    assert len(set(others)) == 500
    assert not {item.text for item in make} & set(others)
    assert {len(text) for text in others} == {len(make[0].text)}
    assert others[:100] == candidates(make, 100)


def test_exposure_by_hand():
    losses = [1.0, 2.0, 3.0]
    assert exposure(0.5, losses) == 2.0  # first of four
    assert exposure(2.5, losses) == pytest.approx(math.log2(4) - math.log2(3))
    assert exposure(9.0, losses) == 0.0  # last
    assert exposure(1.0, losses) == 1.0  # a tie counts against the canary


def test_without_memory_the_exposure_is_as_expected():
    random = np.random.default_rng(0)
    result = [exposure(random.random(), random.random(255)) for _ in range(4000)]
    ranks = np.log2(256) - np.log2(np.arange(1, 257))
    assert np.mean(result) == pytest.approx(ranks.mean(), abs=4 * ranks.std() / np.sqrt(4000))
    assert ranks.mean() == pytest.approx(math.log2(math.e), abs=0.05)


def test_how_a_continuation_compares():
    assert continued([1, 2, 3, 4], [1, 2, 3, 4]) == {"exact": True, "prefix": 1.0, "longest": 1.0}
    assert continued([1, 2, 3, 4], [1, 9, 3, 4]) == {"exact": False, "prefix": 0.25, "longest": 0.5}
    assert continued([1, 2, 3, 4], [2, 3, 4, 1]) == {"exact": False, "prefix": 0.0, "longest": 0.75}
    assert longest_common([1, 2], []) == 0
