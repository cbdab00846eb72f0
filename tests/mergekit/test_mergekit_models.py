"""Models, tokenizers and adapters as recipes name them, and what mergekit itself passes over."""

from patientdx.cli.mergekit.recipe import read_recipe


def names(recipe):
    return [parent.name for parent in recipe.parents]


def test_tokenizers(write):
    text = "models: [{{model: org/b}}]\nbase_model: org/a\nparameters: {{t: 0.3}}\nmerge_method: slerp\n{}"
    for said, found in (
        ("", None),
        ("tokenizer_source: union", "union"),
        ("tokenizer_source: base", "base"),
        ("tokenizer_source: org/b", "pivot"),
        ("tokenizer: {source: org/a}", "base"),
        ("tokenizer: {}", "union"),
    ):
        assert read_recipe(write(text.format(said))).tokenizer == found


def test_a_lora_is_a_folder(write, tmp_path, refused):
    text = "models: [{{model: org/b@main+{}}}]\nbase_model: org/b\nparameters: {{t: 0.3}}\nmerge_method: slerp"
    adapter = tmp_path / "my-lora"
    adapter.mkdir()
    plain, adapted = read_recipe(write(text.format(adapter))).parents
    assert (plain.name, plain.adapter) == ("b", None)
    assert (adapted.name, adapted.source, adapted.revision, adapted.adapter) == (
        "b_my-lora", "org/b", "main", str(adapter),
    )  # fmt: skip
    assert refused(text.format("org/lora@v2")) == [
        "org/b@main+org/lora@v2: a LoRA is read from a folder here; get it with `hf download org/lora --revision v2` "
        "and write that."
    ]


def test_models_of_one_name_get_numbers(write):
    found = read_recipe(write("models: [{model: y/m}]\nbase_model: x/m\nparameters: {t: 0.3}\nmerge_method: slerp"))
    assert names(found) == ["m", "m_2"]


def test_what_mergekit_passes_over_is_noted_and_passed_over(write):
    found = read_recipe(
        write("""
        name: stage-one
        models:
          - {model: a, parameters: {weight: 0.5, t: 0.9}}
          - {model: b}
        merge_method: slerp
        base_model: a
        parameters: {t: 0.3, normalise: true}
        """)
    )
    assert found.weight == 0.3
    assert found.notes == (
        "name: mergekit passes over this key",
        "parameters: mergekit's slerp passes over normalise",
        "a: mergekit's slerp passes over weight",
        "a: mergekit's slerp passes over t",
    )
