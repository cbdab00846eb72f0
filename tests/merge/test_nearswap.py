import math

import pytest
import torch

from patientdx.merge.curve import BLOCK, evaluate
from patientdx.merge.nearswap import nearswap


def merged(a, b, weight):
    return evaluate(nearswap((a, b)), weight, torch.empty_like(a))


def draw(shape, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(shape, generator=generator)
    return a.to(dtype), (a + 0.1 * torch.randn(shape, generator=generator)).to(dtype)


def test_by_hand():
    a = torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0, 0.0])
    b = torch.tensor([1.25, 1.5, 3.0, -3.0, -1.25, 0.0])
    assert merged(a, b, 0.5).tolist() == [1.25, 1.5, 1.5, 0.5, -1.25, 0.0]
    assert merged(a, b, 0.25).tolist() == [1.25, 1.25, 1.25, 0.75, -1.25, 0.0]
    assert merged(a, b, 10.0).tolist() == b.tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("weight", [1e-4, 0.01, 0.1, 1.0])
def test_is_its_clamped_ratio_rounded_once(dtype, weight):
    a, b = draw((BLOCK + 77,), dtype)
    x, y = a.double(), b.double()
    ratio = (weight / (y - x).abs()).nan_to_num(nan=1.0, posinf=1.0).clamp(max=1.0)
    found, expected = merged(a, b, weight), (ratio * y + (1 - ratio) * x).to(dtype)
    torch.testing.assert_close(found, expected, rtol=torch.finfo(dtype).eps, atol=1e-15)
    if dtype != torch.float64:
        assert (found != expected).double().mean() < 1e-3
    near = (y - x).abs() <= weight
    assert torch.equal(found[near], b[near])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0,), (BLOCK + 3,)])
def test_no_threshold_is_the_base_and_a_wide_one_the_pivot_bit_for_bit(dtype, shape):
    a, b = draw(shape, dtype)
    a.view(-1)[:1], b.view(-1)[:1] = -0.0, 0.0
    for weight, parent in ((0.0, a), (100.0, b), (math.inf, b)):
        found = merged(a, b, weight)
        assert torch.equal(found, parent)
        assert torch.equal(torch.signbit(found), torch.signbit(parent))


def test_a_small_pivot_beside_a_large_base_is_reached():
    a, b = torch.tensor([1.0, 1e20], dtype=torch.float64), torch.tensor([1e-30, -1.0], dtype=torch.float64)
    assert torch.equal(merged(a, b, 1e21), b)  # a + (b - a) would be 0


def test_equal_weights_stay_whatever_the_threshold():
    a, _ = draw((50,), torch.float32)
    for weight in (0.0, 1e-30, 0.3, math.inf):
        assert torch.equal(merged(a, a.clone(), weight), a)


def test_no_weight_moves_farther_than_the_threshold():
    a, b = draw((1000,), torch.float64)
    moved = (merged(a, b, 0.05) - a).abs()
    assert moved.max().item() == pytest.approx(0.05)
    assert torch.equal(torch.sign(merged(a, b, 0.05) - a), torch.sign(b - a))
