import itertools

import pytest
import torch

from patientdx.merge.curve import BLOCK, evaluate
from patientdx.merge.model_stock import model_stock


def draw(count, shape=(8, 5), seed=0, shared=1.0, dtype=torch.float64):
    """`count` parents and their ancestor; the parents have `shared` of a difference in common."""
    generator = torch.Generator().manual_seed(seed)
    ancestor, along, *noise = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count + 2))
    return [(ancestor + shared * along + one).to(dtype) for one in noise], ancestor.to(dtype)


def naive(parents, ancestor, least=0.0):
    """The formula for flat vectors."""
    offsets = [(parent - ancestor).flatten() for parent in parents]
    pairs = [x @ y / (x.norm() * y.norm()) for x, y in itertools.combinations(offsets, 2)]
    cosine = max(least, sum(pairs).item() / len(pairs))
    count = len(parents)
    ratio = count * cosine / (1 + (count - 1) * cosine)
    return ratio * sum(parents) / count + (1 - ratio) * ancestor


def merged(parents, ancestor, **numbers):
    return evaluate(model_stock(parents, ancestor=ancestor, **numbers), 0.0, torch.empty_like(ancestor))


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("shared", [0.3, 1.0, 5.0])
def test_is_the_formula(count, shared):
    parents, ancestor = draw(count, shared=shared)
    torch.testing.assert_close(merged(parents, ancestor), naive(parents, ancestor))
    assert torch.equal(merged(parents, ancestor), merged(parents, ancestor, compat="mergekit"))
    rows = [naive([parent[i] for parent in parents], ancestor[i]) for i in range(8)]
    torch.testing.assert_close(merged(parents, ancestor, filter_wise=True), torch.stack(rows))


@pytest.mark.parametrize("filter_wise", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("compat", ["paper", "mergekit"])
def test_parents_equal_to_the_ancestor_give_the_ancestor_bit_for_bit(filter_wise, dtype, compat):
    ancestor = draw(1, dtype=dtype)[1]
    parents = [ancestor.clone(), ancestor.clone()]
    assert torch.equal(merged(parents, ancestor, filter_wise=filter_wise, compat=compat), ancestor)


def test_parents_that_agree_are_kept_and_parents_at_right_angles_leave_the_ancestor():
    (parent,), ancestor = draw(1)
    torch.testing.assert_close(merged([parent, parent.clone()], ancestor), parent)
    origin, a, b, c = (torch.tensor(values) for values in ([1.0, 0.0], [1.0, 2.0], [1.0, 6.0], [3.0, 0.0]))
    assert merged((a, b), origin).tolist() == [1.0, 4.0]
    assert merged((c, b), origin).tolist() == [1.0, 0.0]


def test_by_hand_at_60_degrees():
    origin = torch.zeros(2, dtype=torch.float64)
    a, b = torch.tensor([2.0, 0.0], dtype=torch.float64), torch.tensor([0.5, 3**0.5 / 2], dtype=torch.float64)
    curve = model_stock((a, b), ancestor=origin)
    assert curve.diagnostics == pytest.approx({"cosine_mean": 0.5, "ratio": 2 / 3})
    torch.testing.assert_close(merged((a, b), origin), (a + b) / 3)


def test_parents_that_point_apart_keep_the_ancestor_unless_mergekit_is_asked_for():
    origin = torch.tensor([1.0, 1.0], dtype=torch.float64)
    a, b = origin + torch.tensor([1.0, 0.0]), origin + torch.tensor([-0.5, 3**0.5 / 2])  # cosine -1/2, ratio -2
    assert torch.equal(merged((a, b), origin), origin)
    assert model_stock((a, b), ancestor=origin).diagnostics["cosine_mean"] == pytest.approx(-0.5)
    torch.testing.assert_close(merged((a, b), origin, compat="mergekit"), naive((a, b), origin, least=-1.0))
    opposite = (origin + torch.tensor([1.0, 0.0]), origin - torch.tensor([3.0, 0.0]))  # nothing to divide by
    for compat in ("paper", "mergekit"):
        assert torch.equal(merged(opposite, origin, compat=compat), origin)


def test_rows_have_ratios_of_their_own():
    origin = torch.zeros(4, 2)
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    b = torch.tensor([[3.0, 0.0], [0.0, 1.0], [-1.0, -1.0], [1.0, 1.0]])
    curve = model_stock((a, b), ancestor=origin, filter_wise=True)
    expected = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(evaluate(curve, 0.0, torch.empty(4, 2)), expected)
    assert curve.diagnostics == pytest.approx({"ratio_min": 0.0, "ratio_max": 1.0})


@pytest.mark.parametrize("shape", [(), (1,), (1, 7), (0,), (3, 0), (2, 3, 4), (3, BLOCK + 1)])
@pytest.mark.parametrize("filter_wise", [False, True])
def test_every_shape_with_the_rounding_of_the_formula(shape, filter_wise):
    parents, ancestor = draw(2, shape, dtype=torch.bfloat16)
    found = merged(parents, ancestor, filter_wise=filter_wise)
    assert (found.shape, found.dtype) == (torch.Size(shape), torch.bfloat16)
    if found.numel() and not filter_wise:
        expected = naive([parent.double() for parent in parents], ancestor.double())
        torch.testing.assert_close(found, expected.bfloat16(), rtol=2**-7, atol=1e-6)
    assert torch.isfinite(found).all()


def test_there_is_no_position_to_choose():
    parents, ancestor = draw(3)
    curve = model_stock(parents, ancestor=ancestor)
    assert torch.equal(evaluate(curve, 0.0, torch.empty(8, 5)), evaluate(curve, 0.9, torch.empty(8, 5)))
