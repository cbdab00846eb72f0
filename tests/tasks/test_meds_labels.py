import dataclasses
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from meds import LabelSchema, SubjectSplitSchema
from tasks_by_yaml import load

from patientdx.checkpoints.source import REPOSITORY
from patientdx.core.errors import UserError
from patientdx.tasks import meds_labels


@pytest.fixture(scope="module")
def data(store):
    return load("mortality", cache=store)


def read(folder: Path, name: str) -> pa.Table:
    return pyarrow.parquet.read_table(folder / f"{name}.parquet")


def test_labels_and_splits_are_valid_meds(data, tmp_path):
    paths = meds_labels.write(data, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "labels/mortality.parquet",
        "labels/mortality_stays.parquet",
        "metadata/subject_splits.parquet",
    ]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(paths)
    LabelSchema.validate(read(tmp_path, "labels/mortality"))
    SubjectSplitSchema.validate(read(tmp_path, "metadata/subject_splits"))


def test_they_say_what_the_examples_say(data, tmp_path):
    meds_labels.write(data, tmp_path)
    texts = read(tmp_path, "labels/mortality").to_pylist()
    ids = read(tmp_path, "labels/mortality_stays").to_pylist()
    split = {row["subject_id"]: row["split"] for row in read(tmp_path, "metadata/subject_splits").to_pylist()}
    named = {"train": "train", "pilot": "tuning", "test": "held_out"}
    assert len(texts) == len(ids) == len(data.examples)
    for example, time, row, each in zip(data.examples, data.times, texts, ids, strict=True):
        assert row == {
            "subject_id": int(example.subject), "prediction_time": time, "boolean_value": bool(example.label),
        }  # fmt: skip
        assert each == {"subject_id": row["subject_id"], "prediction_time": time, "stay_id": int(example.uid)}
        assert split[row["subject_id"]] == named[example.split]
    assert set(split) == {int(example.subject) for example in data.examples}


def test_a_prediction_is_made_a_window_after_icu_admission(data, store):
    day = load("mortality", cache=store, window_hours=24, gap_hours=30)
    at = {example.uid: time for example, time in zip(data.examples, data.times, strict=True)}
    assert len(at) == len(day.times)
    for example, time in zip(day.examples, day.times, strict=True):
        assert (at[example.uid] - time).total_seconds() == 24 * 3600


def test_a_split_by_stay_is_no_split_of_patients(store, tmp_path):
    data = load("mortality", cache=store, split_by="stay")
    with pytest.raises(UserError) as refused:
        meds_labels.write(data, tmp_path)
    assert str(refused.value) == (
        "MEDS splits are by patient, and here a patient's stays lie in several splits. Set task.split_by=patient."
    )
    assert list(tmp_path.iterdir()) == []


def test_credentialed_ids_do_not_go_into_the_repository(data, tmp_path):
    closed = dataclasses.replace(data, open_data=False)
    folder = REPOSITORY / "outputs/labels"
    with pytest.raises(UserError) as refused:
        meds_labels.write(closed, folder)
    assert str(refused.value) == (
        f"{folder} is inside this repository, and the labels hold ids of credentialed data. "
        "Name a folder where the tables themselves may be kept."
    )
    assert not folder.exists()
    assert len(meds_labels.write(closed, tmp_path)) == 3


def test_what_cannot_be_written_is_refused(data, tmp_path):
    (tmp_path / "labels").write_text("no folder")
    with pytest.raises(UserError, match=r"labels/mortality\.parquet cannot be written: File exists\.$"):
        meds_labels.write(data, tmp_path)


def test_without_times_there_are_no_labels(data):
    with pytest.raises(UserError) as refused:
        meds_labels.labels(dataclasses.replace(data, times=()))
    assert str(refused.value) == (
        "task=mortality has no prediction times, so that no MEDS labels can be written of it."
    )


def test_the_demo_gives_its_known_labels(tmp_path):
    if "PATIENTDX_SHARED" not in os.environ:
        pytest.skip("PATIENTDX_SHARED names no folder with data/mimic-iv-demo")
    root = Path(os.environ["PATIENTDX_SHARED"]) / "data/mimic-iv-demo"
    data = load("mortality", cache=tmp_path, mimic_root=[root, root / "rebuilt"], window_hours=24)
    table = meds_labels.labels(data)
    assert (table.num_rows, sum(table["boolean_value"].to_pylist())) == (95, 10)
