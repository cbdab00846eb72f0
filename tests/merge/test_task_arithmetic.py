import pytest
import torch
from naive import assert_is, deltas, family

from patientdx.merge.curve import evaluate
from patientdx.merge.linear import linear
from patientdx.merge.task_arithmetic import task_arithmetic


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_convex_form_is_linear_bit_for_bit(weight, dtype):
    ancestor, parents = family("random", (4, 7), dtype=dtype)
    convex = evaluate(task_arithmetic(parents, ancestor=ancestor, form="convex"), weight, torch.empty_like(ancestor))
    assert torch.equal(convex, evaluate(linear(parents), weight, torch.empty_like(ancestor)))


def test_the_convex_form_is_its_formula():
    ancestor, parents = family("random")
    a, b = deltas(parents, ancestor)
    assert_is(task_arithmetic(parents, ancestor=ancestor, form="convex"), ancestor, (0.3 * a + 0.7 * b) / 0.7)


def test_with_the_base_as_ancestor_it_is_the_straight_line_bit_for_bit():
    base, (pivot,) = family("bfloat16", count=1, dtype=torch.bfloat16)
    for ancestor in (base, base.clone()):
        curve = task_arithmetic((base, pivot), ancestor=ancestor)
        line = linear((base, pivot))
        for weight in (0.0, 0.4, 1.0):
            out = torch.empty_like(base)
            assert torch.equal(evaluate(curve, weight, out), evaluate(line, weight, torch.empty_like(base)))
    assert len(task_arithmetic((base, pivot), ancestor=base).terms) == 2  # the base is not read twice


def test_by_hand():
    ancestor, a, b = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 2.0]), torch.tensor([1.0, -2.0])
    assert evaluate(task_arithmetic((a, b), ancestor=ancestor), 0.5, torch.empty(2)).tolist() == [1.5, 0.0]
    taken = task_arithmetic((a, b), ancestor=ancestor, weights=[1, -1])
    assert evaluate(taken, 2.0, torch.empty(2)).tolist() == [3.0, 10.0]
