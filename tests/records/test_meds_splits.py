"""A MEDS folder's own splits: metadata/subject_splits.parquet."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from meds_hospital import write_meds
from tasks_by_yaml import load

from patientdx.core.errors import UserError


@pytest.fixture(scope="module")
def meds(ward, store) -> Path:
    """The synthetic hospital as MEDS, which names no splits."""
    return write_meds(ward, store / "meds_without_splits")


def with_splits(meds: Path, target: Path, pairs: list[tuple[int, str]]) -> Path:
    """A copy of a MEDS folder with these splits of patients."""
    folder = shutil.copytree(meds, target)
    subjects, names = zip(*pairs, strict=True)
    table = pa.table({"subject_id": pa.array(subjects, pa.int64()), "split": pa.array(names, pa.string())})
    pyarrow.parquet.write_table(table, folder / "metadata/subject_splits.parquet")
    return folder


def test_the_folder_s_own_splits_are_used_unless_the_user_draws_others(meds, tmp_path):
    drawn = load("mortality", cache=tmp_path, source="meds", mimic_root=str(meds))
    subjects = sorted({int(example.subject) for example in drawn.examples})
    names = ["train", "tuning", "held_out", "held_out"]
    pairs = [(subject, names[number % 4]) for number, subject in enumerate(subjects)]
    own = dict(pairs[:-1]) | {subjects[-1]: "external"}
    folder = with_splits(meds, tmp_path / "split", list(own.items()))
    ours = {"train": "train", "tuning": "pilot", "held_out": "test"}
    task = load("mortality", cache=tmp_path, source="meds", mimic_root=str(folder))
    assert {int(example.subject): example.split for example in task.examples} == {
        subject: ours[name] for subject, name in own.items() if name in ours
    }
    assert task.cohort[-1]["step"] == "patient in a split of the source"
    assert task.cohort[-1]["patients"] == len(subjects) - 1
    assert task.provenance["settings"]["fractions"] == "as the source has its patients split"
    fractions = {"train": 0.3, "pilot": 0.3, "test": 0.4}
    anew = load("mortality", cache=tmp_path, source="meds", mimic_root=str(folder), fractions=fractions)
    assert anew.examples == drawn.examples
    asked = load("record_qa", cache=tmp_path, source="meds", mimic_root=str(folder))
    assert {example.split for example in asked.examples} == {"train", "pilot", "test"}
    assert all(ours[own[int(example.subject)]] == example.split for example in asked.examples)


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([(1, "train"), (1, "tuning")], "has patients in two splits"),
        ([(1, "train"), (2, "held_out")], "splits name no patient of the cohort"),
    ],
)
def test_splits_that_cannot_be_used_are_refused(pairs, words, meds, tmp_path):
    folder = with_splits(meds, tmp_path / "split", pairs)
    with pytest.raises(UserError, match=words):
        load("mortality", cache=tmp_path, source="meds", mimic_root=str(folder))
    table = pa.table({"subject": [1]})
    pyarrow.parquet.write_table(table, folder / "metadata/subject_splits.parquet")
    with pytest.raises(UserError, match=r"subject_splits\.parquet does not hold MEDS's columns"):
        load("mortality", cache=tmp_path, source="meds", mimic_root=str(folder))


def test_splits_of_other_names_are_said_and_drawn(meds, tmp_path, caplog):
    folder = with_splits(meds, tmp_path / "split", [(1, "0"), (2, "1")])
    task = load("mortality", cache=tmp_path, source="meds", mimic_root=str(folder))
    assert "has none of the splits train, tuning, held_out" in caplog.text
    assert task.examples == load("mortality", cache=tmp_path, source="meds", mimic_root=str(meds)).examples
