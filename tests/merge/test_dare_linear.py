from itertools import pairwise

import pytest
import torch
from naive import deltas, family, numbers

from patientdx.merge.curve import evaluate
from patientdx.merge.dare_linear import dare_linear


def merged(parents, ancestor, **given):
    return dare_linear(parents, ancestor=ancestor, name="x", **({"seed": 0} | given))


def test_masks_of_a_lower_density_lie_within_those_of_a_higher_one():
    ancestor, parents = torch.zeros(5000), [torch.ones(5000)]
    masks = [
        evaluate(merged(parents, ancestor, density=density), 1.0, torch.empty(5000)) != 0
        for density in (0.05, 0.3, 0.31, 0.9)
    ]
    for low, high in pairwise(masks):
        assert not (low & ~high).any()
        assert low.sum() < high.sum()


def test_the_mean_over_seeds_is_the_task_vector():
    ancestor, parents = torch.zeros(200), [torch.linspace(-1, 1, 200)]
    points = [evaluate(merged(parents, ancestor, density=0.5, seed=seed), 1.0, torch.empty(200)) for seed in range(400)]
    off = (torch.stack(points).mean(0) - parents[0]).abs() / parents[0].abs().clamp(min=1e-9)
    assert off.max() < 4.5 / 20  # one draw is off by its own size, the mean of 400 by a twentieth


@pytest.mark.parametrize("change", [{"seed": 1}, {"name": "y"}])
def test_seed_and_name_change_the_mask(change):
    ancestor, parents = torch.zeros(1000), [torch.ones(1000)]
    first = dare_linear(parents, ancestor=ancestor, name="x", seed=0)
    other = dare_linear(parents, ancestor=ancestor, **({"name": "x", "seed": 0} | change))
    a, b = (evaluate(curve, 1.0, torch.empty(1000)) for curve in (first, other))
    assert 400 < (a != b).sum() < 600


def test_equal_parents_draw_masks_of_their_own():
    ancestor, parent = torch.zeros(1000), torch.ones(1000)
    point = evaluate(merged((parent, parent.clone()), ancestor, density=0.5), 1.0, torch.empty(1000))
    assert [200 < (point == value).sum() < 600 for value in (0.0, 2.0, 4.0)] == [True] * 3


def test_the_l1_norm_is_kept_under_mergekit_and_facts_say_by_which_factor():
    ancestor, parents = family("random", (100, 90))
    base, _ = deltas(parents, ancestor)
    curve = merged(parents, ancestor, density=0.3, weights=[1.0, 0.0], compat="mergekit")
    moved = evaluate(curve, 1.0, torch.empty(ancestor.shape, dtype=torch.float64)) - ancestor.double()
    assert moved.abs().sum().item() == pytest.approx(base.abs().sum().item())
    mask = numbers(base, 0) < 0.3
    assert curve.diagnostics["factor_0"] == pytest.approx((base.abs().sum() / base[mask].abs().sum()).item())
    assert curve.diagnostics["kept_0"] == (mask & (base != 0)).double().mean().item()
    assert set(curve.diagnostics) == {"factor_0", "factor_1", "kept_0", "kept_1"}
    assert merged(parents, ancestor).diagnostics == {}
