import pytest
import torch
from naive import KINDS, assert_is, deltas, family, largest, summed

from patientdx.merge.breadcrumbs import breadcrumbs
from patientdx.merge.curve import evaluate
from patientdx.merge.method import method_spec
from patientdx.merge.task_arithmetic import task_arithmetic

NUMBERS = [(2, 0.9, 0.01, None), (3, 0.5, 0.3, [1.0, -0.3, 2.0]), (1, 0.3, 0.7, [2.0]), (2, 0.7, 0.0, None)]


def merged(parents, ancestor, **given):
    found = method_spec(breadcrumbs).fit_global_thresholds(lambda: [("x", parents, ancestor)], given)
    return breadcrumbs(parents, ancestor=ancestor, name="x", cutoffs=found, **given)


def masked(d, density, gamma):
    top = int(gamma * d.numel())
    return d * (largest(d, top + int(density * d.numel())) & ~largest(d, top))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trim", ["tensor", "model"])
@pytest.mark.parametrize("shape", [(), (1,), (37, 19)])
def test_is_mask_and_sum(kind, trim, shape):
    for count, density, gamma, weights in NUMBERS:
        ancestor, parents = family(kind, shape, count)
        left = [masked(d, density, gamma) for d in deltas(parents, ancestor)]
        curve = merged(parents, ancestor, density=density, gamma=gamma, weights=weights, trim=trim)
        assert_is(curve, ancestor, summed(left, weights or [1.0] * count))


def test_by_hand():
    parent = torch.tensor([5.0, -4.0, 3.0, 2.0, -2.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    curve = merged((parent,), torch.zeros(10), density=0.3, gamma=0.1)
    assert evaluate(curve, 1.0, torch.empty(10)).tolist() == [0, -4.0, 3.0, 2.0, 0, 0, 0, 0, 0, 0]
    assert curve.diagnostics == {"kept_0": 0.3, "conflicts": 0.0}


@pytest.mark.parametrize("kind", ["random", "all equal"])
def test_exactly_so_many_stay(kind):
    ancestor, parents = family(kind, (50, 40))
    assert all((d != 0).sum() > 1900 for d in deltas(parents, ancestor))
    for density, gamma in ((0.9, 0.01), (0.1, 0.5), (0.001, 0.0), (0.5, 0.25)):
        facts = merged(parents, ancestor, density=density, gamma=gamma).diagnostics
        assert [facts["kept_0"] * 2000, facts["kept_1"] * 2000] == [int(density * 2000)] * 2


def test_density_1_is_task_arithmetic():
    ancestor, parents = family("random", count=3)
    curve = merged(parents, ancestor, density=1.0, gamma=0.0, weights=[1.0, 0.5, -2.0])
    expected = task_arithmetic(parents, ancestor=ancestor, weights=[1.0, 0.5, -2.0])
    a, b = (evaluate(c, 0.4, torch.empty_like(ancestor)) for c in (curve, expected))
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_the_models_share_differs_from_the_tensors():
    tensors = {"small": (torch.full((10,), 0.1),), "large": (torch.full((10,), 5.0),)}
    zero = torch.zeros(10)
    given = {"density": 0.5, "gamma": 0.3, "trim": "model"}
    found = method_spec(breadcrumbs).fit_global_thresholds(
        lambda: [(name, parents, zero) for name, parents in tensors.items()], given
    )
    kept = {
        name: breadcrumbs(parents, ancestor=zero, name=name, cutoffs=found, **given).diagnostics["kept_0"]
        for name, parents in tensors.items()
    }
    assert kept == {"small": 0.6, "large": 0.4}
