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


@pytest.mark.parametrize("count", [0, 1, 3])
def test_other_than_two_parents_are_refused(count):
    with pytest.raises(ValueError, match=f"^merge=linear joins exactly two parents, got {count}$"):
        linear([torch.ones(2)] * count)


def test_parents_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match=r"^merge=linear joins tensors of one shape, got \(1,\) and \(3,\)$"):
        linear((torch.ones(1), torch.ones(3)))


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
