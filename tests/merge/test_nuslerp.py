import math

import pytest
import torch

from patientdx.merge.curve import BLOCK, evaluate
from patientdx.merge.nuslerp import nuslerp
from patientdx.merge.slerp import slerp


def draw(shape, spread=0.7, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    a, noise, ancestor = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    return a.to(dtype), (a + spread * noise).to(dtype), ancestor.to(dtype)


def arc(a, b, weight):
    """The formula for two vectors, the angle by arctan of half chords: exact at every angle."""
    x, y = a / a.norm(), b / b.norm()
    theta = 2 * math.atan2((x - y).norm().item(), (x + y).norm().item())
    return (math.sin((1 - weight) * theta) * a + math.sin(weight * theta) * b) / math.sin(theta)


def merged(parents, weight, **numbers):
    return evaluate(nuslerp(parents, **numbers), weight, torch.empty_like(parents[0]))


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("spread", [3.0, 0.7, 1e-2, 1e-4])  # the last two beyond the threshold of slerp
def test_is_the_formula_at_every_angle(weight, spread):
    a, b, ancestor = draw((9, 4), spread)
    torch.testing.assert_close(merged((a, b), weight), arc(a.flatten(), b.flatten(), weight).view(9, 4))
    deltas = merged((a, b), weight, of="deltas", ancestor=ancestor)
    x, y = (a - ancestor).flatten(), (b - ancestor).flatten()
    torch.testing.assert_close(deltas, ancestor + arc(x, y, weight).view(9, 4))


@pytest.mark.parametrize("shape", [(9, 4), (3, 2, 4), (5,)])
@pytest.mark.parametrize("of", ["weights", "deltas"])
def test_each_row_has_its_own_angle(shape, of):
    a, b, ancestor = draw(shape)
    origin = ancestor if of == "deltas" else torch.zeros_like(a)
    rows = zip(*((tensor - origin).reshape(-1, shape[-1]) for tensor in (a, b)), strict=True)
    expected = origin + torch.stack([arc(x, y, 0.3) for x, y in rows]).view(shape)
    torch.testing.assert_close(merged((a, b), 0.3, row_wise=True, of=of, ancestor=ancestor), expected)


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.5, 1.0])
def test_away_from_the_threshold_it_is_slerp(weight):
    a, b, _ = draw((9, 4))
    expected = evaluate(slerp((a, b)), weight, torch.empty_like(a))
    torch.testing.assert_close(merged((a, b), weight), expected, rtol=1e-14, atol=1e-14)
    one_row = merged((a.view(1, -1), b.view(1, -1)), weight, row_wise=True)
    torch.testing.assert_close(one_row.view(9, 4), expected, rtol=1e-14, atol=1e-14)


def test_near_collinear_parents_stay_on_the_sphere_where_slerp_takes_the_line():
    a = torch.tensor([1.0, 0.0], dtype=torch.float64)
    b = torch.tensor([math.cos(0.01), math.sin(0.01)], dtype=torch.float64)
    assert slerp((a, b)).diagnostics["branch"] == "line"
    assert nuslerp((a, b)).diagnostics["branch"] == "sphere"
    assert merged((a, b), 0.5).norm().item() == pytest.approx(1.0, abs=1e-15)
    assert evaluate(slerp((a, b)), 0.5, torch.empty_like(a)).norm().item() < 1 - 1e-6


@pytest.mark.parametrize("row_wise", [False, True])
@pytest.mark.parametrize("of", ["weights", "deltas"])
@pytest.mark.parametrize("shape", [(), (1,), (6,), (3, 4), (1, 9), (0,), (3, 0), (3, BLOCK + 1)])
def test_ends_are_parents_bit_for_bit_in_every_form(row_wise, of, shape):
    a, b, ancestor = draw(shape, dtype=torch.bfloat16)
    a.view(-1)[:1], b.view(-1)[-1:] = -0.0, -0.0
    for weight, parent in ((0.0, a), (1.0, b)):
        found = merged((a, b), weight, row_wise=row_wise, of=of, ancestor=ancestor)
        assert torch.equal(found.view(torch.int16), parent.view(torch.int16))
    half = merged((a, b), 0.5, row_wise=row_wise, of=of, ancestor=ancestor)
    assert half.shape == a.shape
    assert torch.isfinite(half).all()


def test_collinear_rows_take_the_line_and_the_others_the_sphere():
    a = torch.tensor([[1.0, 0.0], [1.0, 2.0], [1.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    b = torch.tensor([[0.0, 1.0], [2.0, 4.0], [-1.0, -2.0], [4.0, 0.0], [0.0, 0.0]])
    curve = nuslerp((a, b), row_wise=True)
    found = evaluate(curve, 0.25, torch.empty(5, 2))
    sphere = [math.cos(math.pi / 8), math.sin(math.pi / 8)]
    expected = [sphere, [1.25, 2.5], [0.5, 1.0], [1.0, 0.0], [0.0, 0.0]]
    torch.testing.assert_close(found, torch.tensor(expected))
    assert curve.diagnostics == pytest.approx({"rows": 5, "straight_rows": 4, "cosine_min": -1.0, "cosine_max": 1.0})


@pytest.mark.parametrize("other", [1.0, -1.0, 3.0, 0.0])
def test_collinear_tensors_take_the_line(other):
    a, _, ancestor = draw((50,))
    curve = nuslerp((a, other * a))
    assert curve.diagnostics["branch"] == "line"
    assert curve.coefficients(0.25) == (0.75, 0.25)
    still = nuslerp((ancestor, a), of="deltas", ancestor=ancestor)  # a task vector without length
    assert still.diagnostics["branch"] == "line"
    torch.testing.assert_close(evaluate(still, 0.25, torch.empty_like(a)), 0.75 * ancestor + 0.25 * a)


def test_facts_name_angle_and_norms():
    a, b, ancestor = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0]), torch.tensor([1.0, 0.0])
    facts = nuslerp((a, b)).diagnostics
    assert facts == {"cosine": 0.0, "angle_degrees": 90.0, "norm_base": 3.0, "norm_pivot": 4.0, "branch": "sphere"}
    facts = nuslerp((a, b), of="deltas", ancestor=ancestor).diagnostics
    assert (facts["norm_base"], facts["norm_pivot"]) == pytest.approx((2.0, 17**0.5))
    assert facts["cosine"] == pytest.approx(-1 / 17**0.5)


@pytest.mark.parametrize("of", ["weights", "deltas"])
def test_spans_and_threads_change_no_bit_of_a_row_wise_merge(of):
    a, b, ancestor = draw((3001, 257), dtype=torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(merged((a, b), 0.3, row_wise=True, of=of, ancestor=ancestor))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
    curve = nuslerp((a, b), row_wise=True, of=of, ancestor=ancestor)
    part = evaluate(curve, 0.3, torch.empty(2 * 257), span=(1000 * 257, 1002 * 257))
    assert torch.equal(part.view(2, 257), found[0][1000:1002])
