"""Stays of any hospital with labels: the same stays in four layouts, what is read of them, and what is refused."""

import json
import logging
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from own_files import QUESTION
from own_hospitals import CONCEPTS, Hospital, concepts, hospital, long, meds, start, table, wide, yaib
from tasks_by_yaml import load

from patientdx.core.errors import UserError
from patientdx.records.labelled.concept_file import YAIB, concept_file
from patientdx.tasks.example import TaskData
from patientdx.tasks.meds_labels import labels as meds_labels


@pytest.fixture(scope="module")
def house() -> Hospital:
    return hospital()


@pytest.fixture
def loaded(tmp_path, store) -> Callable[..., TaskData]:
    """Loads a layout of a hospital; keys replace those of the layout."""

    def made(layout: str, house: Hospital, rows: list[dict] = CONCEPTS, **keys: Any) -> TaskData:
        folder = tmp_path / f"{layout}{len(list(tmp_path.iterdir()))}"
        if layout == "yaib":
            paths = {"path": str(yaib(folder, house))}
        else:
            labels, records = {"meds": meds, "long": long, "wide": wide}[layout](folder, house)
            file = concepts(folder / "concepts.csv", rows)
            paths = {"path": str(labels), "records": str(records), "concepts": str(file)}
        usual = {"layout": layout, "question": QUESTION, "cache": str(store), "threads": 1}
        return load("labelled_stays", **usual | paths | keys)

    return made


def by_stay(data: TaskData) -> dict[str, tuple]:
    """Text and features of each example, by its id without the time."""
    return {
        example.uid.partition(":")[0]: (example.context, data.features.values[row].tolist())
        for row, example in enumerate(data.examples)
    }


def test_long_and_wide_tables_give_the_same_texts_and_features(loaded, house, tmp_path):
    data = loaded("long", house, static=["age", "sex"])
    again = loaded("wide", house, static=["age", "sex"])
    assert by_stay(data) == by_stay(again)
    assert len(data.examples) == 80
    csv = wide(tmp_path / "csv", house, "values.csv")
    assert by_stay(loaded("wide", house, static=["age", "sex"], records=str(csv[1]))) == by_stay(data)
    rows = {row["stay_id"]: row for row in house.stays}
    for example in data.examples:
        row = rows[int(example.uid.partition(":")[0])]
        assert (example.label, example.subject) == (row["label"], str(row["subject_id"]))
    assert data.open_data is False
    assert set(data.groups) == {"age", "sex"}


def test_text_and_features_hold_what_was_measured_before_the_prediction(loaded, house):
    data = loaded("long", house, window_hours=20)
    names = data.features.names
    for row, example in enumerate(data.examples):
        stay = int(example.uid.partition(":")[0])
        rates = [value for of, hour, name, value in house.values if (of, name) == (stay, "hr") and 4 <= hour < 24]
        assert len(rates) == 3  # at 6, 12 and 20 h; what is charted at 30 h tells the outcome
        features = dict(zip(names, data.features.values[row], strict=True))
        expected = (np.mean(rates), rates[0], rates[-1], min(rates), max(rates), 3)
        for statistic, value in zip(("mean", "first", "last", "minimum", "maximum", "count"), expected, strict=True):
            assert features[f"Heart rate {statistic}"] == pytest.approx(value)
        assert f"Heart rate (bpm, 60-100): last {rates[-1]:.0f}" in example.context
        creatinine = [
            value for of, hour, name, value in house.values if (of, name) == (stay, "crea") and 4 <= hour < 24
        ]
        assert features["Creatinine last"] == pytest.approx(creatinine[-1], abs=0.01)  # µmol/L in the records


def test_meds_labels_and_codes_of_a_hospital_of_its_own_are_read(loaded, house):
    data = loaded("meds", house, window_hours=24)
    usual = loaded("long", house, window_hours=24)
    ours = {(e.subject, time): e for e, time in zip(data.examples, data.times, strict=True)}
    of = {row["stay_id"]: row for row in house.stays}
    for example in usual.examples:
        stay = int(example.uid.partition(":")[0])
        other = ours[str(of[stay]["subject_id"]), start(stay) + timedelta(hours=24)]
        assert other.label == example.label
        assert numbers(other.context) == pytest.approx(numbers(example.context), abs=0.1)  # MEDS has float32
    assert data.provenance["counts"]["unknown_codes"] == 1
    assert meds_labels(data).column("prediction_time").to_pylist() == list(data.times)


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+\.?\d*", text)]


def test_splits_of_a_meds_folder_are_taken(loaded, house, tmp_path):
    labels, records = meds(tmp_path / "split", house, splits=True)
    data = loaded("meds", house, path=str(labels), records=str(records))
    names = ("train", "pilot", "test")
    assert all(example.split == names[int(example.subject) % 3] for example in data.examples)
    drawn = loaded("meds", house, path=str(labels), records=str(records), split_column=None)
    assert any(example.split != names[int(example.subject) % 3] for example in drawn.examples)


def test_yaibs_export_is_read_with_its_own_concepts(loaded, house):
    data = loaded("yaib", house)
    assert len(data.examples) == 80
    assert len({example.subject for example in data.examples}) == 80  # YAIB names no patient
    assert {"age", "sex", "height", "weight", "Lactate last", "Albumin count"} <= set(data.features.names)
    assert "Lactate (mmol/L, 0.5-2): last" in data.examples[0].context
    assert "sex: " in data.examples[0].context
    assert data.provenance["counts"]["empty_concepts"] == 45
    file = concept_file(Path(str(YAIB)))
    assert len(file.codes) == len(file.concepts) == 48
    assert set(data.provenance["source"]) == {"dyn.parquet", "sta.parquet", "labels/outc.parquet"}


def test_a_budget_leaves_out_what_weighs_least_and_says_so(loaded, house):
    data = loaded("long", house, text_tokens=100)
    text = data.examples[0].context
    assert "Lactate" in text
    assert "Creatinine" not in text
    assert text.endswith("2 more readings did not fit.")
    assert data.provenance["sections_cut"] == {"records": 80, "items": 160}


def test_a_change_of_the_concepts_or_the_window_is_another_fingerprint(loaded, house):
    other = [CONCEPTS[0] | {"high": 90}, *CONCEPTS[1:]]
    prints = {loaded("long", house).fingerprint, loaded("long", house, other).fingerprint,
              loaded("long", house, window_hours=12).fingerprint}  # fmt: skip
    assert len(prints) == 3


def test_what_is_left_out_is_counted(loaded, house, caplog):
    lacking = Hospital(house.stays, [value for value in house.values if value[0] != 5000])
    odd = [*lacking.values, (5001, 2, "hr", 900.0)]
    rows = [*CONCEPTS, CONCEPTS[0] | {"code": "LOCAL//MAP", "name": "Mean pressure"}]
    with caplog.at_level(logging.WARNING):
        data = loaded("long", Hospital(house.stays, odd), rows)
    assert [step["stays"] for step in data.cohort] == [80, 79, 79]
    for line in ("1 codes of concepts.csv occur nowhere in the records: LOCAL//MAP", "1 labels have no record at all",
                 "1 values are outside minimum and maximum", "1 concepts have no value in any stay"):  # fmt: skip
        assert line in caplog.text


def test_a_unit_that_is_likely_wrong_is_said(loaded, house, caplog):
    rows = [*CONCEPTS[:2], {name: value for name, value in CONCEPTS[2].items() if name not in ("scale", "maximum")}]
    with caplog.at_level(logging.WARNING):
        loaded("long", house, rows)
    assert "concepts.csv, line 4: Creatinine has a median of" in caplog.text
    assert "or 0.01131 for a factor of 88.42 (creatinine in µmol/L and mg/dL)" in caplog.text


def rewritten(path: str, change: Callable[[list[dict]], list[dict]]) -> str:
    """A csv file with changed rows."""
    import csv

    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return str(table(Path(path).with_name(f"changed_{Path(path).name}"), change(rows)))


LABELS = {  # change of the labels, keys, message
    "after discharge": (lambda rows: [row | {"out": 20 if i == 1 else 99} for i, row in enumerate(rows)],
                        {"discharge_column": "out"}, "labels.csv line 3: column time is after column out"),
    "a stay twice": (lambda rows: [*rows, rows[0]], {}, "line 82: stay_id and prediction time are those of"),
    "a date for hours": (lambda rows: [row | {"time": "2130-01-01 00:00"} for row in rows], {},
                         "column time is a date, the records have hours"),
    "no time": (lambda rows: [row | {"time": "soon"} for row in rows], {}, "column time is neither a date and time"),
    "other stays": (lambda rows: [row | {"stay_id": 1_000_000 + int(row["stay_id"])} for row in rows], {},
                    "none of the 50 labels outside pilot has records: column stay_id of labels and records"),
    "before the records": (lambda rows: [row | {"time": 0} for row in rows], {},
                           "none of the 50 labels outside pilot has a reading before its prediction time"),
    "after the records": (lambda rows: [row | {"time": 5000} for row in rows], {},
                          "every label's prediction time is after the last record"),
    "no stay": (lambda rows: [{k: v for k, v in row.items() if k != "stay_id"} for row in rows], {},
                "there is no column stay_id among its 5 columns. Set task.record_columns"),
    "the label is static": (lambda rows: rows, {"static": ["age", "label"], "label_column": "label"},
                            "task.static: label is the column of task.label_column"),
    "a copy of the label": (lambda rows: [row | {"died": row["label"]} for row in rows], {"static": ["died"]},
                            "died: this feature alone separates every event"),
}  # fmt: skip


RECORDS = {  # change of the long table, keys, message
    "another name": (lambda rows: rows, {"record_columns": {"value": "result"}},
                     "values.csv has no column result. Name the right one as 'task.record_columns={value: <name>}'"),
    "an unknown name": (lambda rows: rows, {"record_columns": {"unit": "u"}}, "task.record_columns has no unit"),
    "no id": (lambda rows: [{k: v for k, v in row.items() if k != "stay_id"} for row in rows], {},
              "has none of the columns stay_id, subject_id, patient_id"),
    "a bad time": (lambda rows: [row | {"time": "SECRET" if i == 3 else row["time"]} for i, row in enumerate(rows)], {},
                   "values have no stay_id, or a time that is neither"),
    "other codes": (lambda rows: [row | {"code": "X" + row["code"]} for row in rows], {},
                    "none of the 3 codes of concepts.csv occurs in the records"),
    "a wrong unit": (lambda rows: [row | {"value": float(row["value"]) / 1000} for row in rows], {},
                     "outside 10 to 300. Is it another unit? Then scale is 1000 for a factor of a thousand"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "change", "keys", "message"),
    [
        *(pytest.param("path", *case, id=name) for name, case in LABELS.items()),
        *(pytest.param("records", *case, id=name) for name, case in RECORDS.items()),
    ],
)
def test_labels_and_records_that_are_not_valid_are_refused(loaded, house, tmp_path, key, change, keys, message):
    written = dict(zip(("path", "records"), long(tmp_path / "again", house), strict=True))
    path = Path(rewritten(str(written[key]), change))
    path = path.rename(path.with_name("values.csv")) if key == "records" else path
    with pytest.raises(UserError) as refused:
        loaded("long", house, **{key: str(path)}, **keys)
    assert message in str(refused.value)
    assert "SECRET" not in str(refused.value)


FILES = {  # rows of the file of concepts, message
    "no interval": ([{"code": "a", "name": "A", "unit": "x"}], "the first line names no column low, high"),
    "a code twice": ([CONCEPTS[0], CONCEPTS[0]], "concepts.csv, line 3, column code: LOCAL//HR is in line 2 already"),
    "no code": ([CONCEPTS[0] | {"code": ""}], "concepts.csv, line 2, column code: it is empty"),
    "no number": ([CONCEPTS[0] | {"low": "few"}], "concepts.csv, line 2, column low: 'few' is no number"),
    "an upside-down interval": ([CONCEPTS[0] | {"low": 200}], "minimum <= low <= high <= maximum is needed"),
    "a scale of 0": ([CONCEPTS[0] | {"scale": 0}], "concepts.csv, line 2, column scale: 0 makes every value the same"),
    "another unit": ([CONCEPTS[0], CONCEPTS[0] | {"code": "b", "unit": "Hz"}],
                     "concepts.csv, line 3, column unit: Heart rate is in bpm above, and in Hz here"),
    "no concept": ([], "concepts.csv has no concept: it needs a row for each code"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_concepts_that_make_no_sense_are_refused(tmp_path, case):
    rows, message = FILES[case]
    path = table(tmp_path / "concepts.csv", rows or [CONCEPTS[0]])
    if not rows:
        path.write_text("code,name,unit,low,high\n")
    with pytest.raises(UserError) as refused:
        concept_file(path)
    assert message in str(refused.value)


def test_files_that_are_not_there_or_of_another_kind_are_refused(loaded, house, tmp_path):
    folder = yaib(tmp_path / "export", house)
    (folder / "sta.parquet").unlink()
    with pytest.raises(UserError, match=r"is no folder of YAIB's export, .*: it lacks sta\.parquet"):
        loaded("yaib", house, path=str(folder))
    for keys, message in (
        ({"records": None}, r"task\.records is missing: it names the events"),
        ({"concepts": None}, r"task\.concepts is missing"),
        ({"records": str(tmp_path / "none.csv")}, "there is no such file"),
    ):
        with pytest.raises(UserError, match=message):
            loaded("long", house, **keys)
    with pytest.raises(UserError, match=r"task\.layout='tall': choose meds or long or wide or yaib"):
        load("labelled_stays", layout="tall", question=QUESTION)
    rows = pyarrow.parquet.read_table(yaib(tmp_path / "more", house) / "sta.parquet").to_pylist()
    table(tmp_path / "more/sta.parquet", rows[1:])
    with pytest.raises(UserError, match=r"outc\.parquet row 1: its stay_id is not in the file of static values"):
        loaded("yaib", house, path=str(tmp_path / "more"))
    (tmp_path / "meds.json").write_text(json.dumps({}))
    with pytest.raises(UserError, match="there is no folder"):
        loaded("meds", house, records=str(tmp_path / "meds.json"))
