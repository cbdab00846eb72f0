import math

import pytest
import torch

from patientdx.merge.curve import evaluate
from patientdx.merge.karcher import karcher
from patientdx.merge.multislerp import multislerp
from patientdx.merge.slerp import slerp


def draw(count, shape=(6, 5), seed=0, spread=0.7):
    generator = torch.Generator().manual_seed(seed)
    start, *noise = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count + 1))
    return [start + spread * one for one in noise]


def naive(parents, weights):
    """Mean direction, logarithms there, their average, exponential: on the vectors themselves."""
    units = [parent.flatten() / parent.norm() for parent in parents]
    mean = sum(weight * unit for weight, unit in zip(weights, units, strict=True))
    mean = mean / mean.norm()
    along = torch.zeros_like(mean)
    for weight, unit in zip(weights, units, strict=True):
        apart = unit - (unit @ mean) * mean
        along += weight * math.atan2(apart.norm().item(), (unit @ mean).item()) * apart / apart.norm()
    size = along.norm().item()
    place = math.cos(size) * mean + (math.sin(size) / size if size else 1.0) * along
    norm = sum(weight * parent.norm() for weight, parent in zip(weights, parents, strict=True))
    return (norm * place).view_as(parents[0])


def merged(parents, weight, **numbers):
    return evaluate(multislerp(parents, **numbers), weight, torch.empty_like(parents[0]))


@pytest.mark.parametrize(("count", "weight"), [(2, 0.3), (3, 0.6), (4, 0.75), (6, 0.9)])
@pytest.mark.parametrize("spread", [0.05, 0.7, 3.0])
def test_is_the_formula_on_the_vectors_themselves(count, weight, spread):
    parents = draw(count, spread=spread)
    expected = naive(parents, [1 - weight] + [weight / (count - 1)] * (count - 1))
    torch.testing.assert_close(merged(parents, weight), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("angle", [0.1, 1.0, 2.0, 3.0])
def test_two_unit_vectors_are_slerp(weight, angle):
    a = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    b = torch.tensor([math.cos(angle), math.sin(angle), 0.0], dtype=torch.float64)
    expected = evaluate(slerp((a, b)), weight, torch.empty_like(a))
    torch.testing.assert_close(merged((a, b), weight), expected, rtol=0, atol=1e-14)


def test_it_is_the_first_step_to_the_karcher_mean():
    parents = draw(5, spread=3.0)
    assert torch.equal(merged(parents, 0.8), evaluate(karcher(parents, max_iter=1), 0.8, torch.empty_like(parents[0])))
    assert not torch.equal(merged(parents, 0.8), evaluate(karcher(parents), 0.8, torch.empty_like(parents[0])))


@pytest.mark.parametrize("count", [2, 4])
def test_mergekits_form_is_the_mean_direction_times_the_mean_norm(count):
    parents = draw(count)
    weights = [0.4] + [0.6 / (count - 1)] * (count - 1)
    mean = sum(weight * parent / parent.norm() for weight, parent in zip(weights, parents, strict=True))
    norm = sum(weight * parent.norm() for weight, parent in zip(weights, parents, strict=True))
    found = merged(parents, 0.6, compat="mergekit")
    torch.testing.assert_close(found, norm * mean / mean.norm(), rtol=0, atol=1e-13)
    assert not torch.allclose(found, merged(parents, 0.6), rtol=0, atol=1e-6)


def test_equal_shares_of_two_are_the_same_in_both_forms():
    parents = draw(2)
    torch.testing.assert_close(merged(parents, 0.5), merged(parents, 0.5, compat="mergekit"), rtol=0, atol=1e-13)


@pytest.mark.parametrize("compat", ["paper", "mergekit"])
def test_parents_without_length_opposite_or_of_one_element(compat):
    a, b = draw(2)
    nothing = torch.zeros_like(a)
    torch.testing.assert_close(merged((nothing, b), 0.3, compat=compat), 0.3 * b)
    assert torch.equal(merged((nothing, nothing), 0.3, compat=compat), nothing)
    assert multislerp((a, -a), compat=compat).coefficients(0.5) == (0.5, 0.5)
    assert multislerp((a, b, b), compat=compat).coefficients(0.0) == (1.0, 0.0, 0.0)
    assert multislerp((a, b), compat=compat).coefficients(1.0) == (0.0, 1.0)
    one, two = torch.tensor(1.0), torch.tensor(4.0)
    assert merged((one, two), 0.5, compat=compat).item() == pytest.approx(2.5)
    assert merged((torch.empty(0), torch.empty(0), torch.empty(0)), 0.5, compat=compat).shape == (0,)
