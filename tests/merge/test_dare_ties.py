import pytest
import torch
from naive import KINDS, assert_is, deltas, elected, family, numbers

from patientdx.merge.curve import evaluate
from patientdx.merge.dare_ties import dare_ties
from patientdx.merge.della import della


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compat", ["paper", "sum", "mergekit", "peft"])
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


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.2, 0.8]])
def test_shares_of_parents_that_moved_alike_keep_the_size_of_their_task_vector(shares):
    delta = torch.randn(400, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for merge, given in ((dare_ties, {"density": 0.6}), (della, {"density": 0.6, "epsilon": 0.05})):
        for moved, size in (((delta, delta), 1.0), ((torch.zeros_like(delta), delta), shares[1])):
            curve = merge(
                moved, ancestor=torch.zeros_like(delta), name="w", seed=1, weights=shares, compat="sum", **given
            )
            found = evaluate(curve, 1.0, torch.empty_like(delta))
            assert float((found * delta).sum() / (delta * delta).sum()) == pytest.approx(size, abs=0.01)


def test_words_of_refusal():
    x = torch.ones(2)
    with pytest.raises(ValueError, match=r"^merge.compat=fusion: it is one of paper, sum, mergekit, peft$"):
        dare_ties((x, x), ancestor=x, name="x", seed=0, compat="fusion")
    with pytest.raises(ValueError, match=r"^merge.density=0 is no share of the elements: give a number above 0 and"):
        dare_ties((x, x), ancestor=x, name="x", seed=0, density=0.0)
