import pytest
import torch
from naive import KINDS, assert_is, deltas, family, largest

from patientdx.merge.curve import BLOCK, evaluate
from patientdx.merge.sce import sce


def formula(parents, ancestor, density, compat):
    """(joined, weights), straight from the paper."""
    moved = torch.stack(deltas(parents, ancestor))
    spread = (moved - moved.mean(0)).square().mean(0)
    count = spread.numel() if compat == "paper" or density == 1 else int((spread.float() > 0).sum())
    moved = moved * largest(spread, int(density * count))
    energy = moved.square().reshape(len(moved), -1).sum(1)
    weights = energy / energy.sum() if energy.sum() > 0 else torch.full_like(energy, 1 / len(energy))
    shares = weights.view(-1, *[1] * ancestor.ndim)
    sign = moved.sum(0).sign()
    if compat == "mergekit":
        sign = torch.where(sign == 0, 1.0, sign)
    agree = (moved.sign() == sign) & (sign != 0)
    joined = torch.where(agree, moved * shares, 0.0).sum(0)
    if compat == "mergekit":
        below = torch.where(agree, shares, 0.0).sum(0)
        joined = joined / torch.where(below == 0, 1.0, below)
    return joined, weights


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compat", ["paper", "mergekit"])
@pytest.mark.parametrize("shape", [(), (1,), (37, 19)])
def test_is_select_calculate_erase(kind, compat, shape):
    # Three parents and more only where float64 sums are exact enough to rank the variances alike.
    for count, density in ((2, 0.1), (2, 0.5), (2, 1.0), (4, 0.3)):
        ancestor, parents = family(kind, shape, count)
        joined, weights = formula(parents, ancestor, density, compat)
        curve = sce(parents, ancestor=ancestor, density=density, compat=compat)
        assert_is(curve, ancestor, joined)
        found = [curve.diagnostics[f"weight_{number}"] for number in range(count)]
        assert found == pytest.approx(weights.tolist(), rel=1e-12)


def test_by_hand():
    ancestor = torch.zeros(5)
    a, b = torch.tensor([3.0, 1.0, 2.0, 0.0, 1.0]), torch.tensor([1.0, 1.0, -1.0, 0.0, 1.5])
    # Variances 1, 0, 2.25, 0, 0.0625; two stay; coefficients (9 + 4) and (1 + 1) of 15; -1 is outvoted by 2.
    curve = sce((a, b), ancestor=ancestor, density=0.4)
    expected = [3 * 13 / 15 + 1 * 2 / 15, 0, 2 * 13 / 15, 0, 0]
    torch.testing.assert_close(evaluate(curve, 1.0, torch.empty(5)), torch.tensor(expected))
    assert curve.diagnostics == pytest.approx({"weight_0": 13 / 15, "weight_1": 2 / 15, "conflicts": 0.2})
    # Three elements vary at all: int(0.7 * 3) = 2 stay; where one agrees it stands alone.
    theirs = sce((a, b), ancestor=ancestor, density=0.7, compat="mergekit")
    torch.testing.assert_close(evaluate(theirs, 1.0, torch.empty(5)), torch.tensor([3 * 13 / 15 + 2 / 15, 0, 2, 0, 0]))


def test_a_base_that_is_the_ancestor_leaves_the_pivots_largest_elements():
    base, (pivot,) = family("random", count=1)
    moved = (pivot.double() - base.double()) * largest(pivot.double() - base.double(), int(0.2 * base.numel()))
    for ancestor in (base, base.clone()):
        assert_is(sce((base, pivot), ancestor=ancestor, density=0.2), base, moved)


def test_over_several_blocks():
    g = torch.Generator().manual_seed(3)
    ancestor = torch.zeros(BLOCK + 77)
    parents = [torch.randint(-2, 3, ancestor.shape, generator=g).float() for _ in range(2)]
    assert_is(sce(parents, ancestor=ancestor, density=0.3), ancestor, formula(parents, ancestor, 0.3, "paper")[0])
