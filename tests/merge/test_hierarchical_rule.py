"""The rule of the merge by hand, and what it refuses."""

import math
import re

import pytest
import torch
from attention_models import ATTENTION, model, near, weights

from patientdx.checkpoints.merge_plan import Recipe
from patientdx.checkpoints.reader import Checkpoint
from patientdx.core.errors import UserError
from patientdx.merge.curve import BLOCK, evaluate
from patientdx.merge.hierarchical import hierarchical


def one(name="model.layers.0.mlp.up_proj.weight", a=(1.0, 0.0), b=(1.0, 1.0), ancestor=(0.0, 0.0), **numbers):
    """The point and the facts of a single tensor."""
    tensors = [{name: torch.tensor(t, dtype=torch.float64)} for t in (a, b, ancestor)]
    (curve,) = hierarchical(tensors[:2], ancestor=tensors[2], config={}, **numbers).values()
    return evaluate(curve, 0.0, torch.empty(len(a), dtype=torch.float64)).tolist(), curve.diagnostics


def test_the_published_rule_by_hand():
    w = math.sqrt(0.5)  # 45 degrees
    point, facts = one()
    assert point == pytest.approx([1, w])
    assert (facts["branch"], facts["w"]) == ("cosine", pytest.approx(w))
    assert one(order="pivot_first")[0] == pytest.approx([1, 1 - w])
    assert one(weighting="normalised")[0] == pytest.approx([1, w / (1 + w)])
    # Differences from the ancestor count, not weights: these point the same way.
    assert one(ancestor=(1.0, -1.0))[1]["w"] == pytest.approx(1.0)


def test_the_mean_of_both_orders_is_the_plain_mean():
    for weighting in ("literal", "normalised"):
        both = [one(weighting=weighting, order=order)[0] for order in ("base_first", "pivot_first")]
        assert [(x + y) / 2 for x, y in zip(*both, strict=True)] == pytest.approx([1, 0.5])


@pytest.mark.parametrize("weighting", ["literal", "normalised"])
def test_a_parent_that_never_left_the_ancestor_gives_way(weighting):
    point, facts = one(ancestor=(1.0, 0.0), weighting=weighting)
    assert (point, facts["branch"], facts["w"]) == ([1.0, 1.0], "first is the ancestor", 1.0)
    point, facts = one(ancestor=(1.0, 1.0), weighting=weighting)
    assert (point, facts["branch"], facts["w"]) == ([1.0, 0.0], "second is the ancestor", 0.0)


def test_norms_and_what_is_outside_the_layers_are_the_mean():
    for name in ("model.layers.0.input_layernorm.weight", "model.embed_tokens.weight", "lm_head.weight"):
        assert one(name) == ([1.0, 0.5], {"branch": "mean"})


def test_a_block_has_one_cosine_over_all_its_tensors():
    names = [f"model.layers.0.mlp.{part}_proj.weight" for part in ("gate", "up", "down")]
    a = dict(zip(names, torch.randn(3, 50, generator=torch.Generator().manual_seed(0)), strict=True))
    b = near(a, 0.8, 1)
    ancestor = {name: torch.full((50,), 0.1) for name in names}
    curves = hierarchical((a, b), ancestor=ancestor, config={}, scope="block")
    x, y = (torch.cat([(one[name] - ancestor[name]).double() for name in names]) for one in (a, b))
    expected = (x @ y / (x.norm() * y.norm())).item()
    assert [curve.diagnostics["w"] for curve in curves.values()] == pytest.approx([expected] * 3, rel=1e-6)
    alone = hierarchical((a, b), ancestor=ancestor, config={})
    assert len({curve.diagnostics["w"] for curve in alone.values()}) == 3


def test_the_cosine_runs_over_every_block_and_in_float64():
    generator = torch.Generator().manual_seed(0)
    ancestor = torch.full((2 * BLOCK + 7,), 100.0)
    a, b = (ancestor + 1e-3 * torch.randn(len(ancestor), generator=generator) for _ in "ab")
    b[-7:] += 50
    a[-7:] += 50  # the last, short block decides
    name = "model.layers.0.mlp.up_proj.weight"
    (curve,) = hierarchical(({name: a}, {name: b}), ancestor={name: ancestor}, config={}).values()
    x, y = (a - ancestor).double(), (b - ancestor).double()
    assert curve.diagnostics["w"] == pytest.approx((x @ y / (x.norm() * y.norm())).item(), rel=1e-12)
    assert curve.diagnostics["w"] > 0.99


@pytest.mark.parametrize("shape", ["mha", "gqa"])
def test_costs_are_distances_of_the_heads_features(shape):
    """Feature vectors written out: rows of W_K, W_V, W_Q and columns of W_O of a group, each by its mean norm."""
    of, groups = model(shape, 1), {"mha": 6, "gqa": 2}[shape]
    layers = []
    for tensors in (weights(of), weights(model(shape, 2))):
        layers.append({name: tensor for name, tensor in tensors.items() if name.startswith("model.layers.0.")})

    def features(tensors):
        parts = [tensors[f"{ATTENTION}{part}_proj.weight"].double() for part in "kvqo"]
        parts[3] = parts[3].T
        parts = [part.reshape(groups, -1) for part in parts]
        return torch.cat([part / part.norm(dim=1).mean() for part in parts], 1)

    cost = torch.cdist(features(layers[0]), features(layers[1])) ** 2
    curves = hierarchical(layers, ancestor=layers[0], config=of.config.to_dict())
    facts = curves[ATTENTION + "q_proj.weight"].diagnostics
    assert facts["cost_before"] == pytest.approx((cost.diagonal().mean() / cost.quantile(0.5)).item(), rel=1e-9)


def refused(words, parents=None, ancestor=None, config=None, **numbers):
    of = model("gqa", 1)
    layer = {name: tensor for name, tensor in weights(of).items() if name.startswith("model.layers.0.")}
    a = layer if parents is None else parents(layer)
    parents = a if isinstance(a, tuple) else (a, a)
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        hierarchical(
            parents,
            ancestor=parents[0] if ancestor is None else ancestor(layer),
            config=of.config.to_dict() | (config or {}),
            **numbers,
        )


CHOICES = {
    "alignment": "hard, soft, none", "weighting": "literal, normalised", "order": "base_first, pivot_first",
    "scope": "tensor, block", "cosine": "parents, aligned",
}  # fmt: skip


@pytest.mark.parametrize("key", CHOICES)
def test_a_word_that_means_nothing_is_refused(key):
    refused(f"merge.{key}=half: it is one of {CHOICES[key]}", **{key: "half"})


def test_parents_that_do_not_fit_are_refused():
    key, up = ATTENTION + "k_proj.weight", "model.layers.0.mlp.up_proj.weight"
    refused("merge=hierarchical joins exactly two parents, got 3", lambda layer: (layer, layer, layer))
    less = lambda layer: {name: tensor for name, tensor in layer.items() if name != key}  # noqa: E731
    refused(f"merge=hierarchical: the pivot has no tensor {key}", lambda layer: (layer, less(layer)))
    refused(f"merge=hierarchical: the ancestor has no tensor {key}", ancestor=less)
    refused(
        f"merge=hierarchical joins tensors of one shape: {key} is (16, 48) in the base and (8, 48) in the ancestor",
        ancestor=lambda layer: layer | {key: layer[key][:8]},
    )
    refused(
        f"merge=hierarchical compares finite weights: {up} holds NaN or infinity in some parent",
        lambda layer: (layer, layer | {up: torch.full_like(layer[up], math.nan)}),
    )


@pytest.mark.parametrize(
    "fused", ["self_attn.qkv_proj.weight", "attention.query_key_value.weight", "attn.c_attn.weight"]
)
def test_a_fused_attention_is_refused_but_for_no_alignment(fused):
    name = f"model.layers.0.{fused}"
    words = (
        f"merge=hierarchical moves attention heads, but {name} holds several projections in one: its heads cannot be "
        "told apart here. Set merge.alignment=none, or use a method that sees tensors only (merge=slerp)"
    )
    layer = {name: torch.ones(3, 3)}
    refused(words, lambda _: layer)
    (curve,) = hierarchical((layer, layer), ancestor={name: torch.zeros(3, 3)}, config={}, alignment="none").values()
    assert curve.diagnostics["branch"] == "cosine"


def test_an_attention_of_other_parts_is_refused():
    moves = "merge=hierarchical moves the heads of q_proj, k_proj, v_proj and o_proj; model.layers.0.self_attn "
    instead = ". Set merge.alignment=none, or use a method that sees tensors only (merge=slerp)"
    key = ATTENTION + "k_proj.weight"
    less = lambda layer: {name: tensor for name, tensor in layer.items() if name != key}  # noqa: E731
    refused(f"{moves}lacks k_proj.weight{instead}", less)
    more = lambda layer: layer | {ATTENTION + "sinks": torch.ones(6)}  # noqa: E731
    refused(f"{moves}holds sinks, which may belong to single heads{instead}", more)


def test_a_config_that_does_not_fit_the_weights_is_refused():
    refused(
        "merge=hierarchical needs num_attention_heads and head_dim or hidden_size in config.json",
        config={"num_attention_heads": None},
    )
    fits = (
        "; model.layers.0.self_attn has 48, 16 and 16 rows of queries, keys and values and 48 columns of output: give "
        "parents whose config.json fits their weights"
    )
    refused("config.json says 4 heads in 2 groups of head size 8" + fits, config={"num_attention_heads": 4})
    refused("config.json says 6 heads in 4 groups of head size 8" + fits, config={"num_key_value_heads": 4})


def test_a_recipe_turns_a_fault_into_a_refusal(tiny_base, tiny_pivot):
    base, pivot = Checkpoint(tiny_base), Checkpoint(tiny_pivot)
    names = tuple(base.tensors)
    with pytest.raises(UserError, match=r"^merge=hierarchical works on differences from the parents' common ancestor"):
        Recipe((base, pivot), names, hierarchical)
    recipe = Recipe((base, pivot), names, hierarchical, {"order": "both"}, ancestor=base)
    with pytest.raises(UserError, match=r"^merge\.order=both: it is one of base_first, pivot_first$"):
        recipe.curves(recipe.groups[0])
