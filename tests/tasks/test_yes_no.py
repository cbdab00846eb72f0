"""Texts of a hospital's own with labels: what is read of them, how patients are divided, and what is refused."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from own_files import QUESTION, notes, write
from tasks_by_yaml import load

from patientdx.core.errors import UserError
from patientdx.tasks.example import TaskData


def loaded(path, **keys: Any) -> TaskData:
    return load("yes_no", path=str(path), **{"question": QUESTION} | keys)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_every_format_gives_the_same_examples(tmp_path, suffix):
    rows = notes()
    data = loaded(write(tmp_path / f"notes.{suffix}", rows))
    usual = loaded(write(tmp_path / "notes.tsv.csv", rows))
    assert len(data.examples) == 80
    assert [(e.subject, e.split, e.context, e.label) for e in data.examples] == [
        (e.subject, e.split, e.context, e.label) for e in usual.examples
    ]
    by_text = {row["text"]: row for row in rows}
    for example in data.examples:
        row = by_text[example.context]
        assert (example.subject, example.label) == (str(row["patient_id"]), row["label"])
        assert example.suffix == f"\n\n{QUESTION}"
    assert data.open_data is False
    assert data.cohort[0] == {"step": "rows", "texts": 80, "patients": 40, "events": sum(r["label"] for r in rows)}


def test_a_patient_is_in_one_split_and_the_seed_draws_it(tmp_path):
    path = write(tmp_path / "notes.csv", notes())
    splits = [{(e.subject, e.split) for e in loaded(path, seed=seed).examples} for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    assert len(splits[0]) == 40
    assert {split for _, split in splits[0]} == {"train", "pilot", "test"}


def test_splits_of_the_file_are_taken_and_null_draws_them(tmp_path):
    rows = [row | {"Split": ("train", "tuning", "held_out")[row["patient_id"] % 3]} for row in notes()]
    path = write(tmp_path / "notes.csv", rows)
    expected = {"train": "train", "tuning": "pilot", "held_out": "test"}
    of = {str(row["patient_id"]): expected[row["Split"]] for row in rows}
    assert all(example.split == of[example.subject] for example in loaded(path).examples)
    assert any(example.split != of[example.subject] for example in loaded(path, split_column=None).examples)


def test_a_folder_has_a_file_for_each_split(tmp_path):
    rows = notes()
    for name, part in (("train.csv", rows[:20]), ("valid.csv", rows[20:40]), ("test.csv", rows[40:])):
        write(tmp_path / "set" / name, part)
    data = loaded(tmp_path / "set")
    assert [sum(e.split == split for e in data.examples) for split in ("train", "pilot", "test")] == [20, 20, 40]


def test_columns_labels_and_ids_go_by_the_names_that_are_set(tmp_path):
    rows = [
        {"Note": row["text"], "Died": "Died" if row["label"] else "survived", "mrn": float(row["patient_id"]), "n": i}
        for i, row in enumerate(notes())
    ]
    path = write(tmp_path / "notes.parquet", rows)
    names = {"text_column": "note", "label_column": "died", "patient_column": "MRN", "id_column": "n"}
    data = loaded(path, **names, labels={"died": 1, "survived": 0})
    usual = loaded(write(tmp_path / "notes.csv", notes()))
    assert {(e.subject, e.label, e.context) for e in data.examples} == {
        (e.subject, e.label, e.context) for e in usual.examples
    }
    assert {e.uid for e in data.examples} == {str(i) for i in range(80)}


def test_booleans_are_labels_and_a_limit_keeps_the_same_rows_of_each_split(tmp_path):
    rows = [row | {"label": bool(row["label"])} for row in notes()]
    data = loaded(write(tmp_path / "notes.parquet", rows), limit=5)
    assert [sum(e.split == split for e in data.examples) for split in ("train", "pilot", "test")] == [5, 5, 5]
    everything = {e.uid: e for e in loaded(tmp_path / "notes.parquet").examples}
    assert all(everything[e.uid] == e for e in data.examples)
    assert data.cohort[1]["texts"] == 15


def test_numeric_columns_are_features_in_the_order_of_the_examples(tmp_path):
    rows = [row | {"lactate": ""} if i == 3 else row for i, row in enumerate(notes())]
    data = loaded(write(tmp_path / "notes.csv", rows), features=["lactate"])
    of = {row["text"]: row["lactate"] for row in rows}
    values = [float("nan") if of[e.context] == "" else of[e.context] for e in data.examples]
    np.testing.assert_array_equal(data.features.values[:, 0], values)
    assert data.features.names == ("lactate",)
    assert loaded(tmp_path / "notes.csv").features is None


def test_another_question_text_label_or_split_is_another_fingerprint(tmp_path):
    path = write(tmp_path / "notes.csv", notes())
    prints = {loaded(path).fingerprint, loaded(path, question="Is it? Answer yes or no.").fingerprint,
              loaded(path, seed=1).fingerprint}  # fmt: skip
    rows = notes()
    rows[0]["label"] = 1 - rows[0]["label"]
    prints.add(loaded(write(tmp_path / "other.csv", rows)).fingerprint)
    assert len(prints) == 4


def test_texts_that_patients_of_different_splits_share_are_counted(tmp_path, caplog):
    rows = [row | {"split": "train" if i < 40 else "test"} for i, row in enumerate(notes())]
    rows[70]["text"] = rows[0]["text"]
    with caplog.at_level(logging.WARNING):
        loaded(write(tmp_path / "notes.csv", rows))
    assert "1 texts occur in more than one split, under different patients" in caplog.text


def changed(**cells: Any) -> Callable[[list[dict]], list[dict]]:
    """The rows with other cells in the third one, which is line 4 of a csv."""
    return lambda rows: [row | cells if i == 2 else row for i, row in enumerate(rows)]


def without(column: str) -> Callable[[list[dict]], list[dict]]:
    return lambda rows: [{key: value for key, value in row.items() if key != column} for row in rows]


BAD = {  # change of the rows, keys, message
    "no text column": (without("text"), {}, "notes.csv line 2: there is no column text among its 3 columns. Set "),
    "no label column": (without("label"), {}, "there is no column label among its 3 columns"),
    "no patient column": (without("patient_id"), {}, "there is no column patient_id among its 3 columns. Set "
                          "task.patient_column to the column's name"),
    "no split column": (changed(), {"split_column": "fold"}, "there is no column fold among its 4 columns"),
    "no feature column": (changed(), {"features": ["age"]}, "there is no column age among its 4 columns"),
    "an empty text": (changed(text=" "), {}, "notes.csv line 4: column text is empty"),
    "no patient": (changed(patient_id=""), {}, "notes.csv line 4: column patient_id is empty"),
    "no label": (changed(label=""), {}, "notes.csv line 4: column label is empty. A label is 0 or 1"),
    "a word for a label": (changed(label="Yes"), {}, "line 4: the label in column label is yes, neither 0 nor 1. "
                           "Say what the words mean: 'task.labels={yes: 1, no: 0}'"),
    "a number for a label": (changed(label=2), {}, "line 4: the label in column label is neither 0 nor 1"),
    "an unmapped label": (changed(), {"labels": {"died": 1, "survived": 0}}, "line 2: the label in column label is no"),
    "a bad mapping": (changed(), {"labels": {"died": 1}}, "task.labels maps every value of the label's column"),
    "one class": (lambda rows: [row | {"label": 0} for row in rows], {}, "notes.csv: every label in column label is 0"),
    "an id twice": (lambda rows: [row | {"n": max(i, 1)} for i, row in enumerate(rows)], {"id_column": "n"},
                    "notes.csv line 3: column n has the id of notes.csv line 2 again"),
    "a patient in two splits": (lambda rows: [row | {"split": "train" if i else "test"} for i, row in enumerate(rows)],
                                {}, "notes.csv line 3: its patient is in train, and in test at notes.csv line 2"),
    "another split": (lambda rows: [row | {"split": "fold 1"} for row in rows], {},
                      "notes.csv line 2: column split holds none of train, pilot, test"),
    "text for a number": (changed(lactate="SECRET"), {"features": ["lactate"]},
                          "notes.csv line 4: column lactate is no number"),
    "an infinite number": (changed(lactate="inf"), {"features": ["lactate"]}, "line 4: column lactate is infinite"),
    "the label as a feature": (changed(), {"features": ["Label"]},
                               "task.features: Label is the column of task.label_column"),
    "a feature twice": (changed(), {"features": ["lactate", "Lactate"]}, "task.features: Lactate occurs twice"),
    "a copy of the label": (lambda rows: [row | {"died": row["label"]} for row in rows], {"features": ["died"]},
                            "died: this feature alone separates every event from every non-event"),
    "a time of death": (lambda rows: [row | {"hours": 5 if row["label"] else ""} for row in rows],
                        {"features": ["lactate", "hours"]}, "hours: this feature alone separates every event"),
    "no question": (changed(), {"question": None}, "task.question is missing: ask so that Yes means label 1"),
    "no rows": (lambda rows: [], {}, "notes.csv holds no rows below its header"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named_with_line_or_column_and_no_value(tmp_path, case):
    change, keys, message = BAD[case]
    rows = change([row | {"text": f"SECRET {row['text']}"} for row in notes()])
    path = tmp_path / "notes.csv"
    if rows:
        write(path, rows)
    else:
        path.write_text("text,label,patient_id\n")
    with pytest.raises(UserError) as refused:
        loaded(path, **keys)
    assert message in str(refused.value)
    assert "SECRET" not in str(refused.value)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "notes.csv").write_bytes("text,label,patient_id\ncafé,1,2\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"notes\.csv is not UTF-8"):
        loaded(tmp_path / "notes.csv")
    (tmp_path / "notes.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"notes\.parquet is no parquet file"):
        loaded(tmp_path / "notes.parquet")
    (tmp_path / "notes.docx").write_bytes(b"x")
    with pytest.raises(UserError, match=r"notes\.docx: rows are read from"):
        loaded(tmp_path / "notes.docx")
    with pytest.raises(UserError, match=r"task\.path is missing: yes_no is read from a local file"):
        load("yes_no", question=QUESTION)
    rows = notes()
    for name in ("train.csv", "training.csv", "test.csv"):
        write(tmp_path / "set" / name, rows)
    with pytest.raises(UserError, match="its patient is in train, and in test at"):
        loaded(tmp_path / "set")
