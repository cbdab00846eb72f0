import pytest
import torch

from patientdx.merge.elect import MERGEKIT, MERGEKIT_SUM, PAPER, PEFT, Election, count_conflicts, elect

HOWS = {
    "paper": PAPER,
    "peft": PEFT,
    "mergekit": MERGEKIT,
    "mergekit sum": MERGEKIT_SUM,
    "sce": Election(divide=None),
    "sce mergekit": Election(plus=True, divide="weights"),
}


def one(values, weights, how):
    """A single element, in plain Python."""
    sum_ = sum(w * v if how.weighted else v for v, w in zip(values, weights, strict=True))
    sign = (sum_ > 0) - (sum_ < 0) or (1 if how.plus else 0)
    agreeing = [
        (v, w)
        for v, w in zip(values, weights, strict=True)
        if ((u := w * v if how.weighted else v) > 0) - (u < 0) == sign != 0
    ]
    top = sum(v * w for v, w in agreeing)
    below = {"count": len(agreeing), "weights": sum(w for _, w in agreeing), None: 1}[how.divide]
    return top / (below or 1)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 2.0), (1.0, 1.0, 1.0), (0.3, 0.0, 2.0), (1.0, -0.5), (0.7,)])
def test_is_the_rule_element_by_element(how, weights):
    g = torch.Generator().manual_seed(len(weights))
    moved = [torch.randint(-2, 3, (400,), generator=g) * torch.rand(400, generator=g).double() for _ in weights]
    whole = [torch.randint(-2, 3, (400,), generator=g).double() for _ in weights]  # often an exact draw
    for vectors in (moved, whole):
        expected = [one(values, weights, HOWS[how]) for values in zip(*(v.tolist() for v in vectors), strict=True)]
        found = elect([v.clone() for v in vectors], weights, HOWS[how])
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        # τ of the base 2, 2, 0, 1, 1; of the pivot 1, -1, -3, -1, -3; weights 1 and 4
        ("paper", [(2 + 4) / 2, 2, -12, 0, -12]),
        ("peft", [(2 + 4) / 2, 2, -12, 1, -12]),  # a draw of 1 and -1 goes to +
        ("mergekit", [(2 + 4) / 5, -1, -3, -1, -3]),  # 4 times -1 outvotes 2
        ("mergekit sum", [6, -4, -12, -4, -12]),
    ],
)
def test_by_hand(how, expected):
    moved = [torch.tensor([2.0, 2, 0, 1, 1]).double(), torch.tensor([1.0, -1, -3, -1, -3]).double()]
    assert elect(moved, (1.0, 4.0), HOWS[how]).tolist() == expected


@pytest.mark.parametrize("how", HOWS)
def test_turning_every_sign_turns_the_result_unless_a_draw_goes_to_plus(how):
    g = torch.Generator().manual_seed(0)
    moved = [torch.randn(100, generator=g).double() for _ in range(3)]
    there = elect([v.clone() for v in moved], (1.0, 1.0, 1.0), HOWS[how])
    back = elect([-v for v in moved], (1.0, 1.0, 1.0), HOWS[how])
    assert torch.equal(there, -back)
    draw = [torch.ones(1).double(), -torch.ones(1).double()]
    assert elect(draw, (1.0, 1.0), HOWS[how]).item() == (1.0 if HOWS[how].plus else 0.0)


@pytest.mark.parametrize("how", ["paper", "peft", "mergekit"])
def test_equal_task_vectors_give_themselves(how):
    x = torch.randn(100, generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(elect([x.clone() for _ in range(4)], (1.0,) * 4, HOWS[how]), x)


def test_tiny_and_huge_elements_are_elected_as_well():
    moved = [torch.tensor(v, dtype=torch.float64) for v in ([1e-200, -1e300], [2e-200, 1e299])]
    assert elect(moved, (1.0, 1.0), PAPER).tolist() == pytest.approx([1.5e-200, -1e300])


def test_tally_counts_what_is_left_and_where_signs_oppose():
    a, b, c = [1.0, 0.0, -2.0, 0.0, 1.0], [1.0, -1.0, 3.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0, -1e-9]
    vectors = [torch.tensor(v).double() for v in (a, b, c)]
    assert count_conflicts(vectors) == ([3, 3, 2], 2)
    assert count_conflicts([torch.tensor(a).double()]) == ([3], 0)
