"""Official folders with files beside the data, files beside their copies, and questions that are asked twice."""

import json
from collections import Counter
from pathlib import Path

import pytest
from pair_files import dialogues, notes, write_csv
from tasks_by_yaml import load

from patientdx.core.errors import UserError


def written(path: Path, lines: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def questions(*numbers: int, **more) -> list[dict]:
    return [{"question": f"Which, {i}?", "options": ["one", "two"], "answer_idx": "A"} | more for i in numbers]


def problems(*numbers: int, how: str = "It is") -> list[dict]:
    return [{"question": f"How many, {i}?", "answer": f"{how} {i}.\n#### {i}"} for i in numbers]


def test_the_official_folder_of_gsm8k_holds_each_problem_once(tmp_path):
    for split, numbers in (("train", range(6)), ("test", range(6, 9))):
        written(tmp_path / f"{split}.jsonl", problems(*numbers))
        written(tmp_path / f"{split}_socratic.jsonl", problems(*numbers, how="How many is it? **"))
    data = load("gsm8k", path=str(tmp_path), shots=1)
    assert Counter(one.split for one in data.examples) == {"train": 6, "test": 3}
    assert not any("**" in one.prefix for one in data.examples)
    assert set(data.provenance["source"]) == {"train.jsonl", "test.jsonl"}
    single = load("gsm8k", path=str(tmp_path / "test_socratic.jsonl"))  # who names it wants it
    assert len(single.examples) == 3


def test_the_official_folder_of_aci_bench_is_read_without_its_metadata(tmp_path):
    for name in ("train", "valid", "clinicalnlp_taskB_test1"):
        rows = [["aci", f"D2N{name}{i}", f"[doctor] {name} {i}", "PLAN"] for i in range(2)]
        write_csv(tmp_path / f"{name}.csv", ["dataset", "encounter_id", "dialogue", "note"], rows)
        write_csv(tmp_path / f"{name}_metadata.csv", ["dataset", "encounter_id", "cc"], [["aci", "D2N1", "cough"]])
    data = load("dialogue_to_note", path=str(tmp_path))
    assert Counter(one.split for one in data.examples) == {"train": 2, "pilot": 2, "test": 2}
    assert set(data.provenance["source"]) == {"train.csv", "valid.csv", "clinicalnlp_taskB_test1.csv"}


def test_a_file_beside_its_copy_is_refused_whichever_is_the_larger(tmp_path):
    written(tmp_path / "a_test.jsonl", questions(1, 2))
    written(tmp_path / "test.jsonl", questions(0, 1, 2, answer_idx="B"))
    message = r"^Every question of a_test\.jsonl is in another file of the test split too \(a_test\.jsonl line 1 is "
    with pytest.raises(UserError, match=message + r"test\.jsonl line 2\), so each would count twice"):
        load("medqa", path=str(tmp_path))
    written(tmp_path / "a_test.jsonl", questions(2, 3))  # in part the same: both are asked
    assert len(load("medqa", path=str(tmp_path)).examples) == 5
    (tmp_path / "a_test.jsonl").rename(tmp_path / "a_dev.jsonl")  # of another split
    written(tmp_path / "a_dev.jsonl", questions(1, 2))
    assert len(load("medqa", path=str(tmp_path)).examples) == 5
    written(tmp_path / "gsm" / "test.jsonl", problems(1, 2))
    written(tmp_path / "gsm" / "test_new.jsonl", problems(1, 2, how="Thus"))
    with pytest.raises(UserError, match=r"Every question of test_new\.jsonl is in another file of the test split too"):
        load("gsm8k", path=str(tmp_path / "gsm"))
    (tmp_path / "mts").mkdir()
    for name in ("x_test.csv", "y_test.csv"):
        dialogues(tmp_path / "mts" / name, 3)
    with pytest.raises(UserError, match=r"Every question of y_test\.csv is in another file of the test split too"):
        load("dialogue_to_section", path=str(tmp_path / "mts"))


def test_a_question_that_is_asked_twice_is_counted_and_drawn_as_one(tmp_path):
    path = written(tmp_path / "test.jsonl", [*questions(0, 1, 1), *questions(1, options=["one", "three"])])
    data = load("multiple_choice", path=str(path))
    uids = [one.uid for one in data.examples]
    assert len(set(uids)) == 4  # other options make another question
    assert [one.subject for one in data.examples] == [uids[0], uids[1], uids[1], uids[3]]
    assert data.cohort[1:] == [{"step": "asked, not train", "questions": 4}, {"step": "different ones", "questions": 3}]
    path = written(tmp_path / "gsm.jsonl", problems(5, 5, 6))
    data = load("gsm8k", path=str(path))
    assert [one.subject for one in data.examples] == ["gsm8k:gsm.jsonl line 1"] * 2 + ["gsm8k:gsm.jsonl line 3"]
    assert data.cohort[-1] == {"step": "different ones", "problems": 2}


def test_splits_that_are_drawn_anew_keep_equal_questions_together(tmp_path):
    for name in ("train", "test"):
        written(tmp_path / f"{name}.jsonl", questions(*range(30)))
    parts_of = {"pilot": 0.5, "test": 0.5}
    loaded = load("multiple_choice", path=str(tmp_path), fractions=parts_of).examples
    assert len(loaded) == 60
    splits = {(one.suffix, one.split) for one in loaded}
    assert len(splits) == 30
    assert {split for _, split in splits} == {"pilot", "test"}


def test_equal_texts_are_one_in_a_benchmark_and_patients_apart_in_a_hospital(tmp_path):
    rows = [["CC", "Cough.", "Doctor: hi"], ["CC", "Cough.", "Doctor: hi"], ["CC", "Pain.", "Doctor: hi"]]
    path = write_csv(tmp_path / "mine.csv", ["section_header", "section_text", "dialogue"], rows)
    data = load("dialogue_to_section", path=str(path))
    assert [one.subject.split()[-1] for one in data.examples] == ["2", "2", "4"]
    assert data.cohort[-1] == {"step": "different ones", "items": 2}
    path = notes(tmp_path / "discharge.csv", 1)
    head, *lines = path.read_text().split("\n100,")
    path.write_text("\n".join([head, f"100,{lines[0]}", f"101,{lines[0]}", f"101,{lines[0]}", ""]))
    data = load("hospital_course", path=str(path))
    assert [one.subject.rpartition(" ")[2] for one in data.examples] == ["100", "101", "101"]
    assert data.cohort[-1] == {"step": "different ones", "items": 2}
