import pytest
import torch
from naive import family

from patientdx.merge.curve import BLOCK, evaluate
from patientdx.merge.dare_linear import dare_linear
from patientdx.merge.della_linear import by_rank, della_linear


def merged(parents, ancestor, **given):
    return della_linear(parents, ancestor=ancestor, name="x", seed=0, **given)


@pytest.mark.parametrize("width", [1, 2, 576, BLOCK - 1, BLOCK + 1])
def test_ranks_of_rows_of_any_width(width):
    g = torch.Generator().manual_seed(0)
    rows = max(1, 2000 // width)
    x = torch.randint(-9, 10, (rows * width,), generator=g).double()
    ramp = torch.arange(width, dtype=torch.float64)
    order = torch.sort(x.abs().view(rows, width), dim=1, stable=True).indices
    expected = torch.empty(rows, width, dtype=torch.float64).scatter_(1, order, ramp.repeat(rows, 1))
    assert torch.equal(by_rank(x, ramp).view(rows, width), expected)


def test_by_hand():
    x = torch.tensor([3.0, -1.0, 1.0, -5.0, 0.0, 0.0, 0.0, 1e-30]).double()
    ramp = torch.tensor([0.4, 0.5, 0.6, 0.7], dtype=torch.float64)
    assert by_rank(x, ramp).tolist() == [0.6, 0.4, 0.5, 0.7, 0.4, 0.5, 0.6, 0.7]


def test_large_elements_stay_more_often():
    x = torch.arange(1.0, 101.0).repeat(4000, 1)
    point = evaluate(merged((x,), torch.zeros_like(x), density=0.5, epsilon=0.4), 1.0, torch.empty_like(x))
    often = (point != 0).double().mean(0)
    expected = torch.linspace(0.1, 0.9, 100).double()
    assert (often - expected).abs().max() < 4.5 * 0.5 / 4000**0.5
    assert torch.allclose(point.double().mean(0), x[0].double(), rtol=0.25)


@pytest.mark.parametrize("compat", ["paper", "mergekit"])
def test_without_epsilon_it_is_dare_with_the_same_masks(compat):
    ancestor, parents = family("random", (40, 30))
    prune = merged(parents, ancestor, density=0.4, epsilon=0.0, compat=compat)
    drop = dare_linear(parents, ancestor=ancestor, name="x", seed=0, density=0.4, compat=compat)
    a, b = (evaluate(curve, 1.0, torch.empty(40, 30)) for curve in (prune, drop))
    torch.testing.assert_close(a, b)
    assert torch.equal(a == ancestor, b == ancestor)


def test_facts_only_where_they_were_counted():
    ancestor, parents = family("random", (40, 30))
    assert merged(parents, ancestor).diagnostics == {}
    facts = merged(parents, ancestor, compat="mergekit").diagnostics
    assert set(facts) == {"factor_0", "factor_1", "kept_0", "kept_1"}
    assert 0.45 < facts["kept_0"] < 0.55
