"""The six things that must hold of head alignment (a to f), on real models that are run."""

import pytest
import torch
from attention_models import (
    ATTENTION,
    SHAPES,
    bits,
    close,
    curves_of,
    logits,
    merged,
    model,
    near,
    points,
    reordered,
    weights,
)
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from patientdx.checkpoints.merge_plan import Recipe
from patientdx.checkpoints.reader import Checkpoint
from patientdx.merge.hierarchical import hierarchical

every_shape = pytest.mark.parametrize("shape", SHAPES)


@every_shape
@pytest.mark.parametrize("weighting", ["literal", "normalised"])
@pytest.mark.parametrize("alignment", ["hard", "soft", "none"])
def test_a_a_model_merged_with_itself_is_itself(shape, weighting, alignment):
    of = model(shape, 1)
    a = weights(of)
    ancestor = near(a, 0.1, 5)
    close(merged(a, a, ancestor, of.config, weighting=weighting, alignment=alignment), a)


@every_shape
@pytest.mark.parametrize("weighting", ["literal", "normalised"])
@pytest.mark.parametrize("order", ["base_first", "pivot_first"])
def test_b_an_order_of_heads_is_found_and_undone(shape, weighting, order):
    of = model(shape, 1)
    a = weights(of)
    b, orders = reordered(a, of.config)
    ancestor = near(a, 0.3, 5)
    curves = curves_of(a, b, ancestor, of.config, weighting=weighting, order=order)
    found = points(curves, a)
    close(found, a if order == "base_first" else b)
    assert any(heads.tolist() != sorted(heads.tolist()) for heads, _ in orders.values())
    for layer, (heads, groups) in orders.items():
        facts = curves[f"model.layers.{layer}.self_attn.q_proj.weight"].diagnostics
        assert sorted(facts["permutation"].split()) == [str(i) for i in range(6)]
        back = heads.argsort() if order == "base_first" else heads
        assert facts["permutation"] == " ".join(map(str, back.tolist()))
        back = groups.argsort() if order == "base_first" else groups
        for part in ("k_proj", "v_proj"):
            facts = curves[f"model.layers.{layer}.self_attn.{part}.weight"].diagnostics
            assert facts["permutation"] == " ".join(map(str, back.tolist()))
        assert facts["accepted"] == ("no" if groups.tolist() == sorted(groups.tolist()) else "yes")
        if facts["accepted"] == "yes":  # what query heads in another order inside a group cost is still there
            assert facts["cost_after"] < (1e-9 if shape == "mha" else 0.7 * facts["cost_before"])


def test_b_heads_that_were_also_trained_on_are_brought_back():
    of = model("gqa", 1)
    a = weights(of)
    for layer in range(2):  # some heads are louder than others
        name = f"model.layers.{layer}.self_attn.q_proj.weight"
        a[name] = (a[name].unflatten(0, (6, -1)) * torch.tensor([4, 1, 2, 0.5, 3, 1])[:, None, None]).flatten(0, 1)
    trained = near(a, 0.05, 8)
    b, _ = reordered(trained, of.config)
    curves = curves_of(a, b, near(a, 0.3, 5), of.config)
    for name in a:
        assert torch.equal(curves[name].terms[1], trained[name]), name


@every_shape
@pytest.mark.parametrize("kind", [LlamaConfig, Qwen2Config, Qwen3Config])
def test_c_hard_alignment_leaves_what_the_model_says(shape, kind):
    rest = {"attention_bias": True} if kind is LlamaConfig else {}
    a, b = model(shape, 1, kind, **rest), model(shape, 2, kind, **rest)
    before = logits(b, weights(b))
    curves = curves_of(weights(a), weights(b), near(weights(a), 0.1, 5), a.config, tau=0.0)
    moved = {name: curve.terms[1] for name, curve in curves.items()}
    elsewhere = [name for name in moved if not torch.equal(moved[name], weights(b)[name])]
    assert elsewhere  # unrelated heads are nearly equally far: some other order is a little nearer
    after = logits(b, moved)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert before.std() > 0.1
    # The check would notice: heads of W_O in another order say something else.
    name = ATTENTION + "o_proj.weight"
    wrong = moved | {name: moved[name].unflatten(1, (6, -1)).flip(1).flatten(1)}
    assert (logits(b, wrong) - before).abs().max() > 0.05


def test_c_soft_alignment_of_heads_that_differ_does_change_what_the_model_says():
    a, b = model("gqa", 1), model("gqa", 2)
    before = logits(b, weights(b))
    curves = curves_of(weights(a), weights(b), weights(a), a.config, alignment="soft", tau=-1.0)
    moved = {name: curve.terms[1] for name, curve in curves.items()}
    assert (logits(b, moved) - before).abs().max() > 0.05


@pytest.mark.parametrize("shape", ["mha", "gqa"])
def test_b_soft_alignment_undoes_an_order_as_well_when_the_heads_are_equal(shape):
    of = model(shape, 1)
    a = weights(of)
    b, _ = reordered(a, of.config)
    found = merged(a, b, near(a, 0.3, 5), of.config, alignment="soft", epsilon=0.02)
    close(found, a)


@every_shape
@pytest.mark.parametrize("scope", ["tensor", "block"])
def test_d_the_weight_is_a_cosine_between_0_and_1(shape, scope):
    of = model(shape, 1)
    ancestor = weights(of)
    for a, b in ((near(ancestor, 0.1, 5), near(ancestor, 0.1, 6)), (weights(model(shape, 2)), near(ancestor, 1, 6))):
        for name, curve in curves_of(a, b, ancestor, of.config, scope=scope).items():
            if "norm" in name or ".layers." not in name:
                assert (curve.diagnostics["branch"], curve.coefficients(0.0)) == ("mean", (0.5, 0.5))
            else:
                assert 0 <= curve.diagnostics["w"] <= 1
                assert curve.coefficients(0.0) == (1 - curve.diagnostics["w"], curve.diagnostics["w"])


@pytest.mark.parametrize("weighting", ["literal", "normalised"])
def test_e_opposite_deltas_give_the_first_parent_bit_for_bit(weighting):
    of = model("gqa", 1)
    ancestor = {name: (tensor * 64).round() / 64 for name, tensor in weights(of).items()}
    step = {name: (tensor * 64).round() / 64 for name, tensor in near(ancestor, 0.3, 9).items()}
    a = {name: ancestor[name] + step[name] for name in ancestor}
    b = {name: ancestor[name] - 3 * step[name] for name in ancestor}
    curves = curves_of(a, b, ancestor, of.config, weighting=weighting)
    found = points(curves, a)
    for name, curve in curves.items():
        if curve.diagnostics["branch"] == "cosine":
            assert curve.diagnostics["cosine"] == pytest.approx(-1)
            assert curve.diagnostics["w"] == 0.0
            assert torch.equal(found[name], a[name])
    assert sum(curve.diagnostics["branch"] == "cosine" for curve in curves.values()) == 14


@pytest.mark.parametrize(
    "settings",
    [
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 2},
        {"num_key_value_heads": 1},
        {"num_key_value_heads": 2, "head_dim": 12},
    ],
)
def test_f_plain_and_grouped_attention_of_checkpoints_on_disk(make_tiny, settings):
    """Through recipe and files in bfloat16: the pivot is the base in another order of heads, and is undone."""
    folder = make_tiny(**settings)
    base = Checkpoint(folder)
    live = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    tensors = {name: base.read(name) for name in base.tensors}
    moved, orders = reordered(tensors, live.config, seed=3)
    pivot = Mapped(base, moved)
    ancestor = Mapped(base, {name: torch.zeros_like(tensor) for name, tensor in tensors.items()})
    recipe = Recipe(parents=(base, pivot), names=tuple(tensors), method=hierarchical, ancestor=ancestor)
    found = {}
    for group in recipe.groups:
        found |= points(recipe.curves(group), tensors)
    # Equal values with shares that add up to 1 are the value itself once rounded to bfloat16.
    assert bits(found) == bits(tensors)
    assert any(heads.tolist() != sorted(heads.tolist()) for heads, _ in orders.values())


class Mapped(Checkpoint):
    """A checkpoint whose tensors are given."""

    def __init__(self, like: Checkpoint, tensors: dict[str, torch.Tensor]) -> None:
        self.config, self.folder, self.tensors, self._given = like.config, like.folder, like.tensors, tensors

    def read(self, name: str) -> torch.Tensor:
        return self._given[name]


def test_a_gain_below_tau_moves_no_head():
    of = model("mha", 1)
    a, b = weights(of), weights(model("mha", 2))
    curves = curves_of(a, b, near(a, 0.1, 5), of.config, tau=0.5)
    facts = curves[ATTENTION + "q_proj.weight"].diagnostics
    assert facts["accepted"] == "no"
    assert facts["permutation"] == "0 1 2 3 4 5"
    assert facts["cost_after"] < facts["cost_before"]
    assert curves[ATTENTION + "q_proj.weight"].terms[1] is b[ATTENTION + "q_proj.weight"]  # no copy


def test_a_norm_over_all_heads_moves_with_them():
    of = model("gqa", 1)
    a = weights(of)
    generator = torch.Generator().manual_seed(4)
    wide = {
        ATTENTION + f"{part}_norm.weight": torch.randn(size, generator=generator)
        for part, size in (("q", 48), ("k", 16))
    }
    b, _ = reordered(a, of.config)
    rows = {name: wide[name].unflatten(0, (count, -1)) for name, count in zip(wide, (6, 2), strict=True)}
    layer = [name for name in a if name.startswith("model.layers.0.")]
    first = {name: a[name] for name in layer} | wide
    second = {name: b[name] for name in layer} | wide
    curves = hierarchical((first, second), ancestor=first, config=of.config.to_dict())
    for name, count in zip(wide, (6, 2), strict=True):
        order = [int(i) for i in curves[name].diagnostics["permutation"].split()]
        assert order != sorted(order) or count == 2
        assert torch.equal(curves[name].terms[1], rows[name][order].flatten())


def test_threads_change_no_bit_and_no_fact():
    """A layer large enough that its sums are split among threads."""
    generator, layer = torch.Generator().manual_seed(0), "model.layers.0.self_attn."
    sizes = {"q_proj": (512, 384), "k_proj": (256, 384), "v_proj": (256, 384), "o_proj": (384, 512)}
    shapes = {f"{layer}{part}.weight": size for part, size in sizes.items()}
    first, second, ancestor = ({n: torch.randn(s, generator=generator) for n, s in shapes.items()} for _ in "abc")
    config = {"num_attention_heads": 8, "num_key_value_heads": 4, "hidden_size": 384, "head_dim": 64}
    before = torch.get_num_threads()
    try:
        for alignment in ("hard", "soft"):
            found = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                curves = hierarchical((first, second), ancestor=ancestor, config=config, alignment=alignment, tau=-1.0)
                found.append(({n: dict(c.diagnostics) for n, c in curves.items()}, bits(points(curves, first))))
            assert found[0] == found[1] == found[2]
    finally:
        torch.set_num_threads(before)


def test_parents_are_never_written_to():
    of, other = model("gqa", 1), model("gqa", 2)
    a, b = weights(of), weights(other)
    kept = bits(a), bits(b)
    for alignment in ("hard", "soft"):
        merged(a, b, a, of.config, alignment=alignment, tau=-1.0)
    assert (bits(a), bits(b)) == kept


@every_shape
@pytest.mark.parametrize("weighting", ["literal", "normalised"])
def test_a_weight_after_alignment_does_not_depend_on_the_order_of_heads(shape, weighting):
    of = model(shape, 1)
    a, ancestor = weights(of), near(weights(of), 0.3, 5)
    b = near(a, 0.02, 8)
    moved, orders = reordered(b, of.config)
    assert any(heads.tolist() != sorted(heads.tolist()) for heads, _ in orders.values())
    numbers = {"weighting": weighting, "tau": 0.0}
    plain = merged(a, b, ancestor, of.config, **numbers)
    after = merged(a, moved, ancestor, of.config, cosine="aligned", **numbers)
    assert bits(after) == bits(plain)
    # On the parents as they are the weight of what was reordered falls, and the merge is another one.
    before = curves_of(a, moved, ancestor, of.config, **numbers)
    name = ATTENTION + "q_proj.weight"
    assert before[name].diagnostics["w"] < 0.9 < curves_of(a, b, ancestor, of.config, **numbers)[name].diagnostics["w"]
