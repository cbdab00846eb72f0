"""Parents that fit, and one message for all the ways in which they do not."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from patientdx.checkpoints.compatibility import align
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.tokenizer_files import read_tokens
from patientdx.core.errors import UserError


def refusal(*folders):
    names = ["first", "second", "third"][: len(folders)]
    with pytest.raises(UserError) as caught:
        align([Checkpoint(folder) for folder in folders], names)
    return str(caught.value)


def edit_tensors(folder, edit):
    file = folder / "model.safetensors"
    save_file(edit(load_file(file)), file, metadata={"format": "pt"})


def edit_json(file, edit):
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


@pytest.fixture
def copy(tiny_pivot, tmp_path):
    """A copy of the tiny pivot that a test may change."""
    return shutil.copytree(tiny_pivot, tmp_path / "model")


def test_parents_that_fit_give_every_tensor_in_the_order_of_the_base(tiny_base, tiny_pivot, make_tiny):
    base, pivot = Checkpoint(tiny_base), Checkpoint(tiny_pivot)
    sharded = Checkpoint(make_tiny(seed=3, shard_size="20KB", dtype=torch.float32))
    assert align([base, pivot, sharded], ["base", "pivot", "third"]) == tuple(base.tensors)


def test_rotary_frequencies_are_ignored(tiny_base, copy):
    edit_tensors(copy, lambda tensors: tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    assert align([Checkpoint(tiny_base), Checkpoint(copy)], ["a", "b"]) == tuple(Checkpoint(tiny_base).tensors)


def test_a_stored_head_that_equals_the_embedding_is_allowed_and_said(tiny_base, copy, caplog):
    edit_tensors(copy, lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    with caplog.at_level(logging.INFO):
        names = align([Checkpoint(tiny_base), Checkpoint(copy)], ["a", "b"])
    assert "lm_head.weight" not in names
    assert caplog.messages == ["b stores an output head that equals its embedding; the embedding stands for both"]


def test_a_stored_head_that_differs_from_the_embedding(tiny_base, copy):
    edit_tensors(copy, lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"] + 1})
    assert refusal(tiny_base, copy) == (
        "first and second cannot be merged tensor by tensor:\n"
        "- second stores an lm_head.weight that differs from its embedding, but its config.json says "
        "tie_word_embeddings: set that to false in its config.json, or delete the tensor\n"
        "Choose parents of one family and size, with the same tokenizer and best a common ancestor."
    )


def test_tied_and_untied(tiny_base, make_tiny):
    assert refusal(tiny_base, make_tiny(tie_word_embeddings=False)) == (
        "first and second cannot be merged tensor by tensor:\n"
        "- output head: first shares its embedding, second has a head of its own\n"
        "- 1 tensor only in second: lm_head.weight\n"
        "Choose parents of one family and size, with the same tokenizer and best a common ancestor."
    )


def test_untied_parents_keep_their_heads(make_tiny):
    parents = [Checkpoint(make_tiny(seed=seed, tie_word_embeddings=False)) for seed in (0, 1)]
    assert "lm_head.weight" in align(parents, ["a", "b"])


def test_every_kind_of_fault_is_in_one_message(tiny_base, make_tiny):
    other = make_tiny(
        num_hidden_layers=3,
        num_key_value_heads=4,
        vocab_size=512,
        extra_tokens=("<|x|>",),
        attention_bias=True,
    )
    assert refusal(tiny_base, other) == (
        "first and second cannot be merged tensor by tensor:\n"
        "- vocab_size: 420 in first, 512 in second\n"
        "- num_key_value_heads: 2 in first, 4 in second\n"
        "- 21 tensors only in second: model.layers.0.self_attn.k_proj.bias, "
        "model.layers.0.self_attn.o_proj.bias, model.layers.0.self_attn.q_proj.bias and 18 more\n"
        "- 5 tensors of other shape in first and second: model.embed_tokens.weight [420, 32] and [512, 32], "
        "model.layers.0.self_attn.k_proj.weight [16, 32] and [32, 32], "
        "model.layers.0.self_attn.v_proj.weight [16, 32] and [32, 32] and 2 more\n"
        "- 417 token ids differ in first and second: 3 is '!' and '<|x|>', 4 is '\"' and '!', "
        "5 is '#' and '\"' and 414 more\n"
        "Choose parents of one family and size, with the same tokenizer and best a common ancestor. "
        "Different vocabularies are brought to one by tokenizer=base, pivot or union."
    )


def test_other_architecture(tiny_base, copy):
    edit_json(copy / "config.json", lambda config: config.update(model_type="mistral", architectures=["MistralX"]))
    message = refusal(tiny_base, copy)
    assert "- model_type: llama in first, mistral in second\n" in message
    assert "- architectures: LlamaForCausalLM in first, MistralX in second\n" in message


def test_a_third_parent_is_compared_too(tiny_base, tiny_pivot, make_tiny):
    message = refusal(tiny_base, tiny_pivot, make_tiny(num_hidden_layers=1))
    assert "- 9 tensors only in first: model.layers.1." in message
    assert "second" not in message.split("\n", 1)[1]


def test_placeholder_tokens_may_have_other_names(make_tiny, caplog):
    """As between Llama 3 and 3.1: a reserved token of one has a name in the other."""
    first = make_tiny(extra_tokens=("<|reserved_special_token_2|>", "<|eot|>"))
    second = make_tiny(extra_tokens=("<|finetune_right_pad_id|>", "<|eot|>"))
    with caplog.at_level(logging.INFO):
        align([Checkpoint(first), Checkpoint(second)], ["a", "b"])
    assert caplog.messages == ["1 placeholder tokens are named differently in a and b"]


def test_tokens_beyond_the_embedding_do_not_count(tiny_base, copy):
    edit_json(
        copy / "tokenizer.json",
        lambda content: content["added_tokens"].append(content["added_tokens"][0] | {"id": 420, "content": "[PAD]"}),
    )
    assert read_tokens(copy).by_id[420] == "[PAD]"
    align([Checkpoint(tiny_base), Checkpoint(copy)], ["a", "b"])


def test_one_token_that_differs(tiny_base, copy):
    def swap(content):
        vocab = content["model"]["vocab"]
        vocab["A"], vocab["B"] = vocab["B"], vocab["A"]

    edit_json(copy / "tokenizer.json", swap)
    assert "- 2 token ids differ in first and second: 35 is 'A' and 'B', 36 is 'B' and 'A'\n" in refusal(
        tiny_base, copy
    )


def test_a_parent_without_tokenizer_is_read_through_the_other(tiny_base, copy):
    (copy / "tokenizer.json").unlink()
    align([Checkpoint(tiny_base), Checkpoint(copy)], ["a", "b"])


def test_broken_tokenizer(tiny_base, copy):
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError) as caught:
        align([Checkpoint(tiny_base), Checkpoint(copy)], ["a", "b"])
    assert str(caught.value) == (
        f"{copy}/tokenizer.json is not a tokenizer of the tokenizers library: download it again."
    )


@pytest.mark.parametrize("difference", ["a token", "a size"])
def test_only_other_vocabularies_are_told_of_the_option(tiny_base, copy, difference):
    def edit(content):
        if difference == "a size":
            content["vocab_size"] = 419
        else:
            content["model"]["vocab"]["€"] = content["model"]["vocab"].pop("A")

    edit_json(copy / {"a size": "config.json", "a token": "tokenizer.json"}[difference], edit)
    assert refusal(tiny_base, copy).endswith(
        "\nChoose parents of one family and size, with the same tokenizer and best a common ancestor. "
        "Different vocabularies are brought to one by tokenizer=base, pivot or union."
    )
