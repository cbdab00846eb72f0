import math

import pytest
import torch

from patientdx.merge.curve import BLOCK, evaluate
from patientdx.merge.karcher import karcher
from patientdx.merge.slerp import slerp


def draw(count, size=30, seed=0, spread=0.7):
    generator = torch.Generator().manual_seed(seed)
    start, *noise = (torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(count + 1))
    return [start + spread * one for one in noise]


def naive(parents, weights, steps):
    """The mean on the vectors themselves, by half steps along the mean logarithm."""
    units = [parent / parent.norm() for parent in parents]
    place = units[0]
    for _ in range(steps):
        along = torch.zeros_like(place)
        for weight, unit in zip(weights, units, strict=True):
            apart = unit - (unit @ place) * place
            angle = math.atan2(apart.norm().item(), (unit @ place).item())
            along += weight * angle * apart / max(apart.norm().item(), 1e-300)
        size = along.norm().item() / 2
        place = math.cos(size) * place + math.sin(size) * along / max(along.norm().item(), 1e-300)
    return place * sum(weight * parent.norm() for weight, parent in zip(weights, parents, strict=True))


def merged(parents, weight, **numbers):
    return evaluate(karcher(parents, **numbers), weight, torch.empty_like(parents[0]))


@pytest.mark.parametrize(("count", "weight"), [(2, 0.3), (3, 0.6), (3, 2 / 3), (5, 0.9), (5, 0.1)])
@pytest.mark.parametrize("spread", [0.05, 0.7, 2.0])
def test_is_the_mean_that_plain_descent_finds(count, weight, spread):
    parents = draw(count, spread=spread)
    weights = [1 - weight] + [weight / (count - 1)] * (count - 1)
    expected = naive(parents, weights, 100)
    torch.testing.assert_close(merged(parents, weight, max_iter=100, tol=0.0), expected, rtol=0, atol=1e-12)
    assert (merged(parents, weight) - expected).norm() <= 1e-4 * expected.norm()


def test_the_logarithms_at_the_mean_cancel():
    parents = draw(4)
    found = merged(parents, 0.75, max_iter=100, tol=1e-13)
    place = found / found.norm()
    along = torch.zeros_like(place)
    for parent in parents:
        unit = parent / parent.norm()
        cosine = (unit @ place).item()
        along += math.acos(cosine) / math.sqrt(1 - cosine**2) * (unit - cosine * place)
    assert along.norm().item() < 1e-12
    assert found.norm().item() == pytest.approx(sum(parent.norm().item() for parent in parents) / 4)


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 0.8, 1.0])
def test_two_parents_of_one_norm_are_slerp(weight):
    a, b = draw(2)
    a, b = 3 * a / a.norm(), 3 * b / b.norm()
    expected = evaluate(slerp((a, b)), weight, torch.empty_like(a))
    torch.testing.assert_close(merged((a, b), weight), expected, rtol=0, atol=1e-14)


def test_two_parents_of_two_norms_have_the_mean_norm():
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 6.0])
    torch.testing.assert_close(merged((a, b), 0.5), torch.tensor([4.0, 4.0]) / math.sqrt(2))
    torch.testing.assert_close(merged((a, b), 1 / 3), 10 / 3 * torch.tensor([math.cos(math.pi / 6), 0.5]))


def test_three_parents_at_right_angles_meet_in_the_middle():
    parents = list(torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(merged(parents, 2 / 3), torch.full((3,), 3**-0.5, dtype=torch.float64))


def test_the_order_of_the_others_does_not_matter():
    a, b, c = draw(3)
    torch.testing.assert_close(merged((a, b, c), 0.4), merged((a, c, b), 0.4), rtol=0, atol=1e-13)


def test_ends_of_more_than_two_parents():
    a, b, c = draw(3)
    assert karcher((a, b, c)).coefficients(0.0) == (1.0, 0.0, 0.0)
    assert karcher((a, b, c)).coefficients(1.0)[0] == 0.0
    torch.testing.assert_close(merged((a, b, c), 1.0), merged((b, c), 0.5))
    assert karcher((a, b)).coefficients(1.0) == (0.0, 1.0)


def test_a_parent_without_length_only_shortens():
    a, b = draw(2)
    nothing = torch.zeros_like(a)
    torch.testing.assert_close(merged((nothing, b), 0.3), 0.3 * b)
    torch.testing.assert_close(merged((a, nothing), 0.3), 0.7 * a)
    torch.testing.assert_close(merged((a, nothing, b), 0.5), merged((a, b), 1 / 3) * 0.75)
    assert torch.equal(merged((nothing, nothing), 0.3), nothing)
    assert torch.equal(merged((nothing, nothing, a), 0.0), nothing)


@pytest.mark.parametrize("weight", [0.25, 0.5, 0.9])
def test_opposite_parents_take_the_line(weight):
    a, b = draw(2)
    curve = karcher((a, -2 * a))
    assert curve.diagnostics["angle_degrees_max"] == pytest.approx(180.0, abs=1e-5)
    assert curve.coefficients(weight) == (1 - weight, weight)
    assert karcher((a, -a, b)).coefficients(0.0) == (1.0, 0.0, 0.0)
    # The mean direction of these is b's, at right angles to a and -a: there is a mean after all.
    b = b - (a @ b) / (a @ a) * a
    scale = (2 / 3 * a.norm() + 1 / 3 * b.norm()) / b.norm()
    torch.testing.assert_close(merged((a, -a, b), 2 / 3), scale * b, rtol=0, atol=1e-12)


def test_an_opposite_base_of_weight_0_is_no_hindrance():
    b, c = draw(2)
    c = c / c.norm() * b.norm()
    torch.testing.assert_close(merged((-b - c, b, c), 1.0), merged((b, c), 0.5), rtol=0, atol=1e-13)
    assert not torch.allclose(merged((b, c), 0.5), (b + c) / 2)


@pytest.mark.parametrize("count", range(3, 12))
@pytest.mark.parametrize("turn", range(5))  # rounding leaves a sum of squares above, at or below 0
def test_directions_that_cancel_take_the_line(count, turn):
    angles = [turn + 2 * math.pi * i / count for i in range(count)]
    parents = [torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64) for angle in angles]
    assert karcher(parents).coefficients((count - 1) / count) == pytest.approx([1 / count] * count)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_parents_along_one_ray_keep_their_direction(count):
    a = draw(1)[0]
    parents = [(1 + i) * a for i in range(count)]
    lengths = 0.6 * 1 + 0.4 * sum(range(2, count + 1)) / (count - 1)
    torch.testing.assert_close(merged(parents, 0.4), lengths * a, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("shape", [(), (1,), (1, 7), (0,), (2, 3, 4), (BLOCK + 3,)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_every_shape_of_three_parents(shape, dtype):
    generator = torch.Generator().manual_seed(2)
    parents = [torch.randn(shape, generator=generator).abs().to(dtype) for _ in range(3)]
    found = merged(parents, 0.5)
    assert (found.shape, found.dtype) == (shape, dtype)
    exact = [parent.double().flatten() for parent in parents]
    if found.numel():
        torch.testing.assert_close(
            found, naive(exact, [0.5, 0.25, 0.25], 40).view(shape).to(dtype), rtol=1e-2, atol=1e-4
        )


def test_more_steps_come_nearer_and_a_wide_tolerance_stops_them():
    parents = draw(5, spread=3.0)
    exact = naive(parents, [0.2] * 5, 200)
    off = [(merged(parents, 0.8, max_iter=steps, tol=0.0) - exact).norm().item() for steps in (1, 2, 4)]
    assert off[0] > 2 * off[1] > 4 * off[2] > 0
    assert torch.equal(merged(parents, 0.8, tol=10.0), merged(parents, 0.8, max_iter=1))


def test_facts_name_the_widest_angle():
    a, b, c = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]), torch.tensor([0.0, 2.0])
    assert karcher((a, b, c)).diagnostics == {"cosine_min": 0.0, "angle_degrees_max": 90.0}
    assert karcher((a, b)).diagnostics["angle_degrees_max"] == pytest.approx(45.0)
