"""A second hospital beside the first, and later years beside earlier ones: the split external."""

import numpy as np
import pytest
from own_files import QUESTION, notes, write
from own_hospitals import concepts, hospital, later, long, wide
from tasks_by_yaml import load

from patientdx.core.errors import UserError
from patientdx.tasks.example import TaskData


def splits_of(data: TaskData) -> set[str]:
    return {example.split for example in data.examples}


def test_rows_of_another_file_are_external_and_change_nothing_inside(tmp_path):
    a = write(tmp_path / "a.csv", notes())
    b = write(tmp_path / "b.csv", [row | {"died": row["label"]} for row in notes(seed=5, risk=0.7)])
    keys = {"path": str(a), "question": QUESTION, "features": ["lactate"]}
    alone = load("yes_no", **keys)
    both = load("yes_no", external={"path": str(b), "label_column": "died"}, **keys)
    assert both.examples[:80] == alone.examples
    outside = both.examples[80:]
    assert {example.split for example in outside} == {"external"}
    assert all(example.subject.startswith("external:") for example in outside)  # both count patients from 1000
    assert len(outside) == 80
    assert both.features.values.shape == (160, 1)
    assert both.fingerprint != alone.fingerprint
    assert both.provenance["external"]["source"]
    assert any(row["step"] == "external: rows" for row in both.cohort)


def test_another_hospital_may_have_another_layout_and_units(tmp_path, store):
    a, b = hospital(), hospital(seed=4, severity=1.0)
    labels, records = long(tmp_path / "a", a)
    other_labels, other_records = wide(tmp_path / "b", b)
    keys = {"layout": "long", "path": str(labels), "records": str(records), "cache": str(store), "threads": 1,
            "concepts": str(concepts(tmp_path / "concepts.csv")), "question": QUESTION}  # fmt: skip
    other = {"layout": "wide", "path": str(other_labels), "records": str(other_records)}
    both = load("labelled_stays", external=other, **keys)
    alone = load("labelled_stays", **keys | other)
    names = {example.uid: row for row, example in enumerate(both.examples)}
    for row, example in enumerate(alone.examples):
        number = names[f"external:{example.uid}"]
        assert both.examples[number].context == example.context
        np.testing.assert_array_equal(both.features.values[number], alone.features.values[row])


def test_a_second_hospital_of_mimics_layout_has_the_columns_of_the_first(store):
    keys = {"cache": store, "synthetic": {"stays": 80, "seed": 0}, "threads": 1, "template": "intervals"}
    alone = load("mortality", **keys)
    both = load("mortality", external={"synthetic": {"stays": 60, "seed": 7}}, **keys)
    assert both.examples[: len(alone.examples)] == alone.examples
    assert both.features.names == alone.features.names
    np.testing.assert_array_equal(both.features.values[: len(alone.examples)], alone.features.values)
    other = load("mortality", **keys | {"synthetic": {"stays": 60, "seed": 7}})
    outside = {example.uid.removeprefix("external:"): row for row, example in enumerate(both.examples)
               if example.split == "external"}  # fmt: skip
    assert {example.uid for example in other.examples} == set(outside)
    common = [name for name in both.features.names if name in other.features.names]
    drugs = [name for name in both.features.names if name.startswith("drug ")]
    assert drugs
    for row, example in enumerate(other.examples):
        ours = dict(zip(both.features.names, both.features.values[outside[example.uid]], strict=True))
        theirs = dict(zip(other.features.names, other.features.values[row], strict=True))
        np.testing.assert_array_equal([ours[name] for name in common], [theirs[name] for name in common])
        assert all(ours[name] in (0, 1) for name in drugs)  # 0, not missing, where nobody there had it
    assert both.open_data


def test_patients_of_later_years_are_external(ward, tmp_path, store):
    root = later(ward, tmp_path / "mimic")
    keys = {"cache": store, "mimic_root": str(root), "threads": 1}
    data = load("mortality", external_years=["2017 - 2019"], **keys)
    assert splits_of(data) == {"train", "pilot", "test", "external"}
    assert all((int(e.subject) % 4 == 0) == (e.split == "external") for e in data.examples)
    usual = {e.uid: e for e in load("mortality", **keys).examples}
    assert set(usual) == {e.uid for e in data.examples}
    assert all(e.split == usual[e.uid].split for e in data.examples if e.split != "external")
    with pytest.raises(UserError, match=r"external_years=\['2020 - 2022'\]: name one or more of the values of anchor_"):
        load("mortality", external_years=["2020 - 2022"], **keys)
    with pytest.raises(UserError, match=r"but not all: 2011 - 2013, 2017 - 2019"):
        load("mortality", external_years=["2011 - 2013", "2017 - 2019"], **keys)


BAD = {
    "an unknown key": ({"file": "b.csv"}, "task.external has no file: it names what differs"),
    "another question": ({"path": "b.csv", "question": "x"}, "task.external has no question"),
    "nothing": ({}, "task.external={}: name the data of the other hospital"),
    "no text": ({"path": 5}, "task.external.path must be a word or null, got 5"),
}


@pytest.mark.parametrize("case", BAD)
def test_another_hospital_that_is_not_one_is_refused(tmp_path, case):
    keys, message = BAD[case]
    path = write(tmp_path / "a.csv", notes())
    with pytest.raises(UserError) as refused:
        load("yes_no", path=str(path), question=QUESTION, external=keys)
    assert message in str(refused.value)


def test_the_same_patients_are_no_other_hospital(tmp_path, store):
    path = write(tmp_path / "a.csv", notes())
    with pytest.raises(UserError, match="every text of the other hospital is in the first one too"):
        load("yes_no", path=str(path), question=QUESTION, external={"path": str(path)})
    with pytest.raises(UserError, match=r"task\.external with task\.outliers"):
        load("mortality", cache=store, outliers="cohort", external={"synthetic": {"stays": 60, "seed": 7}})
