"""The rules of IFEval: lm-eval's verdicts on answers that it judged, corners by hand, and files that will not do."""

import json
from pathlib import Path

import pytest
from tasks_by_yaml import load

from patientdx.tasks.ifeval import METRICS, judged
from patientdx.tasks.ifeval_rules import RULES, loose, strict
from patientdx.tasks.sentences import sentences, words

# Made by experiments/benchmarks/ifeval.py --fixture: answers of our own, and what lm-eval 0.4.13 says of them.
VERDICTS = [json.loads(line) for line in (Path(__file__).parent / "ifeval_verdicts.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", sorted(RULES))
def test_verdicts_are_those_of_lm_eval(kind):
    loaded = [example for example in VERDICTS if example["kind"] == kind]
    assert {example["strict"] for example in loaded} == {True, False}
    for example in loaded:
        keys = example["answer"], kind, example["arguments"]
        assert (strict(*keys), loose(*keys)) == (example["strict"], example["loose"]), example


def test_an_empty_answer_follows_nothing():
    for kind in ("punctuation:no_comma", "detectable_format:json_format", "change_case:english_lowercase"):
        assert not strict(" \n", kind, {})
        assert not loose(" \n", kind, {})


def test_an_answer_that_opens_brackets_for_ever_is_no_json():
    assert not strict("[" * 100_000, "detectable_format:json_format", {})


def test_loose_forgives_a_first_line_a_last_line_and_asterisks():
    requested = "startend:quotation", {}
    for answer in ('Sure:\n"It is."', '"It is."\nHope this helps', 'Sure:\n"It is."\nBye', '*"It is."*'):
        assert (strict(answer, *requested), loose(answer, *requested)) == (False, True)
    assert not loose('Sure:\n\n"It is." I say\nBye', *requested)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Dr. Ames went home at 5 p.m. and slept. He dreamt.", 2),
        ("He left the U.S. The end.", 2),
        ("the cat sat. the dog ran.", 2),
        ("He paid 3.50 dollars. No more.", 2),
        ("Well... perhaps. Well... The end. Well... Then.", 4),
        ('He said "no." She left (at last). Why?! So.', 4),
        ("A line\nand another", 1),
        ("J. Smith came.", 1),
        ("", 0),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text, count):
    assert len(sentences(text)) == count
    assert "".join(sentences(text)).replace(" ", "") == text.replace(" ", "")


def test_words_are_parted_as_in_the_treebank():
    assert words("IT'S a WELL-KNOWN fact: YOU CAN'T, we CANNOT.") == (
        ["IT", "'S", "a", "WELL-KNOWN", "fact", ":", "YOU", "CA", "N'T", ",", "we", "CAN", "NOT", "."]
    )


def test_instructions_count_one_by_one_and_all_together():
    requested = (
        ("punctuation:no_comma", {}),
        ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}),
    )
    loaded = judged("One two three four", requested)
    assert loaded == dict.fromkeys(METRICS, (1, 2))
    assert judged("One two", requested) == dict.fromkeys(METRICS, (2, 2))


def line(**more) -> dict:
    return {"key": 2, "prompt": "Say it.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]} | more


def test_a_file_in_either_form_gives_the_prompts(tmp_path):
    path = tmp_path / "input_data.jsonl"
    kinds = ["en:keywords:existence", "keywords:existence"]
    rows = [
        line(key=i, instruction_id_list=[kind], kwargs=[{"keywords": ["a"], "num_words": None}])
        for i, kind in enumerate(kinds)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    data = load("ifeval", path=str(path), new_tokens=9)
    assert [(example.suffix, example.split, example.options) for example in data.examples] == [
        ("Say it.", "test", ())
    ] * 2
    assert (data.kind, data.generation.length, data.generation.metrics) == ("generation", 9, METRICS)
    assert data.generation.judge(0, "a") == data.generation.judge(1, "a") == dict.fromkeys(METRICS, (1, 1))
    assert len(load("ifeval", path=str(path), limit=1).examples) == 1
    assert load("ifeval", path=str(path)).fingerprint != data.fingerprint


def test_numbers_of_a_copy_that_are_written_as_fractions_are_judged_as_whole_ones(tmp_path):
    path = tmp_path / "input_data.jsonl"
    keys = {"num_paragraphs": 2.0, "nth_paragraph": 2.0, "first_word": "so"}
    kind = "length_constraints:nth_paragraph_first_word"
    path.write_text(json.dumps(line(instruction_id_list=[kind], kwargs=[keys])) + "\n")
    judge = load("ifeval", path=str(path)).generation.judge
    assert judge(0, "First.\n\nSo it is.") == dict.fromkeys(METRICS, (1, 1))
    assert judge(0, "First.\n\nThus.") == dict.fromkeys(METRICS, (0, 1))
