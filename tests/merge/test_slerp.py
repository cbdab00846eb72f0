import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patientdx.merge.curve import BLOCK, evaluate
from patientdx.merge.slerp import slerp


def exact(a, b, weight):
    """The formula in float64, written from Shoemake's paper; not rounded."""
    x, y = a.double().flatten(), b.double().flatten()
    theta = torch.acos((x @ y / (x.norm() * y.norm())).clamp(-1, 1)).item()
    return (math.sin((1 - weight) * theta) * a.double() + math.sin(weight * theta) * b.double()) / math.sin(theta)


def steps(found, expected):
    """How many representable numbers lie between each two elements."""

    def place(t):
        whole = t.contiguous().view(torch.int16 if t.element_size() == 2 else torch.int32).long()
        return torch.where(whole < 0, -(whole & ((1 << (8 * t.element_size() - 1)) - 1)), whole)

    return (place(found) - place(expected)).abs()


def merged(a, b, weight, **numbers):
    return evaluate(slerp((a, b), **numbers), weight, torch.empty_like(a))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("weight", [0.1, 0.4, 0.5, 0.9])
def test_is_the_float64_formula_rounded_once(dtype, weight):
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(BLOCK + 77, generator=generator)
    b = 0.5 * a + 0.7 * torch.randn(BLOCK + 77, generator=generator)
    a, b = a.to(dtype), b.to(dtype)
    off = steps(merged(a, b, weight), exact(a, b, weight).to(dtype))
    # Where a and b cancel, what is left is the noise of the two shares themselves.
    kept = exact(a, b, weight).abs() > 1e-9
    assert kept.float().mean() > 0.999
    assert off[kept].max() <= 1
    assert (off > 0).double().mean() <= 0.005


def test_terms_that_cancel_leave_no_residue():
    a, b = torch.tensor([1.1, 3.0, 2.0]), torch.tensor([-1.1, 1.0, 0.5])
    assert merged(a, b, 0.5)[0].item() == 0.0


@pytest.mark.parametrize(
    ("a", "b", "weight", "expected"),
    [
        # 90 degrees: shares cos(λ 90°) and sin(λ 90°)
        ([[1, 0], [0, 0]], [[0, 1], [0, 0]], 0.5, [[math.sqrt(0.5), math.sqrt(0.5)], [0, 0]]),
        ([[1, 0], [0, 0]], [[0, 1], [0, 0]], 1 / 3, [[math.sqrt(0.75), 0.5], [0, 0]]),
        # 90 degrees, lengths 2 and 4: the vectors themselves are joined, not their directions
        ([[2, 0], [0, 0]], [[0, 0], [0, 4]], 2 / 3, [[1, 0], [0, math.sqrt(12)]]),
        # 60 degrees: sin 30° / sin 60° = 1 / sqrt 3 of each
        ([[1, 1], [0, 0]], [[1, 0], [1, 0]], 0.5, [[2 / math.sqrt(3), 1 / math.sqrt(3)], [1 / math.sqrt(3), 0]]),
        # 120 degrees: sin 60° / sin 120° = 1 of each
        ([[1, -1], [0, 0]], [[0, 1], [-1, 0]], 0.5, [[1, 0], [-1, 0]]),
    ],
)
def test_by_hand(a, b, weight, expected):
    found = merged(torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32), weight)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=2e-7)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 0.99), st.floats(0.1, 3.0))
def test_stays_on_the_sphere_at_an_even_pace(seed, weight, angle):
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(12, 2, generator=generator, dtype=torch.float64))
    a, b = q[:, 0].clone(), math.cos(angle) * q[:, 0] + math.sin(angle) * q[:, 1]
    found = merged(a, b, weight)
    assert found.norm().item() == pytest.approx(1.0, abs=1e-12)
    assert (found @ a).item() == pytest.approx(math.cos(weight * angle), abs=1e-12)
    torch.testing.assert_close(found, merged(b, a, 1 - weight), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("step", "branch"), [(1e-7, "line"), (-1e-7, "sphere")])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_collinear_threshold_from_both_sides(step, branch, sign):
    cosine = sign * (0.9995 + step)
    a = torch.tensor([1.0, 0.0], dtype=torch.float64)
    b = torch.tensor([cosine, math.sqrt(1 - cosine**2)], dtype=torch.float64)
    curve = slerp((a, b))
    assert curve.diagnostics["branch"] == branch
    assert curve.diagnostics["cosine"] == pytest.approx(cosine, abs=1e-14)
    theta = math.acos(cosine)
    sphere = (math.sin(0.7 * theta) / math.sin(theta), math.sin(0.3 * theta) / math.sin(theta))
    assert curve.coefficients(0.3) == pytest.approx((0.7, 0.3) if branch == "line" else sphere, abs=1e-9)


def test_the_threshold_can_be_moved():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])  # 45 degrees
    branches = [slerp((a, b), collinear=c).diagnostics["branch"] for c in (0.0, 0.7, 0.71, 1.0)]
    assert branches == ["line", "line", "sphere", "sphere"]
    for same in (a, -a):  # no division by sin 0, even where the threshold says sphere
        curve = slerp((a, same), collinear=1.0)
        assert curve.diagnostics["branch"] == "line"
        assert curve.coefficients(0.25) == (0.75, 0.25)


def test_antipodal_parents_take_the_line_through_zero():
    a = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    curve = slerp((a, -a))
    assert curve.diagnostics["branch"] == "line"
    assert curve.diagnostics["angle_degrees"] == pytest.approx(180.0, abs=1e-5)
    assert torch.equal(merged(a, -a, 0.5), torch.zeros(1000))
    torch.testing.assert_close(merged(a, -a, 0.25), 0.5 * a)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("tiny", [0.0, 1e-10])
def test_a_parent_without_length_takes_the_line(which, tiny):
    pair = [torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.0])]
    pair[which] = torch.tensor([tiny, 0.0])
    curve = slerp(pair)
    assert curve.diagnostics["branch"] == "line"
    assert curve.diagnostics["norm_base" if which == 0 else "norm_pivot"] == pytest.approx(tiny)
    assert curve.coefficients(0.4) == (0.6, 0.4)
    torch.testing.assert_close(merged(*pair, 0.5), (pair[0] + pair[1]) / 2)


def test_two_zero_tensors_give_zeros():
    assert torch.equal(merged(torch.zeros(3), torch.zeros(3), 0.3), torch.zeros(3))


def test_large_float16_values_do_not_overflow_on_the_way():
    a = torch.full((5000,), 60000.0, dtype=torch.float16)
    b = a.clone()
    b[::2] *= -1  # 90 degrees; squares and sums are far beyond float16, and beyond float32's exact range
    curve = slerp((a, b))
    assert curve.diagnostics["norm_base"] == pytest.approx(60000.0 * math.sqrt(5000), rel=1e-3)
    assert curve.diagnostics["angle_degrees"] == pytest.approx(90.0)
    found = merged(a, b, 0.5)
    assert found[0].item() == 0.0
    # sqrt(2) 60000 is beyond float16: infinite in the formula's own rounding too, and scoring refuses it by name.
    assert found[1].item() == math.inf
    assert torch.isfinite(merged(a * 0.5, b * 0.5, 0.5)).all()


def test_norms_of_values_whose_squares_leave_float32():
    a, b = torch.tensor([1e30, 0.0]), torch.tensor([0.0, 1e-30])
    facts = slerp((a, b)).diagnostics
    assert facts["norm_base"] == pytest.approx(1e30)
    assert facts["norm_pivot"] == pytest.approx(1e-30)
    assert facts["angle_degrees"] == 90.0


def test_facts_over_several_blocks():
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(2 * BLOCK + 5, generator=generator) for _ in range(2))
    facts = slerp((a, b)).diagnostics
    x, y = a.double(), b.double()
    assert set(facts) == {"cosine", "angle_degrees", "norm_base", "norm_pivot", "branch"}
    assert facts["cosine"] == pytest.approx((x @ y / x.norm() / y.norm()).item(), abs=1e-12)
    assert facts["angle_degrees"] == pytest.approx(math.degrees(math.acos(facts["cosine"])), abs=1e-12)
    assert facts["norm_base"] == pytest.approx(x.norm().item())
    assert facts["norm_pivot"] == pytest.approx(y.norm().item())
    assert facts["branch"] == "sphere"
