"""What tokenizer files say, and one tokenizer out of several."""

import json

import pytest
from tokenizers import Tokenizer

from patientdx.checkpoints.tokenizer_files import read_tokens, union
from patientdx.core.errors import UserError


def write(folder, vocab, added=(), **rest):
    """A tokenizer.json in `folder`; `rest` are keys of its model or of the whole."""
    model = {"type": "BPE", "unk_token": None, "vocab": vocab, "merges": rest.pop("merges", [])}
    model |= {key: rest.pop(key) for key in list(rest) if key in ("type", "byte_fallback", "unk_id")}
    entry = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content = {
        "version": "1.0",
        "added_tokens": [entry | {"id": index, "content": token} for token, index in added],
        **dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")),
        **rest,
        "model": model,
    }
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return read_tokens(folder)


def joined(*parents):
    return union(parents, ["first", "second", "third"][: len(parents)])


def refusal(*parents):
    with pytest.raises(UserError) as caught:
        joined(*parents)
    return str(caught.value)


def letters(text, **more):
    return {letter: index for index, letter in enumerate(text)} | more


def test_unigram_vocabularies_are_lists(tmp_path):
    found = write(tmp_path, [["<unk>", 0.0], ["a", -1.0]], [("<s>", 2)], type="Unigram", unk_id=0)
    assert found.by_id == {0: "<unk>", 1: "a", 2: "<s>"}
    assert found.added == {"<s>"}


def test_a_folder_without_tokenizer_has_no_tokens(tmp_path):
    assert read_tokens(tmp_path).by_id == {}


def test_union_keeps_the_ids_of_the_first_and_adds_in_a_stated_order(tmp_path):
    first = write(tmp_path / "1", letters("ab", ab=2), [("<s>", 3)], merges=["a b"])
    second = write(tmp_path / "2", letters("bac", ca=3, ab=4), [("<t>", 5), ("<s>", 6)], merges=[["c", "a"], "a b"])
    third = write(tmp_path / "3", letters("ad", da=2), [("<u>", 3), ("<t>", 4)], merges=["d a"])
    found = joined(first, second, third)
    assert found.by_id == dict(enumerate(["a", "b", "ab", "<s>", "c", "ca", "d", "da", "<t>", "<u>"]))
    assert found.added == {"<s>", "<t>", "<u>"}
    assert found.content["model"]["merges"] == [["a", "b"], ["c", "a"], ["d", "a"]]
    tokenizer = Tokenizer.from_str(json.dumps(found.content))
    assert tokenizer.encode("ab<t>cada<s>d<u>").tokens == ["ab", "<t>", "ca", "da", "<s>", "d", "<u>"]
    assert tokenizer.encode("ab<t>cada<s>d<u>").ids == [2, 8, 5, 7, 3, 6, 9]
    assert joined(first, second, third).content == found.content


def test_a_gap_in_the_ids_stays_and_new_tokens_follow_the_highest(tmp_path):
    first = write(tmp_path / "1", letters("ab") | {"z": 9}, [("<s>", 12)])
    second = write(tmp_path / "2", letters("abc"), [("<t>", 3)])
    found = joined(first, second)
    assert found.by_id == {0: "a", 1: "b", 9: "z", 12: "<s>", 13: "c", 14: "<t>"}
    assert Tokenizer.from_str(json.dumps(found.content)).encode("z<s>c<t>").ids == [9, 12, 13, 14]


def test_a_plain_token_that_is_added_elsewhere_becomes_added_under_its_id(tmp_path):
    first = write(tmp_path / "1", letters("ab") | {"<t>": 2})
    found = joined(first, write(tmp_path / "2", letters("ab"), [("<t>", 2)]))
    assert (found.by_id, found.added) == ({0: "a", 1: "b", 2: "<t>"}, {"<t>"})
    assert Tokenizer.from_str(json.dumps(found.content)).encode("a<t>b").ids == [0, 2, 1]


def test_equal_tokenizers_are_their_own_union(tmp_path):
    first, second = (write(tmp_path / name, letters("ab", ab=2), [("<s>", 3)], merges=["a b"]) for name in "12")
    assert joined(first, second).content == first.content


def test_added_tokens_of_equal_unigram_vocabularies_are_joined(tmp_path):
    pieces = [["<unk>", 0.0], ["a", -1.0], ["b", -2.0]]
    first = write(tmp_path / "1", pieces, type="Unigram", unk_id=0)
    found = joined(first, write(tmp_path / "2", pieces, [("<t>", 3)], type="Unigram", unk_id=0))
    assert found.by_id == {0: "<unk>", 1: "a", 2: "b", 3: "<t>"}
    assert Tokenizer.from_str(json.dumps(found.content)).encode("ab<t>").ids == [1, 2, 3]


def test_different_unigram_vocabularies(tmp_path):
    first = write(tmp_path / "1", [["<unk>", 0.0], ["a", -1.0]], type="Unigram", unk_id=0)
    second = write(tmp_path / "2", [["<unk>", 0.0], ["a", -1.5]], type="Unigram", unk_id=0)
    assert refusal(first, second) == (
        "tokenizer=union cannot put the tokens of first and second into one tokenizer: they are Unigram and Unigram "
        "with different vocabularies, and only BPE ones can be joined. Set tokenizer=base or tokenizer=pivot."
    )


def test_other_rules_of_cutting(tmp_path):
    digits = {"type": "Digits", "individual_digits": True}
    first = write(tmp_path / "1", letters("ab"))
    second = write(tmp_path / "2", letters("abc"), pre_tokenizer=digits, byte_fallback=True)
    assert refusal(first, second) == (
        "tokenizer=union cannot put the tokens of first and second into one tokenizer: they cut text by different "
        "rules (pre_tokenizer); their BPE differs in byte_fallback. Set tokenizer=base or tokenizer=pivot."
    )


def test_no_tokenizer_json(tmp_path):
    first = write(tmp_path / "1", letters("ab"))
    assert refusal(first, read_tokens(tmp_path)) == (
        "tokenizer=union writes one tokenizer.json, and second has none: write it with "
        "AutoTokenizer.from_pretrained(...).save_pretrained(...), or set tokenizer=base or tokenizer=pivot."
    )


def test_ids_that_the_kind_of_tokenizer_cannot_keep(tmp_path):
    pieces = [["<unk>", 0.0], ["a", -1.0]]
    first = write(tmp_path / "1", pieces, [("<s>", 7)], type="Unigram", unk_id=0)
    assert refusal(first, first) == (
        "tokenizer=union cannot keep the ids of this kind of tokenizer: '<s>' from 7 to 2. "
        "Set tokenizer=base or tokenizer=pivot."
    )


def test_the_same_letters_in_another_convention_are_another_token(tmp_path):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    first = write(tmp_path / "1", letters("aé"), [("<é>", 2)], pre_tokenizer=byte_level)
    second = write(tmp_path / "2", letters("aé"), [("<é>", 2)])
    assert (first.byte_level, second.byte_level) == (True, False)
    assert [first.means_in(second, token) for token in ("a", "é", "<é>")] == [True, False, True]
    assert first.means_in(first, "é")
