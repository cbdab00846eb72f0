"""Recipes as people write them for mergekit, and what they come to here."""

import textwrap

import pytest
import torch

from patientdx.cli.mergekit.methods import METHODS
from patientdx.cli.mergekit.recipe import read_recipe
from patientdx.core.functions import dotted
from patientdx.merge.curve import evaluate
from patientdx.merge.schedule import schedule, weight_at

EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


def names(recipe):
    return [parent.name for parent in recipe.parents]


def at(recipe, name, layers):
    return weight_at(schedule(recipe.weight), name, layers)


SLERP = """
    # the usual two-model recipe: attention one way, MLP the other
    slices:
      - sources:
          - model: mistralai/Mistral-7B-Instruct-v0.2
            layer_range: [0, 32]
          - model: clinic/med-mistral-7b@v1.1
            layer_range: [0, 32]
    merge_method: slerp
    base_model: clinic/med-mistral-7b@v1.1
    parameters:
      t:
        - filter: self_attn
          value: [0, 0.5, 0.3, 0.7, 1]
        - filter: mlp
          value: [1, 0.5, 0.7, 0.3, 0]
        - value: 0.5
    dtype: bfloat16
"""


def test_slerp_goes_from_its_base_model_and_t_is_lambda(write):
    found = read_recipe(write(SLERP))
    assert found.method == "slerp"
    assert [(one.source, one.revision) for one in found.parents] == [
        ("clinic/med-mistral-7b", "v1.1"),
        ("mistralai/Mistral-7B-Instruct-v0.2", None),
    ]
    assert found.weight == {"self_attn": [0, 0.5, 0.3, 0.7, 1], "mlp": [1, 0.5, 0.7, 0.3, 0], "*": 0.5}
    assert (found.arguments, found.ancestor, found.tokenizer) == ({}, None, None)
    assert (found.dtype, found.layers, found.notes) == ("bfloat16", 32, ())


def test_the_config_holds_what_a_run_is_composed_of(write):
    found = read_recipe(write(SLERP)).config()
    assert found["base_model"]["name"] == "med-mistral-7b"
    assert found["pivot_model"]["source"] == "mistralai/Mistral-7B-Instruct-v0.2"
    assert found["extra_models"] == []
    assert found["merge"] == {"name": "slerp", "_target_": "patientdx.merge.slerp.slerp"}
    assert (found["ancestor"], found["tokenizer"], found["dtype"]) == (None, None, "bfloat16")
    assert schedule(found["lambda"]) == (
        ("self_attn", (0.0, 0.5, 0.3, 0.7, 1.0)), ("mlp", (1.0, 0.5, 0.7, 0.3, 0.0)), ("*", 0.5)
    )  # fmt: skip


def test_slices_that_cover_the_model_become_lambda_for_each_layer(write):
    found = read_recipe(
        write("""
        slices:
          - sources: [{model: org/a, layer_range: [0, 2]}, {model: org/b, layer_range: [0, 2]}]
            parameters: {t: [0.1, 0.3]}
          - sources: [{model: org/a, layer_range: [2, 3]}, {model: org/b, layer_range: [2, 3]}]
          - sources: [{model: org/a, layer_range: [3, 6]}, {model: org/b, layer_range: [3, 6]}]
            parameters: {t: [{filter: mlp, value: [0.9, 0.5]}, {filter: lm_head, value: 0.05}]}
        merge_method: slerp
        base_model: org/a
        parameters:
          t: [{filter: mlp, value: 0.8}, {filter: lm_head, value: 0.9}, {value: [0.2, 0.6]}]
        """)
    )
    assert found.layers == 6
    mlp = [at(found, f"model.layers.{layer}.mlp.up_proj.weight", 6) for layer in range(6)]
    other = [at(found, f"model.layers.{layer}.self_attn.q_proj.weight", 6) for layer in range(6)]
    assert mlp == pytest.approx([0.1, 0.3, 0.8, 0.9, 0.7, 0.5])
    assert other == pytest.approx([0.1, 0.3, 0.6, 0.2, 0.4, 0.6])  # a slice of one layer takes the last value
    # outside the layers: the embedding by the first slice, norm and head by the last, all by their first value
    assert [at(found, name, 6) for name in (EMBEDDING, NORM, HEAD)] == pytest.approx([0.1, 0.2, 0.05])


def test_slices_of_one_value_are_one_number(write):
    found = read_recipe(
        write("""
        slices:
          - sources: [{model: a, layer_range: [0, 4]}, {model: b, layer_range: [0, 4]}]
          - sources: [{model: a, layer_range: [4, 8]}, {model: b, layer_range: [4, 8]}]
        merge_method: slerp
        base_model: a
        parameters: {t: 0.3}
        """)
    )
    assert (found.weight, found.layers) == (0.3, 8)


TIES = """
    models:
      - model: mistralai/Mistral-7B-v0.1
        # no parameters for the base
      - model: org/maths-7b
        parameters:
          density: 0.5
          weight: 0.5
      - model: org/med-7b
        parameters:
          weight: 0.3
    merge_method: ties
    base_model: mistralai/Mistral-7B-v0.1
    parameters:
      normalize: true
      int8_mask: true
      density: 0.5
      lambda: [0.8, 1.2]
    dtype: float32
    out_dtype: float16
    tokenizer_source: base
"""


def test_task_vectors_start_from_the_ancestor_which_is_the_first_parent_too(write):
    found = read_recipe(write(TIES))
    assert names(found) == ["Mistral-7B-v0.1", "maths-7b", "med-7b"]
    assert found.ancestor == found.parents[0]
    assert found.weight == [0.8, 1.2]
    assert found.arguments == {"weights": [0.0, 0.5, 0.3], "density": 0.5, "compat": "mergekit"}
    assert (found.dtype, found.tokenizer, found.layers, found.notes) == ("float16", "base", None, ())
    assert found.config()["ancestor"] == found.config()["base_model"]
    assert [one["name"] for one in found.config()["extra_models"]] == ["med-7b"]


def task_vectors(method, parameters="", weights=(0.6, 0.2)):
    entries = "".join(f"\n          - {{model: m{i}, parameters: {{weight: {w}}}}}" for i, w in enumerate(weights))
    return f"""
        models:{entries}
        merge_method: {method}
        base_model: anc
        parameters: {{{parameters}}}
    """


@pytest.mark.parametrize(
    ("method", "parameters", "arguments"),
    [
        ("task_arithmetic", "", {"weights": [0.0, 0.6, 0.2]}),
        ("task_arithmetic", "normalize: true", {"weights": [0.0, 0.75, 0.25]}),
        ("dare_linear", "density: 0.4", {"weights": [0.0, 0.6, 0.2], "density": 0.4, "compat": "mergekit"}),
        ("dare_ties", "density: 0.4", {"weights": [0.0, 0.6, 0.2], "density": 0.4, "compat": "mergekit"}),
        (
            "della",
            "density: 0.4, epsilon: 1e-1",
            {"weights": [0.0, 0.6, 0.2], "density": 0.4, "epsilon": 0.1, "compat": "mergekit"},
        ),
        (
            "della_linear",
            "density: 0.4",
            {"weights": [0.0, 0.6, 0.2], "density": 0.4, "epsilon": 0.15, "compat": "mergekit"},
        ),
        ("breadcrumbs", "density: 0.9, gamma: 0.02", {"weights": [0.0, 0.6, 0.2], "density": 0.9, "gamma": 0.02}),
        (
            "breadcrumbs_ties",
            "",  # with density 1 mergekit drops nothing at the top either
            {"weights": [0.0, 0.6, 0.2], "density": 1.0, "gamma": 0.0, "compat": "mergekit"},
        ),
    ],
)
def test_numbers_of_the_methods_of_task_vectors(write, method, parameters, arguments):
    found = read_recipe(write(task_vectors(method, parameters)))
    assert found.arguments == {**arguments, "weights": pytest.approx(arguments["weights"])}
    assert (found.method, found.weight, names(found)) == (method, 1.0, ["anc", "m0", "m1"])


def test_an_outlier_share_beyond_the_density_counts_as_what_is_left(write):
    found = read_recipe(write(task_vectors("breadcrumbs", "density: 0.875, gamma: 0.25")))
    assert found.arguments["gamma"] == 0.125
    assert found.notes == ("gamma: 0.25 counts as 0.125, all that density leaves, as with mergekit",)


def test_masks_are_said_to_be_ours(write):
    found = read_recipe(write(task_vectors("dare_ties", "density: 0.4")))
    assert found.notes == ("dare_ties: the masks are drawn by our seed, not by mergekit's",)


def test_linear_shares_become_lambda_and_weights(write):
    found = read_recipe(
        write("""
        models:
          - {model: org/a, parameters: {weight: 0.5}}
          - {model: org/b, parameters: {weight: 0.3}}
          - {model: org/c, parameters: {weight: 0.2}}
        merge_method: linear
        dtype: torch.float16
        """)
    )
    assert found.weight == pytest.approx(0.5)
    assert (found.arguments, found.dtype) == ({"weights": [0.3, 0.2]}, "float16")


@pytest.mark.parametrize(
    ("first", "second", "weight"),
    [
        ("1", "3", 0.75),
        ("[1, 0.2, 0]", "[0, 0.8, 1]", [0, 0.8, 1]),
        ("[2, 0, 2]", "[0, 2, 0]", [0, 1, 0]),
        ("[{filter: mlp, value: 1}, {value: 3}]", "1", {"mlp": 0.5, "*": 0.25}),
        (
            "[{filter: mlp, value: [1, 0]}, {value: 3}]",
            "[{filter: mlp, value: [0, 1]}, {value: 1}]",
            {"mlp": [0, 1], "*": 0.25},
        ),
    ],
)
def test_weights_of_two_models_become_lambda_by_depth_and_filter(write, first, second, weight):
    text = f"""
        models:
          - {{model: a, parameters: {{weight: {first}}}}}
          - {{model: b, parameters: {{weight: {second}}}}}
        merge_method: linear
    """
    assert read_recipe(write(text)).weight == weight


def test_weights_whose_sum_changes_are_a_share_for_each_layer_where_the_layers_are_counted(write, refused):
    text = """
        {}:
          - {{model: a{}, parameters: {{weight: [0.5, 2, 1]}}}}
          - {{model: b{}, parameters: {{weight: 1}}}}
        merge_method: linear
    """
    assert refused(text.format("models", "", "")) == [
        "parameters.weight: weights whose sum changes with depth make no gradient of λ; let the two sum to 1 "
        "everywhere, or write the layers as slices."
    ]
    layers = ", layer_range: [0, 5]"
    sliced = text.format("slices:\n          - sources", layers, layers).replace(
        "          - {model", "            - {model"
    )
    found = read_recipe(write(sliced))
    assert found.weight == pytest.approx([1 / 1.5, 1 / 2.25, 1 / 3, 1 / 2.5, 1 / 2])


def test_nuslerp_takes_the_base_for_the_ancestor(write):
    text = """
        models:
          - {model: a, parameters: {weight: 0.6}}
          - {model: b, parameters: {weight: 0.2}}
        merge_method: nuslerp
        parameters: {nuslerp_flatten: false}
    """
    found = read_recipe(write(text))
    assert (found.ancestor, found.weight, found.arguments) == (None, pytest.approx(0.25), {"row_wise": True})
    found = read_recipe(write(text + "    base_model: anc\n"))
    assert (found.ancestor.name, names(found)) == ("anc", ["a", "b"])
    assert found.arguments == {"row_wise": True, "of": "deltas"}


def test_means_on_the_sphere(write):
    models = "models: [{model: a, parameters: {weight: 2}}, {model: b}, {model: c}]\nparameters: {%s}\nmerge_method: "
    found = read_recipe(write(models % "weight: 1" + "multislerp"))
    assert (found.weight, found.arguments) == (0.5, {"compat": "mergekit"})
    found = read_recipe(write(models % "max_iter: 20, tol: 1e-7" + "karcher\nbase_model: d"))
    assert names(found) == ["d", "a", "b", "c"]  # mergekit joins a base_model that is not listed
    assert (found.weight, found.arguments) == (0.75, {"max_iter": 20, "tol": 1e-7})
    assert found.notes == ("a: mergekit's karcher passes over weight",)


def test_methods_that_compare_the_others_to_the_ancestor(write):
    models = "models: [{model: anc}, {model: a}, {model: b}]\nbase_model: anc\nparameters: {%s}\nmerge_method: "
    found = read_recipe(write(models % "filter_wise: true" + "model_stock"))
    assert (found.weight, found.arguments) == (None, {"filter_wise": True, "compat": "mergekit"})
    assert (names(found), found.ancestor.name) == (["a", "b"], "anc")
    found = read_recipe(write(models % "select_topk: 0.2" + "sce"))
    assert (found.weight, found.arguments) == (1.0, {"density": 0.2, "compat": "mergekit"})
    assert (names(found), found.ancestor.name) == (["a", "b"], "anc")


def test_nearswap_has_a_distance_for_lambda(write):
    found = read_recipe(write("models: [{model: b}]\nbase_model: a\nparameters: {t: 1e-4}\nmerge_method: nearswap"))
    assert (names(found), found.weight) == (["a", "b"], 1e-4)


def example(method):
    """A recipe of any method, with what it needs and nothing else."""
    if method in ("slerp", "nearswap"):
        return f"models: [{{model: a}}, {{model: b}}]\nbase_model: a\nparameters: {{t: 0.3}}\nmerge_method: {method}"
    density = "density: 0.5" if method.startswith("della") else ""
    text = textwrap.dedent(task_vectors(method, density, (0.5, 0.5)))
    return (
        text
        if "ancestor" in dotted(f"patientdx.merge.{method}.{method}").__annotations__
        else text.replace("base_model: anc", "")
    )


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_takes_what_the_recipe_gives_it(write, method):
    found = read_recipe(write(example(method)))
    merge = dict(found.config()["merge"])
    assert merge.pop("name") == method
    function = dotted(merge.pop("_target_"))
    generator = torch.Generator().manual_seed(1)
    tensors = {one: torch.randn(6, 8, generator=generator) for one in (*found.parents, found.ancestor)}
    parents = [tensors[one] for one in found.parents]
    supplied = {"ancestor": tensors[found.ancestor], "name": "x", "seed": 0}
    given = {key: value for key, value in supplied.items() if key in function.__annotations__}
    weight = 0.0 if found.weight is None else weight_at(schedule(found.weight), "x", 1)
    result = evaluate(function(parents, **merge, **given), weight, torch.empty(6, 8))
    assert torch.isfinite(result).all()
    assert not any(torch.equal(result, tensor) for tensor in tensors.values())
