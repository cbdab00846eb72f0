"""Least squares of `identify` beside plain ones, and the rounding that it expects."""

import math

import numpy as np
import pytest
import torch

from patientdx.merge.curve import evaluate
from patientdx.merge.identification import (
    exact_dtype,
    fit_affine,
    fit_arc,
    fit_copy,
    fit_line,
    rounding,
    span_squares,
    summarise,
    triangle,
    weight_error,
)
from patientdx.merge.slerp import slerp

COUNT = 5000


def columns(angle: float = 0.4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two vectors at an angle and a third, float64 (n,)."""
    generator = torch.Generator().manual_seed(seed)
    a, b, c = torch.randn(3, COUNT, generator=generator, dtype=torch.float64)
    a, b = a / a.norm(), b / b.norm()
    b = b - (a @ b) * a
    return a, 1.3 * (math.cos(angle) * a + math.sin(angle) * b / b.norm()), c / c.norm()


def factor_of(*vectors: torch.Tensor, block: int = 999):
    matrix = torch.stack(vectors, dim=1)
    return triangle(matrix[start : start + block] for start in range(0, len(matrix), block))


def test_a_triangle_has_the_lengths_of_all_sums():
    vectors = columns()
    factor, matrix = factor_of(*vectors), torch.stack(vectors, dim=1).numpy()
    assert factor.shape == (3, 3)
    for weights in np.random.default_rng(0).normal(size=(10, 3)):
        assert np.linalg.norm(factor @ weights) == pytest.approx(np.linalg.norm(matrix @ weights), rel=1e-12)
    assert triangle([torch.ones(1, 3, dtype=torch.float64)]).shape == (3, 3)
    with pytest.raises(ValueError, match="no elements"):
        triangle([])


def test_a_residual_of_float32_rounding_keeps_its_digits():
    """Products of the columns would lose it: its square is 1e-15 of theirs."""
    a, b, _ = columns()
    exact = 0.6 * a + 0.4 * b
    merged = exact.float().double()
    fit = fit_line(factor_of(a, b, merged), 0, 1)
    assert fit.weights[0] == pytest.approx(0.4, abs=1e-8)
    assert fit.squares == pytest.approx(float((merged - exact).square().sum()), rel=1e-3)


@pytest.mark.parametrize("weight", [-0.7, 0.0, 0.3, 0.85, 1.0, 1.5])
def test_a_line_gives_any_weight(weight):
    a, b, c = columns()
    fit = fit_line(factor_of(a, c, b, (1 - weight) * a + weight * b), 0, 2)
    assert fit.weights == pytest.approx((weight,), abs=1e-12)
    assert fit.coefficients == pytest.approx((1 - weight, 0, weight), abs=1e-12)
    assert fit.errors == pytest.approx((1 / float((b - a).norm()),))
    assert fit.squares < 1e-28


@pytest.mark.parametrize("angle", [0.04, 0.4, 1.5, 2.5])
@pytest.mark.parametrize("weight", [0.0, 0.1, 0.4, 0.85, 1.0])
def test_an_arc_gives_the_weight_of_our_slerp(angle, weight):
    a, b, _ = columns(angle)
    merged = evaluate(slerp((a, b)), weight, torch.empty_like(a))
    fit = fit_arc(factor_of(a, b, merged), 0, 1, angle)
    assert fit.weights == pytest.approx((weight,), abs=1e-10)
    assert fit.squares < 1e-25
    assert fit.coefficients == pytest.approx(
        (math.sin((1 - weight) * angle) / math.sin(angle), math.sin(weight * angle) / math.sin(angle)), abs=1e-10
    )
    if angle > 0.3 and 0 < weight < 1:
        assert fit_line(factor_of(a, b, merged), 0, 1).squares > 1e-6


def test_an_arc_of_noise_is_the_optimum_and_stays_in_its_range():
    a, b, c = columns()
    factor = factor_of(a, b, 0.7 * a + 0.5 * b + 0.2 * c)
    fit = fit_arc(factor, 0, 1, 0.4)
    for step in (-1e-4, 1e-4):
        at = fit.weights[0] + step
        point = (math.sin((1 - at) * 0.4) * a + math.sin(at * 0.4) * b) / math.sin(0.4)
        assert float((0.7 * a + 0.5 * b + 0.2 * c - point).square().sum()) > fit.squares
    outside = factor_of(a, b, 2 * b - a)
    assert fit_arc(outside, 0, 1, 0.4).weights == (1.0,)
    straight = fit_arc(outside, 0, 1, None)
    assert straight.weights == (1.0,)
    assert straight.squares == pytest.approx(float((b - a).square().sum()))
    assert fit_arc(factor_of(a, b, 2 * a - b), 0, 1, None).coefficients == (1.0, 0.0)


def test_task_vectors_and_their_sum():
    a, b, c = columns()
    factor = factor_of(a, b, c, 0.4 * a + 0.25 * b + 0.35 * c)
    both = fit_affine(factor, 2, [(1, 0, -1), (0, 1, -1)])
    assert both.weights == pytest.approx((0.4, 0.25), abs=1e-12)
    assert both.coefficients == pytest.approx((0.4, 0.25, 0.35), abs=1e-12)
    assert fit_affine(factor, 2, [(1, 1, -2)]).squares > 1e-3
    assert span_squares(factor) < 1e-28
    matrix, merged = np.stack([a, b], axis=1), (0.4 * a + 0.25 * b + 0.35 * c).numpy()
    assert span_squares(factor, (0, 1)) == pytest.approx(np.linalg.lstsq(matrix, merged, rcond=None)[1][0], rel=1e-9)


def test_equal_candidates_determine_no_weight():
    a, b, _ = columns()
    fit = fit_line(factor_of(a, a, b), 0, 1)
    assert math.isnan(fit.weights[0])
    assert fit.errors == (math.inf,)
    assert fit.parameters == 0
    assert fit.squares == pytest.approx(float((b - a).square().sum()))
    both = fit_affine(factor_of(a, b, b, 0.5 * a + 0.5 * b), 0, [(-1, 1, 0), (-1, 0, 1)])
    assert all(map(math.isnan, both.weights))
    assert both.squares < 1e-28
    assert fit_copy(factor_of(a, b, b), 1).squares < 1e-28


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rounding_is_expected_as_it_is(dtype):
    values = torch.randn(200_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.02
    rounded = values.to(dtype)
    expected = rounding(rounded)
    assert expected.dtype == dtype
    assert expected.stored == pytest.approx(float((rounded.double() - values).square().sum()), rel=0.02)
    assert expected.total > expected.stored


def test_rounding_of_zeros_and_of_the_smallest_numbers():
    assert rounding(torch.zeros(3)).stored < 1e-80
    tiny = torch.tensor([1e-7, 0.0], dtype=torch.float16)
    assert rounding(tiny).stored == pytest.approx(2 * (2.0**-24) ** 2 / 12)


def test_the_type_in_which_numbers_are_exact():
    values = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert exact_dtype(values) == torch.float32
    assert exact_dtype(values.double()) == torch.float32
    assert exact_dtype(values.bfloat16().float()) == torch.bfloat16
    assert exact_dtype(values.bfloat16().half()) == torch.bfloat16
    assert exact_dtype(values.half().float()) == torch.float16
    assert exact_dtype(values.double() / 3) == torch.float64
    assert exact_dtype(values.bfloat16()) == torch.bfloat16


def test_a_summary_weighs_by_what_is_known():
    summary = summarise([0.39, 0.4, 0.41, 9.0, math.nan], [1e-4, 1e-4, 1e-4, 0.5, math.inf])
    assert summary.median == 0.4
    assert summary.mean == pytest.approx(0.4, abs=1e-5)
    assert (summary.low, summary.high) == (0.39, 0.41)
    assert math.isnan(summarise([math.nan], [math.inf]).median)


def test_an_error_does_not_fall_with_the_elements_where_rounding_follows_the_parents():
    assert weight_error(0.4, 0.1, 1e-6, 100) == pytest.approx(1e-4)
    assert weight_error(0.001, 0.1, 1e-6, 100) == pytest.approx(1e-3)
