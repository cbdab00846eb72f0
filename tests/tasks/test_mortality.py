import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest

from patientdx.core.errors import UserError
from patientdx.tasks import mortality


@pytest.fixture(scope="module")
def default(store):
    return mortality.load(cache=store)


def test_the_default_is_the_synthetic_hospital(default):
    assert (default.name, default.kind, default.open_data) == ("mortality", "binary", True)
    assert default.provenance["source"] == ["synthetic hospital"]
    assert 240 <= len(default.examples) <= 242
    assert [row["stays"] for row in default.cohort][-1] == len(default.examples)
    for example in default.examples:
        assert example.prefix == ""
        assert example.context.startswith("Age ")
        assert example.suffix == "\n\nDid this patient die in the intensive care unit? Answer Yes or No."
        assert example.options[0][0] == "Yes"
        assert example.options[1][0] == "No"
        assert example.label in (0, 1)
    assert len({example.uid for example in default.examples}) == len(default.examples)


def test_no_patient_is_on_both_sides(default):
    subjects = {}
    for example in default.examples:
        subjects.setdefault(example.subject, set()).add(example.split)
    assert all(len(splits) == 1 for splits in subjects.values())
    assert len(subjects) < len(default.examples)
    assert {split for splits in subjects.values() for split in splits} == {"train", "pilot", "test"}


def test_the_split_follows_the_seed_and_nothing_else_does(default, store):
    again, other = mortality.load(cache=store), mortality.load(cache=store, seed=1)
    assert again.features.names == default.features.names
    np.testing.assert_array_equal(again.features.values, default.features.values)
    assert dataclasses.replace(again, features=None) == dataclasses.replace(default, features=None)
    one, two = ({e.uid: e for e in data.examples} for data in (default, other))
    assert one.keys() == two.keys()
    assert all((one[uid].record, one[uid].label) == (two[uid].record, two[uid].label) for uid in one)
    assert any(one[uid].split != two[uid].split for uid in one)
    assert other.fingerprint != default.fingerprint


def test_a_limit_keeps_the_first_of_each_split(default, store):
    few = mortality.load(cache=store, limit=40)
    for split in ("train", "pilot", "test"):
        whole = [example for example in default.examples if example.split == split]
        assert [example for example in few.examples if example.split == split] == whole[:40]
    assert few.fingerprint != default.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"window_hours": 24},
        {"gap_hours": 12},
        {"death": "dod"},
        {"age": "anchor"},
        {"split_by": "stay"},
        {"outliers": "train"},
        {"preset": "paper"},
        {"sections": {"readings": 60}},
        {"diagnoses": "prior"},
        {"diagnoses": "discharge"},
        {"template": "paper"},
        {"question": "Was it fatal? Answer Yes or No."},
        {"fractions": {"train": 0.2, "pilot": 0.4, "test": 0.4}},
        {"synthetic": {"seed": 1}},
    ],
)
def test_the_fingerprint_changes_with_what_changes_a_prompt(default, store, change):
    assert mortality.load(cache=store, **change).fingerprint != default.fingerprint


def test_the_fingerprint_does_not_change_with_what_does_not(default, store):
    same = mortality.load(cache=store, memory_limit="1GB", threads=1)
    assert same.fingerprint == default.fingerprint


def test_a_split_without_deaths_is_refused(store):
    with pytest.raises(UserError) as refused:
        mortality.load(cache=store, limit=2)
    assert str(refused.value).startswith("AUROC needs both outcomes in every scored split: ")
    assert "has 0 positives and 2 negatives" in str(refused.value)


def test_a_synthetic_hospital_that_was_changed_is_refused(store, ward, tmp_path):
    folder = tmp_path / "synthetic" / ward.name
    shutil.copytree(ward, folder)
    patients = pd.read_parquet(folder / "hosp/patients.parquet")
    patients["anchor_age"] += 1
    patients.to_parquet(folder / "hosp/patients.parquet")
    with pytest.raises(UserError) as refused:
        mortality.load(cache=tmp_path, synthetic={"stays": 150, "seed": 3})
    assert str(refused.value) == (
        f"The synthetic hospital in {folder} was changed since it was made. Delete that folder."
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"window_hours": 0}, "task.window_hours=0: a whole number of 1 or more is needed."),
        ({"gap_hours": -1}, "task.gap_hours=-1: a whole number of 0 or more is needed."),
        ({"window_hours": 24.5}, "task.window_hours=24.5: a whole number of 1 or more is needed."),
        ({"limit": 0}, "task.limit=0: a whole number of 1 or more is needed."),
        ({"seed": "a"}, "seed='a': a whole number of 0 or more is needed."),
        (
            {"mimic_root": []},
            "task.mimic_root=[]: name at least one folder, or null for the synthetic hospital.",
        ),
        ({"synthetic": {"beds": 3}}, "task.synthetic has no beds: it takes stays, seed, returns."),
    ],
)
def test_parameters_that_make_no_task_are_refused(tmp_path, change, expected):
    with pytest.raises(UserError) as refused:
        mortality.load(cache=tmp_path, **change)
    assert str(refused.value) == expected
    assert list(tmp_path.iterdir()) == []
