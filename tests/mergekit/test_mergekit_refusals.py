"""Recipes that cannot be done here: everything is named at once, with what can be done."""

import pytest

from patientdx.cli.mergekit.recipe import read_recipe
from patientdx.core.errors import UserError


def test_everything_that_cannot_be_done_is_in_one_message(write):
    file = write("""
        slices:
          - sources:
              - {model: a, layer_range: [0, 24], parameters: {density: 0.5, weight: [0.2, 0.8]}}
              - {model: b, layer_range: [0, 24], parameters: {density: 0.6, weight: 1}}
              - {model: anc, layer_range: [0, 24]}
          - sources:
              - {model: a, layer_range: [8, 32]}
        merge_method: ties
        base_model: anc
        chat_template: chatml
        dtype: float64
        tokenizer: {source: org/x, tokens: {"<|im_start|>": {source: a}}, pad_to_multiple_of: 64}
        parameters: {normalize: false}
    """)
    with pytest.raises(UserError) as caught:
        read_recipe(file)
    assert str(caught.value) == (
        f"{file} asks for 11 things that cannot be done here:\n"
        "- chat_template: the result keeps the one of its tokenizer; change it in the saved folder.\n"
        "- slices[1].sources: base_model anc is not among them; list it with its layers.\n"
        "- slices[1].sources: other models than in slices[0]; give all slices the same, in one order.\n"
        "- slices[1].layer_range [8, 32]: layers are not stacked, left out or moved here; let each slice begin where "
        "the one before ends, the first at layer 0, with the same layers of every model.\n"
        "- parameters.weight: it changes with depth, tensor or slice, and here only λ can; give one number.\n"
        "- parameters.normalize: here ties always divides by the agreeing weights; set normalize: true.\n"
        "- parameters.density: it is 0.5, 0.6, and here one number serves all models.\n"
        "- dtype: float64 is not written here; choose bfloat16, float16, float32.\n"
        "- tokenizer.tokens: it is not done here; leave it out.\n"
        "- tokenizer.pad_to_multiple_of: it is not done here; leave it out.\n"
        "- tokenizer: org/x is neither the first parent nor the second here (anc, a); choose one of these, or union."
    )


METHODS_SAID = (
    "there are breadcrumbs, breadcrumbs_ties, dare_linear, dare_ties, della, della_linear, karcher, linear, "
    "model_stock, multislerp, nearswap, nuslerp, sce, slerp, task_arithmetic, ties."
)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (
            "merge_method: passthrough",
            "merge_method passthrough: it copies, stacks or scales layers, and here every layer of the result is a "
            "merge of that layer",
        ),
        (
            "merge_method: arcee_fusion",
            "merge_method arcee_fusion: it takes quantiles of a random sample, and there is no such method here",
        ),
        ("merge_method: ram", "merge_method ram: there is no such method here"),
        ("merge_method: tiess", "merge_method tiess: mergekit 0.1.5 has no such method"),
        ("", "merge_method: it is missing"),
    ],
)
def test_methods_that_are_not_here(refused, method, said):
    assert refused(f"models: [{{model: a}}, {{model: b}}]\n{method}") == [f"{said}; {METHODS_SAID}"]


LISTED = "models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]\n"
WITH_BASE = LISTED + "base_model: anc\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LISTED + "merge_method: slerp\nparameters: {t: 0.5}", [
            "base_model: slerp needs one, and none is given.",
            "models: slerp joins 1 beside base_model here, got 2.",
        ]),
        (WITH_BASE + "merge_method: slerp\nparameters: {t: 0.5}", [
            "models: slerp joins 1 beside base_model here, got 2.",
        ]),
        ("models: [{model: b}]\nbase_model: a\nmerge_method: slerp", ["parameters.t is missing."]),
        ("models: [{model: b}]\nbase_model: a\nmerge_method: slerp\nparameters: {t: [0, 1.5]}", [
            "parameters: 1.5 becomes λ, and slerp goes from 0 to 1 here.",
        ]),
        ("models: [{model: b}]\nbase_model: a\nmerge_method: slerp\nparameters: {t: half}", [
            "parameters.t: 'half' is not a number.",
        ]),
        ("models: [{model: b}]\nmerge_method: linear\nparameters: {weight: 1}", [
            "models: linear joins at least 2 here, got 1.",
        ]),
        ("models: [{model: b}, {model: a}]\nmerge_method: linear", [
            "parameters.weight is missing for b.", "parameters.weight is missing for a.",
        ]),
        (LISTED + "merge_method: linear\nparameters: {normalize: false}", [
            "parameters.normalize: weights always count as shares of their sum here; set it to true.",
        ]),
        (LISTED.replace("1}}]", "-1}}]") + "merge_method: linear", [
            "parameters.weight: weights that sum to 0 give no share.",
        ]),
        (LISTED.replace("]", ", {model: c, parameters: {weight: -1}}]") + "merge_method: linear", [
            "parameters.weight: 1, 1, -1 are no shares; give numbers of at least 0, not all 0.",
        ]),
        (LISTED.replace("1}}]", "[{filter: mlp, value: 1}]}}]") + "merge_method: linear", [
            "parameters.weight: the two models have different filters; give both the same.",
        ]),
        (LISTED + "merge_method: nuslerp\nparameters: {nuslerp_flatten: false, nuslerp_row_wise: true}", [
            "parameters.nuslerp_row_wise: one angle for each column is not done here; leave it out for one angle for "
            "each row, or set nuslerp_flatten: true for one for the whole tensor.",
        ]),
        ("models: [{model: b, parameters: {weight: 1}}]\nmerge_method: nuslerp", [
            "models: nuslerp joins 2 here, got 1.",
        ]),
        (WITH_BASE.replace("]", ", {model: c, parameters: {weight: 2}}]") + "merge_method: multislerp\n"
         "parameters: {eps: 1.0e-3, normalize_weights: false}", [
            "base_model: multislerp on differences from it is not done here; leave base_model out, or use nuslerp for "
            "two models.",
            "parameters.eps: norms are not blurred here; leave it out.",
            "parameters.normalize_weights: weights always count as shares of their sum here; set it to true.",
            "parameters.weight: here multislerp shares λ equally among all models but the first; give those the same "
            "weight.",
        ]),
        ("models: [{model: b}]\nmerge_method: karcher", ["models: karcher joins at least 2 here, got 1."]),
        ("models: [{model: b}]\nbase_model: a\nmerge_method: model_stock", [
            "models: model_stock joins at least 2 beside base_model here, got 1.",
        ]),
        (WITH_BASE + "merge_method: dare_ties\nparameters: {density: 0.5, normalize: true, rescale: false}", [
            "parameters.normalize: here dare_ties never divides by the agreeing weights; set normalize: false.",
            "parameters.rescale: here dare_ties always restores the L1 norm; set rescale: true.",
        ]),
        (WITH_BASE + "merge_method: della\nparameters: {density: 0.9}", [
            "parameters.epsilon: density 0.9 ± 0.15 leaves (0, 1), which mergekit refuses too.",
        ]),
        (WITH_BASE + "merge_method: della_linear", [
            "parameters.density: della_linear with density 1 prunes nothing; write task_arithmetic instead.",
        ]),
        (WITH_BASE + "merge_method: ties\nparameters: {density: [{filter: mlp, value: 0.5}, {value: 0.2}]}", [
            "parameters.density: it changes with depth, tensor or slice, and here only λ can; give one number.",
        ]),
        (WITH_BASE + "merge_method: sce\ntokenizer_source: base", [
            "tokenizer: base is neither the first parent nor the second here (a, b); choose one of these, or union.",
        ]),
        (LISTED + "modules: {text: {}}\nmerge_method: linear", [
            "modules: only models of one part are merged here; write models or slices.",
            "models, modules: a recipe has either models or slices; give one of them.",
        ]),
        ("merge_method: linear", ["models: a recipe has either models or slices; give one of them."]),
        ("models: 3\nmerge_method: linear", [
            "models: give a list of entries with model.", "models: linear joins at least 2 here, got 0.",
        ]),
        ("models: [{model: a+b+c}, {path: d}, {model: e}, {model: e}]\nparameters: {weight: 1}\nmerge_method: linear", [
            "models[0].model: a+b+c is not read here; write <folder or hub id>@<revision>+<folder of a LoRA>.",
            "models[1].model is missing.",
            "models[3].model: e is listed twice; add up its weights.",
            "models: linear joins at least 2 here, got 1.",
        ]),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_named_with_what_can(refused, text, said):
    assert refused(text) == said


SLICES = """
slices:
  - sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]
    parameters: %s
  - sources: [{model: a, layer_range: %s}, {model: b, layer_range: %s}]
    %s
merge_method: slerp
base_model: a
parameters: {t: 0.5}
"""


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (("{}", "[2, 4]", "[3, 5]", ""), "slices[1].layer_range [2, 4], [3, 5]: layers are not stacked"),
        (("{}", "[1, 4]", "[1, 4]", ""), "slices[1].layer_range [1, 4], [1, 4]: layers are not stacked"),
        (("{}", "4", "4", ""), "slices[1].layer_range 4, 4: layers are not stacked"),
        (("{}", "[2, 4]", "[2, 4]", "base_model: b"), "slices[1].base_model: every slice has the recipe's own here"),
        (("{}", "[2, 4]", "[2, 4]", "residual_weight: 1"), "slices[1].residual_weight: it is not done here; leave it"),
        (("3", "[2, 4]", "[2, 4]", ""), "slices[0].parameters: give names with values."),
        (
            (
                "{t: [{filter: mlp, value: 1}, {value: 0}]}",
                "[2, 4]",
                "[2, 4]",
                "parameters: {t: [{filter: q_proj, value: 1}]}",
            ),
            "parameters.t: slices with different filters make no one λ; give all the same.",
        ),
    ],
)
def test_slices_that_are_not_the_model_in_order(refused, parts, said):
    (found,) = refused(SLICES % parts)
    assert found.startswith(said)


def test_files_that_are_no_recipe(write, tmp_path):
    def said(file):
        with pytest.raises(UserError) as caught:
            read_recipe(file)
        return str(caught.value)

    absent = tmp_path / "none.yml"
    assert said(absent) == (
        f"mergekit_config={absent} cannot be read (No such file or directory): give a recipe of mergekit."
    )
    file = tmp_path / "recipe.yml"
    start = f"mergekit_config={file} is not a recipe of mergekit: "
    assert said(write("- model: a")) == start + "it holds no mapping with a merge_method."
    assert said(write("a: 1\n---\nb: 2")) == start + "it holds several recipes: give one in a file."
    assert said(write("a: [1")).startswith(start + "while parsing a flow sequence")
