import json
import math
import re
from itertools import permutations
from pathlib import Path

import pytest
import torch

from patientdx.merge.transport import align, assignment, scaled, sinkhorn

ORACLE = json.loads(Path(__file__).with_name("transport_oracle.json").read_text())["cases"]


def costs(size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand((size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hidden(order: list[int], near: float = 0.01) -> torch.Tensor:
    """Costs around 1, but `near` where place i meets item order[i]."""
    cost = 1 + 0.1 * costs(len(order), seed=5)
    cost[range(len(order)), order] = near
    return cost


def naive(cost: torch.Tensor, epsilon: float, rounds: int) -> torch.Tensor:
    """Sinkhorn's scaling as it is written in textbooks, without logarithms."""
    kernel, n = torch.exp(-cost / epsilon), len(cost)
    v = torch.ones(n, dtype=torch.float64)
    for _ in range(rounds):
        u = 1 / n / (kernel @ v)
        v = 1 / n / (kernel.T @ u)
    return u[:, None] * kernel * v


@pytest.mark.parametrize("case", ORACLE, ids=lambda case: f"{len(case['cost'])}x{case['epsilon']}")
def test_the_plan_is_that_of_pot(case):
    cost = torch.tensor(case["cost"], dtype=torch.float64)
    found = sinkhorn(cost, epsilon=case["epsilon"], iterations=100_000, tolerance=1e-13)
    torch.testing.assert_close(found, torch.tensor(case["plan"], dtype=torch.float64), rtol=0, atol=1e-13)


@pytest.mark.parametrize("case", ORACLE, ids=lambda case: f"{len(case['cost'])}x{case['epsilon']}")
def test_the_assignment_is_that_of_pot(case):
    cost = torch.tensor(case["cost"], dtype=torch.float64)
    assert assignment(-cost).tolist() == case["assignment_of_cost"]


@pytest.mark.parametrize("rounds", [1, 2, 7])
def test_each_round_is_the_plain_scaling(rounds):
    cost = costs(6)
    found = sinkhorn(cost, epsilon=0.3, iterations=rounds, tolerance=0.0)
    torch.testing.assert_close(found, naive(cost, 0.3, rounds), rtol=1e-13, atol=0)


def test_the_plan_has_even_margins_and_stops_at_the_tolerance():
    cost = scaled(costs(12, seed=2))
    exact = sinkhorn(cost, epsilon=0.3, iterations=10_000, tolerance=1e-14)
    for axis in (0, 1):
        torch.testing.assert_close(exact.sum(axis), torch.full((12,), 1 / 12, dtype=torch.float64))
    loose = sinkhorn(cost, epsilon=0.3, iterations=10_000, tolerance=1e-2)
    assert 1e-14 < (loose.sum(1) - 1 / 12).abs().sum() <= 1e-2


def test_an_epsilon_that_would_underflow_gives_a_finite_plan():
    cost = 1000 * costs(5, seed=3)
    assert (torch.exp(-cost / 1e-3) == 0).any(1).all()
    plan = sinkhorn(cost, epsilon=1e-3)
    assert torch.isfinite(plan).all()
    torch.testing.assert_close(plan.sum(), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(5))
def test_the_assignment_holds_most_of_the_plan(seed):
    plan = costs(5, seed)
    best = max(permutations(range(5)), key=lambda order: sum(plan[i, j].item() for i, j in enumerate(order)))
    assert tuple(assignment(plan).tolist()) == best


def test_a_hidden_order_is_found_and_taken():
    order = [3, 0, 4, 1, 2]
    found = align(hidden(order))
    assert found.accepted
    assert torch.equal(found.matrix, torch.eye(5, dtype=torch.float64)[order])
    assert found.after < 0.02
    assert 0.9 < found.before < 1.1


def test_the_unit_of_costs_does_not_matter():
    order = [1, 2, 0]
    small, large = align(hidden(order) * 1e-9), align(hidden(order) * 1e9)
    assert torch.equal(small.matrix, large.matrix)
    assert math.isclose(small.before, large.before, rel_tol=1e-12)


def test_too_small_a_gain_leaves_every_item_in_its_place():
    cost = 1 - 0.5 * torch.eye(2, dtype=torch.float64).flip(0)  # exchanged: 0.5 each, in place: 1 each
    assert align(cost, tau=0.49).accepted
    refused = align(cost, tau=0.51)
    assert not refused.accepted
    assert torch.equal(refused.matrix, torch.eye(2, dtype=torch.float64))
    assert refused.after == pytest.approx(0.5 * refused.before)


def test_an_order_that_is_right_already_is_no_new_one():
    found = align(hidden([0, 1, 2, 3]), tau=0.0)
    assert not found.accepted
    assert found.before == found.after


def test_soft_rows_add_up_to_1_and_lean_to_the_hidden_order():
    order = [2, 0, 1, 3]
    found = align(hidden(order), hard=False, epsilon=0.3)
    assert found.accepted
    torch.testing.assert_close(found.matrix.sum(1), torch.ones(4, dtype=torch.float64))
    assert found.matrix.argmax(1).tolist() == order
    assert 0.5 < found.matrix.max(1).values.min() < 0.99


def test_costs_are_divided_by_their_median_or_else_their_mean():
    torch.testing.assert_close(scaled(torch.tensor([[1.0, 2.0], [4.0, 8.0]])), torch.tensor([[1.0, 2], [4, 8]]) / 3)
    mostly = torch.zeros(3, 3)
    mostly[0, 1] = 9.0
    assert scaled(mostly)[0, 1] == 9.0
    assert torch.equal(scaled(torch.zeros(2, 2)), torch.zeros(2, 2))


def test_sets_of_equals_and_sets_of_one_stay():
    assert not align(torch.zeros(3, 3, dtype=torch.float64)).accepted
    alone = align(torch.tensor([[4.0]]))
    assert (alone.matrix.tolist(), alone.accepted) == ([[1.0]], False)


@pytest.mark.parametrize(
    ("cost", "options", "words"),
    [
        (torch.zeros(2, 3), {}, "a transport plan needs two sets of one size, got costs of shape (2, 3)"),
        (
            torch.tensor([[math.nan]]),
            {},
            "a transport plan needs finite costs: a parent's weights hold NaN or infinity",
        ),
        (
            torch.ones(2, 2),
            {"epsilon": 0.0},
            "epsilon=0, iterations=200: a transport plan needs both above 0, as in epsilon=0.05 and iterations=200",
        ),
        (
            torch.ones(2, 2),
            {"iterations": 0},
            "epsilon=0.05, iterations=0: a transport plan needs both above 0, as in epsilon=0.05 and iterations=200",
        ),
    ],
)
def test_what_has_no_plan_is_refused(cost, options, words):
    for solve in (sinkhorn, align):
        with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
            solve(cost, **options)
