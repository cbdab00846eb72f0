import pytest
import torch
from naive import KINDS, assert_is, deltas, elected, family
from test_breadcrumbs import masked

from patientdx.merge.breadcrumbs_ties import breadcrumbs_ties
from patientdx.merge.method import method_spec


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compat", ["paper", "mergekit"])
@pytest.mark.parametrize("trim", ["tensor", "model"])
def test_is_mask_elect_join(kind, compat, trim):
    numbers = [(2, 0.9, 0.01, None), (3, 0.5, 0.3, [1.0, 0.3, 2.0]), (1, 0.3, 0.7, [2.0]), (2, 0.7, 0.0, None)]
    for count, density, gamma, weights in numbers:
        ancestor, parents = family(kind, (37, 19), count)
        left = [masked(d, density, gamma) for d in deltas(parents, ancestor)]
        given = {"density": density, "gamma": gamma, "weights": weights, "trim": trim, "compat": compat}
        found = method_spec(breadcrumbs_ties).fit_global_thresholds(
            lambda parents=parents, ancestor=ancestor: [("x", parents, ancestor)], given
        )
        curve = breadcrumbs_ties(parents, ancestor=ancestor, name="x", cutoffs=found, **given)
        # mergekit's breadcrumbs_ties has normalize: false, unlike its ties.
        assert_is(curve, ancestor, elected(left, weights or [1.0] * count, compat, divide=False))


def test_words_of_refusal():
    x = torch.ones(2)
    with pytest.raises(ValueError, match=r"^merge.compat=peft: it is one of paper, mergekit$"):
        breadcrumbs_ties((x, x), ancestor=x, name="x", compat="peft")
    with pytest.raises(
        ValueError, match=r"^merge.gamma=-0.1 is the share dropped at the top, beside merge.density=0.9"
    ):
        breadcrumbs_ties((x, x), ancestor=x, name="x", gamma=-0.1)
