import pytest
import torch
from naive import assert_is, deltas, elected, family, largest

from patientdx.merge.curve import BLOCK, evaluate
from patientdx.merge.method import method_spec
from patientdx.merge.ties import ties


def whole(parents, ancestor, **given):
    """ties of a model of one tensor."""
    found = method_spec(ties).fit_global_thresholds(lambda: [("x", parents, ancestor)], given)
    return ties(parents, ancestor=ancestor, name="x", cutoffs=found, **given)


@pytest.mark.parametrize("compat", ["paper", "mergekit"])
def test_one_element_stays_at_least(compat):
    ancestor, parents = family("random", (50, 40))
    facts = whole(parents, ancestor, density=1e-6, compat=compat).diagnostics
    assert [facts["kept_0"] * 2000, facts["kept_1"] * 2000] == [1, 1]


def test_facts_say_where_signs_oppose():
    ancestor = torch.zeros(8)
    parents = torch.tensor([1.0, 1, 1, 1, 5, 5, 5, 5]), torch.tensor([9.0, -9, -9, 1, -8, 8, 1, 1])
    facts = whole(parents, ancestor, density=0.5).diagnostics
    # Of the base the 5s stay, of the pivot 9, -9, -9 and -8, which comes before 8: they meet in one place.
    assert facts == {"kept_0": 0.5, "kept_1": 0.5, "conflicts": 0.125}


def test_by_hand():
    ancestor = torch.ones(5)
    base = torch.tensor([4.0, 1.5, -1.0, 1.0, 3.0])  # τ 3, 0.5, -2, 0, 2
    pivot = torch.tensor([2.0, 0.0, 2.0, -5.0, -2.0])  # τ 1, -1, 1, -6, -3
    # The three largest: 3, -2, 2 of the base; -6, -3 and, of three with magnitude 1, the first of the pivot.
    point = evaluate(whole((base, pivot), ancestor, density=0.6), 1.0, torch.empty(5))
    assert point.tolist() == [1 + 2.0, 1.0, 1 - 2.0, 1 - 6.0, 1 - 3.0]
    weighed = whole((base, pivot), ancestor, density=0.6, weights=[2, 1], compat="mergekit")
    # 6 and 1 over 3; 4 outvotes -3.
    assert evaluate(weighed, 3.0, torch.empty(5)).tolist() == [1 + 7.0, 1.0, 1 - 6.0, 1 - 18.0, 1 + 6.0]


@pytest.mark.parametrize(("compat", "trim"), [("mergekit", None), ("peft", None), ("paper", "tensor")])
def test_trim_by_tensor_needs_no_survey(compat, trim):
    def tensors():
        raise AssertionError("read")

    assert method_spec(ties).fit_global_thresholds(tensors, {"compat": compat, "trim": trim}) is None


def test_peft_keeps_nothing_of_a_tensor_too_small_for_the_density():
    ancestor, parent = torch.zeros(3), torch.ones(3)
    given = {"ancestor": ancestor, "name": "x", "density": 0.2}
    assert evaluate(ties((parent,), compat="peft", **given), 1.0, torch.empty(3)).tolist() == [0.0, 0.0, 0.0]
    assert evaluate(ties((parent,), compat="mergekit", **given), 1.0, torch.empty(3)).tolist() == [1.0, 0.0, 0.0]


def test_ties_over_several_blocks():
    g = torch.Generator().manual_seed(3)
    ancestor = torch.zeros(2 * BLOCK + 77)
    parents = [torch.randint(-2, 3, ancestor.shape, generator=g).float() for _ in range(2)]
    trimmed = [d * largest(d, int(0.3 * d.numel())) for d in deltas(parents, ancestor)]
    curve = whole(parents, ancestor, density=0.3)
    assert_is(curve, ancestor, elected(trimmed, [1.0, 1.0], "paper"))


def test_is_what_peft_makes_of_it():
    theirs = pytest.importorskip("peft.utils.merge_utils")
    ancestor, parents = family("random", count=3)
    weights = [1.0, 0.3, 2.0]
    task = [(parent - ancestor).double() for parent in parents]
    expected = theirs.ties(task, torch.tensor(weights, dtype=torch.float64), 0.4)
    curve = ties(parents, ancestor=ancestor, name="x", density=0.4, weights=weights, compat="peft")
    found = evaluate(curve, 1.0, torch.empty(ancestor.shape, dtype=torch.float64)) - ancestor.double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)  # theirs takes the difference in float32
