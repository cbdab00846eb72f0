"""A bit that flips in weights before, in or after a merge is noticed, or changes nothing."""

from experiments.benchmarks.bit_flips import PLACES, UNNOTICED, measure


def test_every_flipped_bit_is_noticed_or_without_effect(tmp_path):
    counts = measure(3, 1, tmp_path)
    assert counts.keys() == PLACES.keys()
    assert {sum(counter.values()) for counter in counts.values()} == {3}
    assert not any(counter[UNNOTICED] for counter in counts.values())
    assert counts["parent before the merge, weights"]["hash of the parent, before or after the merge"] == 3
    assert counts["merged file, weights"]["verify: weights or files derived again"] == 3
