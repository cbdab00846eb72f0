"""Laws of all methods that join task vectors; test_laws.py has those of every method."""

import inspect
import json
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from naive import family
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from patientdx.checkpoints.merge_plan import SUPPLIED
from patientdx.merge.curve import BLOCK, evaluate
from patientdx.merge.method import method_spec

METHODS = {
    "task_arithmetic": [{}, {"form": "convex"}],
    "ties": [{}, {"trim": "tensor"}, {"compat": "mergekit"}, {"compat": "peft"}],
    "dare_linear": [{}, {"compat": "mergekit"}],
    "dare_ties": [{}, {"compat": "mergekit"}, {"compat": "peft"}],
    "della_linear": [{}, {"compat": "mergekit"}],
    "della": [{}, {"compat": "mergekit"}],
    "breadcrumbs": [{}, {"trim": "model"}],
    "breadcrumbs_ties": [{}, {"trim": "model"}, {"compat": "mergekit"}],
    "sce": [{}, {"compat": "mergekit"}],
}
DRAWN = {"dare_linear", "dare_ties", "della_linear", "della"}
EVERY = [(method, numbers) for method, several in METHODS.items() for numbers in several]
every_form = pytest.mark.parametrize(
    ("method", "numbers"), EVERY, ids=["-".join((m, *map(str, n.values()))) for m, n in EVERY]
)
every_method = pytest.mark.parametrize("method", METHODS)


def function(method):
    return getattr(import_module(f"patientdx.merge.{method}"), method)


def curve(method, numbers, parents, ancestor, **others):
    given = {"name": "x", "seed": 0} | others
    given["cutoffs"] = method_spec(function(method)).fit_global_thresholds(lambda: [("x", parents, ancestor)], numbers)
    named = inspect.signature(function(method)).parameters
    given = {name: value for name, value in given.items() if name in named}
    return function(method)(parents, ancestor=ancestor, **numbers, **given)


def point(found, weight=0.6, span=None):
    like = found.terms[0]
    like = like if isinstance(like, torch.Tensor) else like.sources[0]
    return evaluate(found, weight, torch.empty(like.shape if span is None else span[1] - span[0]), span=span)


def bits(x):
    return x.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


@every_method
def test_the_yaml_gives_the_methods_own_numbers_and_their_defaults(method):
    file = Path(__file__).parents[2] / f"conf/merge/{method}.yaml"
    merge = yaml.safe_load(file.read_text(encoding="utf-8"))["merge"]
    own = {
        name: p.default for name, p in inspect.signature(function(method)).parameters.items() if name not in SUPPLIED
    }
    assert {key: value for key, value in merge.items() if key not in ("name", "_target_")} == own


@every_method
def test_a_seed_is_asked_for_where_something_is_drawn_and_nowhere_else(method):
    assert ("seed" in inspect.signature(function(method)).parameters) == (method in DRAWN)


@every_form
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (13, 7)])
def test_lambda_0_is_the_ancestor_bit_for_bit(method, numbers, dtype, shape):
    ancestor, parents = family("random", shape, dtype=dtype)
    ancestor.view(-1)[:1] = -0.0
    if numbers.get("form") == "convex":
        ancestor = parents[0]  # between the base and the pivot, the ancestor plays no part
    found = evaluate(curve(method, numbers, parents, ancestor), 0.0, torch.empty_like(ancestor))
    assert bits(found) == bits(ancestor)


@every_form
@pytest.mark.parametrize("kind", ["bfloat16", "few values"])
def test_any_span_has_the_bits_of_the_whole(method, numbers, kind):
    ancestor, parents = family(kind, (301, 257), 3 if numbers.get("form") != "convex" else 2)
    found = curve(method, numbers, parents, ancestor)
    whole = point(found).view(-1)
    row = 257 if found.by_row else 1
    for start, stop in ((0, 1), (1, 2), (3, 300), (100, 301), (7, 7), (0, 301)):
        start, stop = (start * row, stop * row) if found.by_row else (start * 199 + start % 2, stop * 199)
        if start < stop:
            assert bits(point(found, span=(start, stop))) == bits(whole[start:stop])


@every_form
def test_spans_on_several_threads_have_the_bits_of_the_whole(method, numbers):
    ancestor, parents = family("few values", (64, 4096))
    found = curve(method, numbers, parents, ancestor)
    whole = point(found).view(-1)
    spans = [(start, start + 4 * 4096) for start in range(0, 64 * 4096, 4 * 4096)]
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda span: point(found, span=span), spans))
    assert bits(torch.cat(parts)) == bits(whole)


@every_form
def test_an_ancestor_that_is_a_parent_and_a_copy_of_it_give_the_same(method, numbers):
    base, (pivot,) = family("bfloat16", (50, 60), count=1)
    shared, copied = (curve(method, numbers, (base, pivot), ancestor) for ancestor in (base, base.clone()))
    assert torch.equal(point(shared), point(copied))
    assert set(shared.diagnostics.items()) <= set(copied.diagnostics.items())


@every_form
def test_parents_that_never_moved_give_the_ancestor(method, numbers):
    ancestor, _ = family("random", (20, 30))
    for parents in ((ancestor, ancestor), (ancestor.clone(), ancestor.clone())):
        found = curve(method, numbers, parents, ancestor)
        assert torch.equal(point(found, 0.0 if "form" in numbers else 1.0), ancestor)


@pytest.mark.parametrize(
    ("method", "numbers"),
    [
        ("task_arithmetic", {"weights": [0.25, 0.75]}),
        ("task_arithmetic", {"form": "convex"}),
        ("ties", {"density": 1.0}),
        ("ties", {"density": 1.0, "compat": "mergekit"}),
        ("ties", {"density": 1.0, "compat": "peft", "weights": [1.5, 0.5]}),
        ("dare_linear", {"density": 1.0, "weights": [0.25, 0.75]}),
        ("dare_ties", {"density": 1.0}),
        ("dare_ties", {"density": 1.0, "compat": "mergekit", "weights": [0.25, 0.75]}),
        ("breadcrumbs", {"density": 1.0, "gamma": 0.0, "weights": [0.5, 0.5]}),
        ("breadcrumbs_ties", {"density": 1.0, "gamma": 0.0}),
        ("sce", {"density": 1.0}),
        ("sce", {"density": 1.0, "compat": "mergekit"}),
    ],
)
def test_equal_parents_give_themselves_where_nothing_is_dropped(method, numbers):
    ancestor, (parent,) = family("bfloat16", (50, 60), count=1, dtype=torch.bfloat16)
    found = curve(method, numbers, (parent, parent.clone()), ancestor)
    assert torch.equal(evaluate(found, 1.0, torch.empty_like(parent)), parent)


@every_form
def test_what_is_found_is_plain_numbers(method, numbers):
    ancestor, parents = family("random", (20, 30))
    facts = dict(curve(method, numbers, parents, ancestor).diagnostics)
    assert json.loads(json.dumps(facts)) == facts
    assert all(isinstance(value, float) for value in facts.values())


class Largest(TorchDispatchMode):
    """Size in bytes of the largest memory that anything made while it is on lies in, known tensors aside."""

    def __init__(self, known):
        super().__init__()
        self.known, self.found = {x.untyped_storage().data_ptr() for x in known}, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        for x in tree_leaves(made):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in self.known:
                self.found = max(self.found, x.untyped_storage().nbytes())
        return made


@every_form
def test_nothing_larger_than_a_block_is_ever_made(method, numbers):
    ancestor, parents = family("random", (1024, 1024), dtype=torch.bfloat16)
    out = torch.empty_like(ancestor)
    with Largest((ancestor, *parents, out)) as largest:
        evaluate(curve(method, numbers, parents, ancestor), 0.6, out)
    assert 0 < largest.found <= 8 * BLOCK < 8 * ancestor.numel() / 2
