"""Parents of different vocabularies under one: the merged model speaks as its parents do, on real forward passes."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from patientdx.checkpoints import identity
from patientdx.checkpoints.compatibility import align
from patientdx.checkpoints.identity import content_hash
from patientdx.checkpoints.lora import AdaptedCheckpoint
from patientdx.checkpoints.merge_plan import Recipe
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.vocabulary import common_vocabulary
from patientdx.checkpoints.writer import write_safetensors
from patientdx.core.errors import UserError
from patientdx.merge.curve import evaluate
from patientdx.merge.linear import linear
from patientdx.merge.slerp import slerp

TEXT = "Question: is the heart rate of 118 bpm above the interval? yes"
EMBEDDING = "model.embed_tokens.weight"
NAMES = ("base", "pivot", "third")


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def parents(request, make_tiny):
    """Base: 420 tokens and 12 empty rows. Pivot: two tokens of its own before the learned ones, so all ids differ."""
    shape = {"tie_word_embeddings": request.param, "dtype": torch.float32}
    base = make_tiny(seed=1, vocab_size=432, **shape)
    pivot = make_tiny(seed=2, extra_tokens=("<|patient|>", "<|drug|>"), **shape)
    return Checkpoint(base), Checkpoint(pivot)


@pytest.fixture(scope="module")
def third(make_tiny):
    """Another owner of one of the pivot's tokens, and one of its own."""
    return Checkpoint(make_tiny(seed=3, extra_tokens=("<|drug|>", "<|unit|>"), dtype=torch.float32))


def views(parents, tokenizer, cache):
    vocabulary = common_vocabulary(parents, NAMES[: len(parents)], tokenizer, cache)
    return [vocabulary.view(parent, "parent") for parent in parents]


def merged(parents, weight, folder, method=slerp):
    """A Hugging Face model of the point at `weight`, written out and loaded, and its tokenizer."""
    names = align(parents, NAMES[: len(parents)])
    recipe = Recipe(tuple(parents), names, method)
    shutil.copytree(parents[0].folder, folder)

    def point(name):
        out = torch.empty(parents[0].tensors[name].shape)
        return evaluate(recipe.curves((name,))[name], weight, out)

    write_safetensors(folder / "model.safetensors", [parents[0].tensors[name] for name in names], point)
    return loaded(folder)


def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def token_rows(view, name=EMBEDDING):
    """Row of each token of a view."""
    ids = AutoTokenizer.from_pretrained(view.folder).get_vocab()
    rows = view.read(name)
    return {token: rows[index] for token, index in ids.items()}


def refusal(parents, tokenizer, cache):
    with pytest.raises(UserError) as caught:
        common_vocabulary(parents, NAMES[: len(parents)], tokenizer, cache)
    return str(caught.value)


@pytest.mark.parametrize("method", [slerp, linear])
@pytest.mark.parametrize(("tokenizer", "end"), [("base", 0), ("pivot", 1)])
def test_at_its_end_the_model_whose_ids_are_kept_answers_bit_for_bit(parents, tokenizer, end, method, tmp_path):
    model, tokens = merged(views(parents, tokenizer, tmp_path), end, tmp_path / "merged", method)
    own, own_tokens = loaded(parents[end].folder)
    ids = own_tokens(TEXT).input_ids
    assert tokens(TEXT).input_ids == ids
    assert torch.equal(logits(model, ids), logits(own, ids))
    assert model.config.vocab_size == own.config.vocab_size == logits(model, ids).shape[-1]
    assert model.config.eos_token_id == tokens.eos_token_id == own.config.eos_token_id
    assert tokens.chat_template == own_tokens.chat_template


@pytest.mark.parametrize(("tokenizer", "end"), [("base", 1), ("pivot", 0)])
def test_at_the_other_end_the_other_model_answers_on_the_tokens_that_both_have(parents, tokenizer, end, tmp_path):
    model, tokens = merged(views(parents, tokenizer, tmp_path), end, tmp_path / "merged")
    own, own_tokens = loaded(parents[end].folder)
    ids, theirs = own_tokens(TEXT).input_ids, tokens(TEXT).input_ids
    assert [tokens.convert_ids_to_tokens(i) for i in theirs] == [own_tokens.convert_ids_to_tokens(i) for i in ids]
    assert ids != theirs
    both = sorted(tokens.get_vocab().keys() & own_tokens.get_vocab().keys())
    assert len(both) > 400
    here, there = (torch.tensor(t.convert_tokens_to_ids(both)) for t in (tokens, own_tokens))
    assert torch.allclose(logits(model, theirs)[:, here], logits(own, ids)[:, there], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("end", [0, 1])
def test_a_union_answers_as_each_parent_on_its_own_tokens(parents, end, tmp_path):
    model, tokens = merged(views(parents, "union", tmp_path), end, tmp_path / "merged")
    own, own_tokens = loaded(parents[end].folder)
    text = "<|im_start|>user\n" + ("<|patient|> takes <|drug|> " if end else "") + TEXT
    ids, theirs = own_tokens(text).input_ids, tokens(text).input_ids
    assert [tokens.convert_ids_to_tokens(i) for i in theirs] == [own_tokens.convert_ids_to_tokens(i) for i in ids]
    assert tokens.decode(theirs) == text
    every = sorted(own_tokens.get_vocab())
    here, there = (torch.tensor(t.convert_tokens_to_ids(every)) for t in (tokens, own_tokens))
    # the rows are the parent's own, bit for bit; how a product of another length is summed is the library's affair
    assert torch.allclose(logits(model, theirs)[:, here], logits(own, ids)[:, there], rtol=1e-5, atol=1e-5)
    for matrix in ("get_input_embeddings", "get_output_embeddings"):
        mine, its = (getattr(one, matrix)().weight for one in (model, own))
        assert torch.equal(mine[here], its[there])
    assert model.config.vocab_size == 432
    assert logits(model, theirs).shape[-1] == 432


def test_union_keeps_the_base_ids_and_fills_its_empty_rows_first(parents, tmp_path):
    base, pivot = views(parents, "union", tmp_path)
    before = AutoTokenizer.from_pretrained(parents[0].folder).get_vocab()
    after = AutoTokenizer.from_pretrained(base.folder).get_vocab()
    assert before.items() <= after.items()
    new = sorted((index, token) for token, index in after.items() if token not in before)
    assert [index for index, _ in new] == list(range(420, 420 + len(new)))
    assert [token for _, token in new] == ["<|patient|>", "<|drug|>"]
    assert base.tensors[EMBEDDING].shape == pivot.tensors[EMBEDDING].shape == (432, 32)
    untouched = slice(422, 432)
    assert torch.equal(base.read(EMBEDDING)[untouched], parents[0].read(EMBEDDING)[untouched])
    assert torch.equal(pivot.read(EMBEDDING)[untouched], parents[0].read(EMBEDDING)[untouched])


def test_a_union_without_empty_rows_is_longer_than_either(tiny_base, make_tiny, tmp_path):
    pivot = Checkpoint(make_tiny(seed=2, extra_tokens=("<|patient|>", "<|drug|>")))
    base, pivot = views([Checkpoint(tiny_base), pivot], "union", tmp_path)
    assert base.config["vocab_size"] == pivot.config["vocab_size"] == 422
    assert json.loads((base.folder / "config.json").read_text())["vocab_size"] == 422
    for view in (base, pivot):
        header = view.tensors[EMBEDDING]
        assert header.shape == view.read(EMBEDDING).shape == (422, 32)
        assert header.nbytes == len(view.read_bytes(EMBEDDING)) == 422 * 32 * 2
        assert header.dtype == view.read(EMBEDDING).dtype == torch.bfloat16


def test_a_token_goes_by_its_owners_where_a_parent_lacks_it(parents, third, tmp_path):
    three = [*parents, third]
    vocabulary = common_vocabulary(three, NAMES, "union", tmp_path)
    base, pivot, other = (token_rows(vocabulary.view(parent, "x")) for parent in three)
    own = [token_rows(parent) for parent in three]
    assert torch.equal(pivot["<|unit|>"], own[2]["<|unit|>"])  # the only owner's
    assert torch.equal(base["<|patient|>"], own[1]["<|patient|>"])
    assert torch.equal(other["<|patient|>"], own[1]["<|patient|>"])
    mean = ((own[1]["<|drug|>"].double() + own[2]["<|drug|>"].double()) / 2).float()
    assert torch.equal(base["<|drug|>"], mean)  # two owners
    assert torch.equal(pivot["<|drug|>"], own[1]["<|drug|>"])
    assert torch.equal(other["<|drug|>"], own[2]["<|drug|>"])
    for token in own[0]:
        assert torch.equal(base[token], own[0][token])


def test_a_token_that_the_base_has_is_never_taken_from_another(parents, third, tmp_path):
    """Base third, which alone with pivot has <|drug|>: the parent without takes the base's row, not a mean."""
    base, pivot, plain = third, parents[1], parents[0]
    vocabulary = common_vocabulary([base, pivot, plain], NAMES, "base", tmp_path)
    found = token_rows(vocabulary.view(plain, "x"))
    assert torch.equal(found["<|drug|>"], token_rows(base)["<|drug|>"])
    assert "<|patient|>" not in found


def test_merging_leaves_a_token_as_its_owners_have_it(parents, tmp_path):
    base, pivot = views(parents, "union", tmp_path)
    at = evaluate(linear([base.read(EMBEDDING), pivot.read(EMBEDDING)]), 0.37, torch.empty(432, 32))
    row = AutoTokenizer.from_pretrained(base.folder).convert_tokens_to_ids("<|drug|>")
    assert torch.allclose(at[row], token_rows(parents[1])["<|drug|>"], rtol=1e-6, atol=0)


def test_an_ancestor_is_shown_with_the_same_rows(parents, third, tmp_path):
    vocabulary = common_vocabulary(parents, NAMES[:2], "union", tmp_path)
    ancestor = vocabulary.view(third, "the ancestor")
    rows, own = token_rows(ancestor), token_rows(third)
    assert ancestor.tensors[EMBEDDING].shape == (432, 32)
    assert torch.equal(rows["<|drug|>"], own["<|drug|>"])
    assert torch.equal(rows["<|patient|>"], token_rows(parents[1])["<|patient|>"])
    assert "<|unit|>" not in rows  # what only the ancestor has is in no output


def test_equal_vocabularies_are_passed_through(tiny_base, tiny_pivot, tmp_path):
    parents = [Checkpoint(tiny_base), Checkpoint(tiny_pivot)]
    for tokenizer in ("base", "pivot", "union"):
        for parent, view in zip(parents, views(parents, tokenizer, tmp_path), strict=True):
            assert view.tensors == parent.tensors
            assert all(view.read(name).data_ptr() == parent.read(name).data_ptr() for name in parent.tensors)


def test_other_tensors_are_the_mapped_files(parents, tmp_path):
    for parent, view in zip(parents, views(parents, "union", tmp_path), strict=True):
        assert list(view.tensors) == list(parent.tensors)
        changed = [name for name in parent.tensors if view.read(name).data_ptr() != parent.read(name).data_ptr()]
        assert changed == [EMBEDDING] if parent.tied else set(changed) == {EMBEDDING, "lm_head.weight"}


def test_rows_are_rounded_to_the_type_of_the_parent_that_takes_them(make_tiny, tmp_path):
    base = Checkpoint(make_tiny(seed=1))
    pivot = Checkpoint(make_tiny(seed=2, extra_tokens=("<|drug|>",), dtype=torch.float32))
    first, second = views([base, pivot], "union", tmp_path)
    assert torch.equal(token_rows(first)["<|drug|>"], token_rows(pivot)["<|drug|>"].bfloat16())
    assert torch.equal(token_rows(second)["<|drug|>"], token_rows(pivot)["<|drug|>"])


def test_a_head_stored_though_tied_is_reordered_with_its_embedding(make_tiny, tmp_path):
    base = Checkpoint(make_tiny(seed=1))
    folder = make_tiny(seed=2, extra_tokens=("<|drug|>",))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors[EMBEDDING].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    first, second = views([base, Checkpoint(folder)], "base", tmp_path)
    assert "lm_head.weight" not in align([first, second], NAMES[:2])
    assert torch.equal(second.read("lm_head.weight"), second.read(EMBEDDING))


def test_an_adapted_parent_is_shown_with_its_adapter(parents, tmp_path):
    module = "model.layers.0.self_attn.q_proj"
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "base_model_name_or_path": "tiny"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    factors = {f"base_model.model.{module}.lora_{x}.weight": torch.ones(s) for x, s in (("A", (1, 32)), ("B", (32, 1)))}
    save_file(factors, folder / "adapter_model.safetensors")
    adapted = AdaptedCheckpoint(parents[1], folder)
    view = views([parents[0], adapted], "base", tmp_path)[1]
    assert torch.equal(view.read(f"{module}.weight"), parents[1].read(f"{module}.weight") + 1)
    assert view.tensors[EMBEDDING].shape == (432, 32)
    plain = views(parents, "base", tmp_path)[1]
    assert content_hash(view, tmp_path) != content_hash(plain, tmp_path)


def test_the_content_hash_is_that_of_the_view_written_out(parents, tmp_path, monkeypatch):
    view = views(parents, "base", tmp_path)[1]
    written = tmp_path / "written"
    shutil.copytree(view.folder, written)
    write_safetensors(written / "model.safetensors", list(view.tensors.values()), view.read)
    assert content_hash(view, tmp_path) == content_hash(Checkpoint(written), tmp_path)
    assert identity.weights_hash(view, tmp_path) != identity.weights_hash(parents[1], tmp_path)
    other = views(parents, "union", tmp_path)[1]
    assert content_hash(other, tmp_path) != content_hash(view, tmp_path)
    monkeypatch.setattr(identity, "_weights_digest", lambda *any: pytest.fail("hashed again"))
    assert identity.weights_hash(views(parents, "base", tmp_path)[1], tmp_path) == identity.weights_hash(view, tmp_path)


def test_the_same_vocabulary_is_written_once_and_another_beside_it(parents, tmp_path):
    first, again = (views(parents, "union", tmp_path)[0].folder for _ in range(2))
    assert first == again
    assert first.parent == tmp_path / "vocabularies"
    assert views(parents, "base", tmp_path)[0].folder != first
    assert sorted(file.name for file in first.iterdir()) == [
        "chat_template.jinja", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


def test_a_token_beyond_the_embedding_gets_the_mean_row_in_a_union(make_tiny, tmp_path):
    folder = make_tiny(seed=1, dtype=torch.float32)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"].append(content["added_tokens"][0] | {"id": 420, "content": "[PAD]"})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    base = Checkpoint(folder)
    first, second = views([base, base], "union", tmp_path)
    for view in (first, second):
        assert view.config["vocab_size"] == 421
        assert torch.allclose(view.read(EMBEDDING)[420], base.read(EMBEDDING).mean(0))
        assert torch.equal(view.read(EMBEDDING)[:420], base.read(EMBEDDING))


def test_a_parent_without_tokenizer_is_read_through_one_of_its_size(parents, make_tiny, tmp_path):
    folder = make_tiny(seed=4, dtype=torch.float32, tie_word_embeddings=parents[0].tied, vocab_size=432)
    (folder / "tokenizer.json").unlink()
    bare = Checkpoint(folder)
    vocabulary = common_vocabulary([parents[1], parents[0], bare], NAMES, "base", tmp_path)
    view = vocabulary.view(bare, "bare")
    row = AutoTokenizer.from_pretrained(parents[0].folder).convert_tokens_to_ids("yes")
    assert torch.equal(token_rows(view)["yes"], bare.read(EMBEDDING)[row])
    later = common_vocabulary(parents, NAMES[:2], "base", tmp_path).view(bare, "the ancestor")
    assert torch.equal(later.read(EMBEDDING), bare.read(EMBEDDING))


def test_a_parent_without_tokenizer_and_of_another_size(parents, make_tiny, tmp_path):
    folder = make_tiny(seed=4, vocab_size=500)
    (folder / "tokenizer.json").unlink()
    bare = Checkpoint(folder)
    said = (
        "{} has no tokenizer.json, and no other parent has its number of token rows, 500, so that nothing says what "
        "they mean: put its tokenizer files into its folder."
    )
    assert refusal([*parents, bare], "union", tmp_path) == said.format("third")
    with pytest.raises(UserError) as caught:
        common_vocabulary(parents, NAMES[:2], "base", tmp_path).view(bare, "the ancestor")
    assert str(caught.value) == said.format("the ancestor")


def test_no_tokenizer_at_all(make_tiny, tmp_path):
    folders = [make_tiny(seed=seed, vocab_size=420 + seed) for seed in (1, 2)]
    for folder in folders:
        (folder / "tokenizer.json").unlink()
    assert refusal([Checkpoint(folder) for folder in folders], "base", tmp_path) == (
        "tokenizer=base: none of base, pivot has a tokenizer.json, so that nothing says which rows mean the same "
        "token: put each model's tokenizer files into its folder."
    )


def test_another_word_than_the_three(parents, tmp_path):
    assert refusal(parents, "both", tmp_path) == "tokenizer=both is not one of base, pivot, union."


def test_no_embedding_of_a_known_name(tiny_base, tmp_path):
    folder = shutil.copytree(tiny_base, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.words.weight"] = tensors.pop(EMBEDDING)
    save_file(tensors, folder / "model.safetensors")
    assert refusal([Checkpoint(tiny_base), Checkpoint(folder)], "base", tmp_path) == (
        "pivot has no tensor that ends in embed_tokens.weight, wte.weight, embed_in.weight, word_embeddings.weight, "
        "lm_head.weight, lm_head.bias, embed_out.weight: its vocabulary cannot be changed. Choose parents with the "
        "same tokenizer and leave tokenizer out."
    )


def test_an_embedding_and_a_head_of_two_lengths(tiny_base, tmp_path):
    folder = shutil.copytree(tiny_base, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"lm_head.weight": torch.zeros(400, 32)}, folder / "model.safetensors")
    assert refusal([Checkpoint(folder), Checkpoint(tiny_base)], "base", tmp_path) == (
        "base has not as many rows in its embedding as in its output head (lm_head.weight [400, 32], "
        "model.embed_tokens.weight [420, 32]): it is damaged."
    )
