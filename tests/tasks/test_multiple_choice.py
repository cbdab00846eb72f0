"""Files of questions as benchmarks have them: what is read, how it is asked, what is shown, what is refused."""

import csv
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tasks_by_yaml import load

from patientdx.core.errors import UserError
from patientdx.tasks.question_sets import SUBJECTS

OPTIONS = ["fever", "cough, dry", "0.01", "none"]


def lines(path: Path, *rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def row(i: int = 0, **more) -> dict:
    return {
        "question": f"Which one, {i}?",
        "options": dict(zip("ABCD", OPTIONS, strict=True)),
        "answer_idx": "B",
    } | more


def only(path: Path, **more):
    (loaded,) = load("multiple_choice", path=str(path), **more).examples
    return loaded


SHAPES = {
    "a mapping and a letter": {"options": dict(zip("ABCD", OPTIONS, strict=True)), "answer_idx": "B"},
    "a list and a number": {"choices": OPTIONS, "answer": 1},
    "a list and the text": {"choices": OPTIONS, "answer": "Cough, dry"},
    "labels and texts": {"choices": {"text": OPTIONS, "label": ["1", "2", "3", "4"]}, "answerKey": "2"},
    "columns and a count from 1": dict(zip(("op1", "op2", "op3", "op4"), OPTIONS, strict=True)) | {"cop": 2},
    "columns and a letter": dict(zip("ABCD", OPTIONS, strict=True)) | {"answer": "b"},
    "endings and a label": {f"ending{i}": text for i, text in enumerate(OPTIONS)} | {"label": 1},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_benchmark_is_the_same_question(tmp_path, shape):
    requested = {"sent1" if "ending0" in SHAPES[shape] else "question": "Which one?"}
    more = {"answers_from": 1} if "cop" in SHAPES[shape] else {}
    loaded = only(lines(tmp_path / "test.jsonl", requested | SHAPES[shape]), **more)
    assert loaded.prefix + loaded.context + loaded.suffix == (
        "Question: Which one?\nA. fever\nB. cough, dry\nC. 0.01\nD. none\nAnswer:"
    )
    assert (loaded.options, loaded.gold, loaded.split) == ((("A",), ("B",), ("C",), ("D",)), 1, "test")


def test_csv_tsv_json_and_parquet_hold_the_same(tmp_path):
    header, values = ["question", "A", "B", "C", "D", "answer"], ["Which\none?", *OPTIONS, "B"]
    for suffix, mark in ((".csv", ","), (".tsv", "\t")):
        with (tmp_path / f"test{suffix}").open("w", newline="") as file:
            csv.writer(file, delimiter=mark).writerows([header, values])
    with (tmp_path / "bare_test.csv").open("w", newline="") as file:  # as MMLU has it
        csv.writer(file).writerow(values)
    named = dict(zip(header, values, strict=True))
    (tmp_path / "test.json").write_text(json.dumps([named]))
    (tmp_path / "ids_test.json").write_text(json.dumps({"17": named}))
    pq.write_table(pa.Table.from_pylist([named]), tmp_path / "test.parquet")
    loaded = [only(path) for path in sorted(tmp_path.iterdir())]
    assert len(loaded) == 6
    assert len({(each.suffix, each.options, each.gold) for each in loaded}) == 1


def test_by_text_the_options_are_not_listed_and_lengths_may_differ(tmp_path):
    loaded = only(lines(tmp_path / "test.jsonl", row()), answer="text")
    assert loaded.suffix == "Question: Which one, 0?\nAnswer:"
    assert loaded.options == tuple((text,) for text in OPTIONS)


def test_worked_examples_come_from_train_alone_seeded_and_never_show_the_question_itself(tmp_path):
    lines(tmp_path / "train.jsonl", *(row(i) for i in range(6)))
    lines(tmp_path / "test.jsonl", row(3), row(7), row(8))
    loaded = load("multiple_choice", path=str(tmp_path), shots=2)
    assert Counter(each.split for each in loaded.examples) == {"test": 3}
    for each in loaded.examples:
        shown = each.prefix.split("\n\n")[:-1]
        assert len(shown) == 2
        assert all(example.endswith("\nAnswer: B") for example in shown)
        assert each.suffix.splitlines()[0] not in each.prefix
    assert loaded.examples[1].prefix == loaded.examples[2].prefix
    again, other = (load("multiple_choice", path=str(tmp_path), shots=2, seed=seed) for seed in (0, 5))
    assert again.fingerprint == loaded.fingerprint
    assert other.fingerprint != loaded.fingerprint
    all_shown = {
        load("multiple_choice", path=str(tmp_path), shots=5, seed=seed).examples[0].prefix for seed in range(3)
    }
    assert len(all_shown) > 1


def test_files_have_their_splits_and_shares_draw_others(tmp_path):
    for name in ("train", "dev", "test"):
        lines(tmp_path / name / f"sodium_{name}.jsonl", *(row(i) for i in range(20)))
    (tmp_path / "notes.jsonl").write_text("not a split\n")
    loaded = load("multiple_choice", path=str(tmp_path))
    assert Counter(each.split for each in loaded.examples) == {"pilot": 20, "test": 20}
    drawn = load("multiple_choice", path=str(tmp_path), fractions={"pilot": 0.5, "test": 0.5})
    assert len(drawn.examples) == 60
    assert len({each.uid for each in drawn.examples}) == 60
    few = load("multiple_choice", path=str(tmp_path), limit=4)
    assert Counter(each.split for each in few.examples) == {"pilot": 4, "test": 4}
    assert {each.uid for each in few.examples} < {each.uid for each in loaded.examples}


def test_medmcqa_lists_choices_and_reports_dev_as_its_test_has_no_key(tmp_path):
    columns = dict(zip(("opa", "opb", "opc", "opd"), OPTIONS, strict=True))
    lines(tmp_path / "dev.jsonl", *({"question": f"Which {i}?", "cop": 1 + i % 4} | columns for i in range(4)))
    lines(tmp_path / "test.jsonl", {"question": "Which?"} | columns)
    loaded = load("medmcqa", path=str(tmp_path)).examples
    assert [(each.gold, each.split) for each in loaded] == [(0, "test"), (1, "test"), (2, "test"), (3, "test")]
    assert loaded[0].suffix == "Question: Which 0?\nChoices:\nA. fever\nB. cough, dry\nC. 0.01\nD. none\nAnswer:"


def test_a_column_cop_says_itself_where_it_counts_from_or_the_user_must(tmp_path):
    columns = dict(zip(("opa", "opb", "opc", "opd"), OPTIONS, strict=True))
    path = lines(tmp_path / "test.jsonl", *({"question": "Which?", "cop": cop} | columns for cop in (0, 3)))
    assert [each.gold for each in load("medmcqa", path=str(path)).examples] == [0, 3]
    lines(path, *({"question": "Which?", "cop": cop} | columns for cop in (1, 3)))
    with pytest.raises(UserError, match=r"answer by 1 to 3 in column cop, .* Say which: task\.answers_from=1\."):
        load("medmcqa", path=str(path))
    assert [each.gold for each in load("medmcqa", path=str(path), answers_from=1).examples] == [0, 2]


def test_pubmedqa_reads_the_official_files_and_copies_with_the_abstract_in_the_question(tmp_path):
    items = {
        str(i): {"QUESTION": f"Does it {i}?", "CONTEXTS": ["One part.", "Another."], "final_decision": "maybe"}
        for i in range(60)
    }
    folder = tmp_path / "official"
    folder.mkdir()
    (folder / "ori_pqal.json").write_text(json.dumps(items))
    with pytest.raises(UserError, match=r"needs test_ground_truth\.json beside it"):
        load("pubmedqa", path=str(folder))
    (folder / "test_ground_truth.json").write_text(json.dumps({str(i): "maybe" for i in range(30)}))
    loaded = load("pubmedqa", path=str(folder)).examples
    count = Counter(each.split for each in loaded)
    assert count["test"] == 30
    assert 0 < count["pilot"] < 15
    each = loaded[-1]
    assert (each.prefix, each.context) == ("Abstract: ", "One part.\nAnother.")
    assert each.suffix.startswith("\nQuestion: Does it ")
    assert each.suffix.endswith("?\nAnswer:")
    assert (each.options, each.gold) == ((("yes",), ("no",), ("maybe",)), 2)
    copy = {
        "question": "One part.\nAnother.\nDoes it?",
        "options": {"A": "yes", "B": "no", "C": "maybe"},
        "answer_idx": "C",
    }
    (loaded,) = load("pubmedqa", path=str(lines(tmp_path / "test.jsonl", copy))).examples
    assert (loaded.context, loaded.suffix) == ("One part.\nAnother.", "\nQuestion: Does it?\nAnswer:")


def mmlu(folder: Path) -> Path:
    for subject in (*SUBJECTS, "astronomy"):
        for split, count in (("dev", 5), ("val", 3), ("test", 4)):
            (folder / split).mkdir(parents=True, exist_ok=True)
            with (folder / split / f"{subject}_{split}.csv").open("w", newline="") as file:
                csv.writer(file).writerows(
                    [[f" {subject} {split} {i}? ", *OPTIONS, "ABCD"[i % 4]] for i in range(count)]
                )
    return folder


def test_mmlu_has_six_subjects_with_their_own_examples_and_description(tmp_path):
    loaded = load("mmlu_medical", path=str(mmlu(tmp_path)), shots=5)
    assert Counter(loaded.groups["set"]) == dict.fromkeys(SUBJECTS, 7)
    assert Counter(each.split for each in loaded.examples) == {"pilot": 18, "test": 24}
    each = next(e for e, s in zip(loaded.examples, loaded.groups["set"], strict=True) if s == "college_biology")
    assert each.prefix.startswith(
        "The following are multiple choice questions (with answers) about college biology.\n\n"
    )
    assert each.prefix.count("college_biology dev ") == 5
    assert each.suffix.startswith("college_biology ")
    (tmp_path / "test" / "anatomy_test.csv").unlink()
    with pytest.raises(UserError, match="has no test questions of anatomy"):
        load("mmlu_medical", path=str(tmp_path))


def test_the_group_has_nine_sets_each_asked_its_own_way(tmp_path):
    parts = {
        "medqa": lines(tmp_path / "medqa" / "test.jsonl", row(), row(1)),
        "medmcqa": lines(tmp_path / "medmcqa" / "test.jsonl", row(), row(1)),
        "pubmedqa": lines(tmp_path / "pubmedqa" / "test.jsonl", row(question="An abstract.\nDoes it?")),
        "mmlu_medical": mmlu(tmp_path / "mmlu"),
    }
    loaded = load("medical_qa", **{name: str(path) for name, path in parts.items()})
    assert len(set(loaded.groups["set"])) == 9
    requested = {name: each for each, name in zip(loaded.examples, loaded.groups["set"], strict=True)}
    assert "Choices:" in requested["medmcqa"].suffix
    assert requested["pubmedqa"].options[0] == ("fever",)
    assert requested["anatomy"].prefix.startswith("The following")
    by_text = load("medical_qa", **{name: str(path) for name, path in parts.items()}, answer="text")
    assert all(len(each.options[0][0]) > 1 and "Choices:" not in each.suffix for each in by_text.examples)
    by_letter = load("medical_qa", **{name: str(path) for name, path in parts.items()}, answer="letter")
    assert {each.options[:2] for each in by_letter.examples} == {(("A",), ("B",))}
    assert [each.uid for each in by_text.examples] == [each.uid for each in by_letter.examples]
    assert len({each.fingerprint for each in (loaded, by_text, by_letter)}) == 3
    lines(tmp_path / "medqa" / "train.jsonl", *map(row, range(5)))
    taught = load("medical_qa", **{name: str(path.parent if name == "medqa" else path) for name, path in parts.items()},
                             train_limit=3)  # fmt: skip
    assert Counter(each.split for each in taught.examples)["train"] == 2 * 3  # of MedQA and of MMLU, which have train
    assert [each for each in taught.examples if each.split == "test"] == [
        each for each in loaded.examples if each.split == "test"
    ]
    with pytest.raises(UserError, match=r"task\.medmcqa is missing: medmcqa is read from a local file"):
        load("medical_qa", medqa=str(parts["medqa"]))
