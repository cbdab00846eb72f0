"""Every method that masks and joins task vectors, against its paper on whole tensors, and what such methods share."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from naive import KINDS, assert_is, deltas, elected, family, largest, numbers, summed
from test_laws import YAMLS, make_curve

from patientdx.core.functions import dotted
from patientdx.merge.curve import evaluate
from patientdx.merge.method import method_spec


def merged(method, parents, ancestor, **given):
    """The curve of one tensor, with the numbers of the method's yaml but for those given."""
    (path,) = (path for path in YAMLS if path.stem == method)
    return make_curve(path, parents, ancestor, **given)


def unmasked(d, number, compat):
    return d


def trimmed(d, number, compat, density):
    return d * largest(d, int(density * d.numel()))


def without_tails(d, number, compat, density, gamma):
    top = int(gamma * d.numel())
    return d * (largest(d, top + int(density * d.numel())) & ~largest(d, top))


def dropped(d, number, compat, density):
    left = torch.where(numbers(d, number) < density, d, 0.0)
    return with_old_norm(left, d) if compat == "mergekit" else left / density


def pruned(d, number, compat, density, epsilon):
    keep = keep_probabilities(d, density, epsilon)
    left = torch.where(numbers(d, number) < keep, d, 0.0)
    return with_old_norm(left, d) if compat == "mergekit" else left / keep


def with_old_norm(left, d):
    norm = left.abs().sum()
    return left * (d.abs().sum() / norm) if norm > 0 else left


def keep_probabilities(d, density, epsilon):
    """Keep probability of each element by a stable sort of each row."""
    rows = d.reshape(-1, d.shape[-1] if d.ndim else 1)
    width = rows.shape[1]
    found = torch.full(rows.shape, density, dtype=torch.float64)
    for row, values in zip(found, rows.float().abs(), strict=True):
        for rank, place in enumerate(torch.sort(values, stable=True).indices.tolist()):
            if width > 1:
                row[place] = density - epsilon + 2 * epsilon * rank / (width - 1)
    return found.view(d.shape)


@dataclass(frozen=True)
class Oracle:
    """A method: its mask, by the names of its numbers their values; whether signs are elected, and mergekit divides."""

    mask: Callable
    numbers: tuple[dict, ...]
    compats: tuple[str, ...] = ("paper", "mergekit")
    trims: tuple[str | None, ...] = ()
    elects: bool = False
    divides: bool = False  # mergekit's ties and della have normalize: true, its dare_ties and breadcrumbs_ties not
    by_row: bool = False


DENSITIES = ({"density": 0.5}, {"density": 0.1}, {"density": 0.9})
TRIMS = ({"density": 0.2}, {"density": 0.51}, {"density": 1.0}, {"density": 0.4})
TAILS = tuple({"density": a, "gamma": b} for a, b in ((0.9, 0.01), (0.5, 0.3), (0.3, 0.7), (0.7, 0.0)))
RANKS = tuple({"density": a, "epsilon": b} for a, b in ((0.5, 0.15), (0.6, 0.05), (0.3, 0.29)))
WHOLE = ("tensor", "model")
ORACLES = {
    "task_arithmetic": Oracle(unmasked, ({},), compats=()),
    "ties": Oracle(trimmed, TRIMS, ("paper", "mergekit", "peft"), (*WHOLE, None), elects=True, divides=True),
    "breadcrumbs": Oracle(without_tails, TAILS, (), WHOLE),
    "breadcrumbs_ties": Oracle(without_tails, TAILS, trims=WHOLE, elects=True),
    "dare_linear": Oracle(dropped, DENSITIES),
    "dare_ties": Oracle(dropped, (*DENSITIES, {"density": 1.0}), ("paper", "sum", "mergekit", "peft"), elects=True),
    "della_linear": Oracle(pruned, RANKS, by_row=True),
    "della": Oracle(pruned, RANKS, ("paper", "sum", "mergekit"), elects=True, divides=True, by_row=True),
}
SHAPES = [(), (33, 7)]
ROWS = [*SHAPES, (1,), (9, 1), (2, 3, 5)]  # of methods that rank the elements of a row
CASES = [(method, compat, trim) for method, oracle in ORACLES.items()
         for compat in oracle.compats or (None,) for trim in oracle.trims or ("",)]  # fmt: skip
GROUPS = ((2, None), (3, [1.0, 0.3, 2.0]), (1, [2.0]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "compat", "trim", "shape"),
    [(*case, shape) for case in CASES for shape in (ROWS if ORACLES[case[0]].by_row else SHAPES)],
)
def test_is_mask_and_join(method, compat, trim, shape, kind):
    oracle = ORACLES[method]
    given = ({"compat": compat} if compat else {}) | ({"trim": trim} if trim != "" else {})
    for number in range(max(len(GROUPS), len(oracle.numbers))):
        (count, weights), values = GROUPS[number % len(GROUPS)], oracle.numbers[number % len(oracle.numbers)]
        if method == "ties" and int(values["density"] * torch.Size(shape).numel()) == 0:
            continue  # paper and mergekit keep one at least: test_ties
        if weights and not oracle.elects:
            weights = [-weight if number == 1 else weight for number, weight in enumerate(weights)]
        ancestor, parents = family(kind, shape, count)
        left = [oracle.mask(d, number, compat, **values) for number, d in enumerate(deltas(parents, ancestor))]
        ones = weights or [1.0] * count
        joined = elected(left, ones, compat, divide=oracle.divides) if oracle.elects else summed(left, ones)
        curve = merged(method, parents, ancestor, weights=weights, **values, **given)
        # The ancestor's coefficient is summed up before it meets the ancestor: exact but for the largest term.
        largest_term = max(x.abs().max().item() for x in (ancestor, *parents)) if method == "task_arithmetic" else 0
        assert_is(curve, ancestor, joined, atol=1e-15 * (1 + largest_term))
        assert curve.by_row == oracle.by_row


@pytest.mark.parametrize(("method", "compat", "trim"), [case for case in CASES if not case[0].startswith("della")])
def test_one_moved_parent_that_keeps_all_is_task_arithmetic(method, compat, trim):
    ancestor, (pivot,) = family("random", count=1)
    given = {key: {"density": 1.0, "gamma": 0.0}[key] for key in ORACLES[method].numbers[0]}
    given |= ({"compat": compat} if compat else {}) | ({"trim": trim} if trim else {})
    curve = merged(method, (ancestor, pivot), ancestor, **given)
    for weight in (0.3, 1.0, 2.0):
        out = torch.empty(ancestor.shape, dtype=torch.float64)
        expected = evaluate(merged("task_arithmetic", (ancestor, pivot), ancestor), weight, torch.empty_like(out))
        torch.testing.assert_close(evaluate(curve, weight, out), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["ties", "breadcrumbs"])
def test_exactly_so_many_stay(method, kind):
    ancestor, parents = family(kind, (50, 40))
    nonzero = [int((d != 0).sum()) for d in deltas(parents, ancestor)]
    rest = {"gamma": 0.0} if method == "breadcrumbs" else {}
    for density in (0.001, 0.1, 0.5, 0.999, 1.0):
        facts = merged(method, parents, ancestor, density=density, **rest).diagnostics
        assert [facts[f"kept_{i}"] * 2000 for i in (0, 1)] == [min(int(density * 2000), nonzero[i]) for i in (0, 1)]


@pytest.mark.parametrize(
    ("method", "given", "small", "large"),
    [
        ("ties", {"density": 0.6}, 0.2, 1.0),
        ("breadcrumbs", {"density": 0.5, "gamma": 0.3, "trim": "model"}, 0.6, 0.4),
        ("breadcrumbs_ties", {"density": 0.5, "gamma": 0.3, "trim": "model"}, 0.6, 0.4),
    ],
)
def test_the_models_share_differs_from_the_tensors(method, given, small, large):
    function, zero = dotted(f"patientdx.merge.{method}.{method}"), torch.zeros(10)
    tensors = {"small": (torch.full((10,), 0.1),), "large": (torch.full((10,), 5.0),)}
    cutoffs = method_spec(function).fit_global_thresholds(lambda: [(n, p, zero) for n, p in tensors.items()], given)
    kept = [function(parents, ancestor=zero, name=name, cutoffs=cutoffs, **given).diagnostics["kept_0"]
            for name, parents in tensors.items()]  # fmt: skip
    assert kept == [small, large]


def test_breadcrumbs_by_hand():
    parent = torch.tensor([5.0, -4.0, 3.0, 2.0, -2.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    curve = merged("breadcrumbs", (parent,), torch.zeros(10), density=0.3, gamma=0.1)
    assert evaluate(curve, 1.0, torch.empty(10)).tolist() == [0, -4.0, 3.0, 2.0, 0, 0, 0, 0, 0, 0]
    assert curve.diagnostics == {"kept_0": 0.3, "conflicts": 0.0}


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.2, 0.8]])
@pytest.mark.parametrize(("method", "given"), [("dare_ties", {}), ("della", {"epsilon": 0.05})])
def test_parents_that_moved_alike_keep_the_size_of_their_task_vector(method, given, weights):
    delta = torch.randn(400, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    zero = torch.zeros_like(delta)
    for moved, size in (((delta, delta), 1.0), ((zero, delta), weights[1])):
        curve = merged(method, moved, zero.clone(), density=0.6, weights=weights, compat="sum", **given)
        found = evaluate(curve, 1.0, torch.empty_like(delta))
        assert float((found * delta).sum() / (delta * delta).sum()) == pytest.approx(size, abs=0.01)
