import pytest
import torch

from patientdx.merge.curve import BLOCK, Curve, evaluate, write
from patientdx.merge.linear import linear
from patientdx.merge.none import none


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("weight", [0.1, 0.4, 0.5, 0.9])
def test_is_the_float64_formula_rounded_once(dtype, weight):
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.randn(BLOCK + 77, generator=generator).to(dtype) for _ in range(2))
    found = evaluate(linear((a, b)), weight, torch.empty_like(a))
    assert torch.equal(found, ((1 - weight) * a.double() + weight * b.double()).to(dtype))


def test_by_hand():
    a, b = torch.tensor([[0.0, 4.0], [-2.0, 8.0]]), torch.tensor([[1.0, 0.0], [2.0, 8.0]])
    found = evaluate(linear((a, b)), 0.25, torch.empty(2, 2))
    assert found.tolist() == [[0.25, 3.0], [-1.0, 8.0]]


def test_more_parents_share_what_the_base_gives_up():
    parents = [torch.tensor([value]) for value in (1.0, 10.0, 100.0)]
    assert linear(parents).coefficients(0.5) == (0.5, 0.25, 0.25)
    assert linear(parents, weights=[3, 1]).coefficients(0.5) == (0.5, 0.375, 0.125)
    assert linear(parents, weights=[0.75, 0.25]).coefficients(1.0) == (0.0, 0.75, 0.25)
    assert linear(parents, weights=[0, 5]).coefficients(1.0) == (0.0, 0.0, 1.0)
    assert evaluate(linear(parents), 0.5, torch.empty(1)).item() == 28.0
    assert evaluate(linear(parents), 0.0, torch.empty(1)).item() == 1.0
    assert linear(parents[:2], weights=[7]).coefficients(0.3) == linear(parents[:2]).coefficients(0.3) == (0.7, 0.3)


def test_many_parents_are_the_float64_formula_rounded_once():
    generator = torch.Generator().manual_seed(4)
    parents = [torch.randn(999, generator=generator).bfloat16() for _ in range(5)]
    found = evaluate(linear(parents, weights=[1, 2, 3, 2]), 0.6, torch.empty(999, dtype=torch.bfloat16))
    shares = (0.4, 0.075, 0.15, 0.225, 0.15)
    exact = sum(share * parent.double() for share, parent in zip(shares, parents, strict=True))
    assert torch.equal(found, exact.bfloat16())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_merge_is_the_base_whatever_the_others(count):
    parents = [torch.full((3,), float(i)) for i in range(count)]
    assert evaluate(none(parents), 0.7, torch.empty(3)).tolist() == [0.0, 0.0, 0.0]


def test_a_curve_of_three_terms_and_a_share_of_nothing():
    terms = tuple(torch.full((5,), value) for value in (1.0, 10.0, 100.0))
    curve = Curve(terms, lambda weight: (1.0, weight, -weight))
    assert evaluate(curve, 0.5, torch.empty(5)).tolist() == [-44.0] * 5
    assert evaluate(curve, 0.0, torch.empty(5)).tolist() == [1.0] * 5
    assert evaluate(Curve(terms, lambda weight: (0.0, 0.0, 0.0)), 0.5, torch.full((5,), 7.0)).tolist() == [0.0] * 5


def test_write_fills_the_given_storage():
    into = {"x": torch.zeros(2), "y": torch.zeros(3)}
    places = {name: tensor.data_ptr() for name, tensor in into.items()}
    curves = {n: linear((torch.zeros_like(t), torch.ones_like(t))) for n, t in into.items()}
    write(curves, 0.5, into)
    assert {name: tensor.tolist() for name, tensor in into.items()} == {"x": [0.5] * 2, "y": [0.5] * 3}
    assert {name: tensor.data_ptr() for name, tensor in into.items()} == places
    with pytest.raises(KeyError, match="z"):
        write({"z": curves["x"]}, 0.5, into)
