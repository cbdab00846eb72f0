import pytest
import torch
from naive import KINDS, assert_is, deltas, elected, family, numbers

from patientdx.merge.dare_ties import dare_ties


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compat", ["paper", "mergekit", "peft"])
@pytest.mark.parametrize("shape", [(), (33, 7)])
def test_is_drop_rescale_elect_join(kind, compat, shape):
    for count, density, weights in ((2, 0.5, None), (3, 0.6, [1.0, 0.3, 2.0]), (1, 0.9, [0.5]), (2, 1.0, None)):
        ancestor, parents = family(kind, shape, count)
        left = []
        for number, d in enumerate(deltas(parents, ancestor)):
            kept = torch.where(numbers(d, number, "w", 3) < density, d, 0.0)
            norm = kept.abs().sum()
            factor = 1 / density if compat != "mergekit" else (d.abs().sum() / norm if norm > 0 else 1.0)
            left.append(kept * factor)
        curve = dare_ties(parents, ancestor=ancestor, name="w", seed=3, density=density, weights=weights, compat=compat)
        # mergekit's dare_ties has normalize: false, unlike its ties.
        assert_is(curve, ancestor, elected(left, weights or [1.0] * count, compat, divide=False))


def test_words_of_refusal():
    x = torch.ones(2)
    with pytest.raises(ValueError, match=r"^merge.compat=fusion: it is one of paper, mergekit, peft$"):
        dare_ties((x, x), ancestor=x, name="x", seed=0, compat="fusion")
    with pytest.raises(ValueError, match=r"^merge.density=0 is no share of the elements: give a number above 0 and"):
        dare_ties((x, x), ancestor=x, name="x", seed=0, density=0.0)
