import pytest
import torch
from naive import KINDS, assert_is, deltas, elected, family
from test_della_linear import pruned

from patientdx.merge.della import della


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compat", ["paper", "sum", "mergekit"])
@pytest.mark.parametrize("shape", [(), (50,), (33, 7)])
def test_is_rank_drop_rescale_elect_join(kind, compat, shape):
    for count, density, epsilon, weights in (
        (2, 0.5, 0.15, None),
        (3, 0.6, 0.05, [1.0, 0.3, 2.0]),
        (1, 0.3, 0.2, [2.0]),
    ):
        ancestor, parents = family(kind, shape, count)
        left = [
            pruned(d, i, density, epsilon, "paper" if compat == "sum" else compat, "w", 5)
            for i, d in enumerate(deltas(parents, ancestor))
        ]
        given = {"density": density, "epsilon": epsilon, "weights": weights, "compat": compat}
        curve = della(parents, ancestor=ancestor, name="w", seed=5, **given)
        assert curve.by_row
        assert_is(curve, ancestor, elected(left, weights or [1.0] * count, compat))


def test_words_of_refusal():
    x = torch.ones(2)
    with pytest.raises(ValueError, match=r"^merge.compat=peft: it is one of paper, sum, mergekit$"):
        della((x, x), ancestor=x, name="x", seed=0, compat="peft")
    words = r"^merge.density=0.9 with merge.epsilon=0.15 gives keep probabilities from 0.75 to 1.05, and they must lie"
    with pytest.raises(ValueError, match=words):
        della((x, x), ancestor=x, name="x", seed=0, density=0.9)
