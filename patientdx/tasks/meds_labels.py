"""A task's labels and splits in the MEDS schemas, for other tools that read MEDS.

MEDS lets a model see events up to and including prediction_time; our texts end just before it. The tables hold ids and
dates of patients: of credentialed data they are credentialed too.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
from meds import LabelSchema, SubjectSplitSchema, held_out_split, subject_splits_filepath, train_split, tuning_split

from patientdx.core.errors import UserError
from patientdx.core.paths import REPOSITORY, expanded
from patientdx.tasks.example import TaskData

SPLITS = {"train": train_split, "pilot": tuning_split, "test": held_out_split}


def labels(data: TaskData) -> pa.Table:
    """subject_id, prediction_time and boolean_value of every example, in their order, without the split external.

    UserError without times, and for subjects that are no whole numbers.
    """
    return LabelSchema.align(labelled(data, _inside(data)))


def labelled(data: TaskData, numbers: Sequence[int]) -> pa.Table:
    """The same of the examples of these numbers, in their order."""
    if len(data.times) != len(data.examples):
        raise UserError(f"task={data.name} has no prediction times, so that no MEDS labels can be written of it.")
    examples = [data.examples[number] for number in numbers]
    if not all(example.subject.isdecimal() for example in examples):
        raise UserError("MEDS names a patient by a whole number, and these data have other ids.")
    return pa.table(
        {
            "subject_id": pa.array([int(example.subject) for example in examples], pa.int64()),
            "prediction_time": pa.array([data.times[number] for number in numbers], pa.timestamp("us")),
            "boolean_value": [example.label == 1 for example in examples],
        }
    )


def _inside(data: TaskData) -> list[int]:
    return [number for number, example in enumerate(data.examples) if example.split in SPLITS]


def stays(data: TaskData) -> pa.Table:
    """subject_id, prediction_time and stay_id, row by row those of `labels`."""
    ids = pa.array([int(data.examples[number].uid) for number in _inside(data)], pa.int64())
    return labels(data).select(["subject_id", "prediction_time"]).append_column("stay_id", ids)


def subject_splits(data: TaskData) -> pa.Table:
    """subject_id and split of every patient, by subject_id. UserError where a patient is in two splits."""
    of: dict[int, str] = {}
    for example in (data.examples[number] for number in _inside(data)):
        if of.setdefault(int(example.subject), example.split) != example.split:
            raise UserError(
                "MEDS splits are by patient, and here a patient's stays lie in several splits. "
                "Set task.split_by=patient."
            )
    subjects = sorted(of)
    table = pa.table(
        {"subject_id": pa.array(subjects, pa.int64()), "split": [SPLITS[of[subject]] for subject in subjects]}
    )
    return SubjectSplitSchema.align(table)


def write(data: TaskData, folder: Path) -> list[Path]:
    """The three files below `folder`, replacing those of an earlier call; their paths.

    Raises UserError where credentialed ids would be inside this repository, or the folder cannot be written.
    """
    tables = {f"labels/{data.name}.parquet": labels(data)}
    if all(data.examples[number].uid.isdecimal() for number in _inside(data)):  # those of labelled_stays are not
        tables[f"labels/{data.name}_stays.parquet"] = stays(data)
    tables[subject_splits_filepath] = subject_splits(data)
    return write_tables(tables, folder, open_data=data.open_data)


def write_tables(tables: Mapping[str, pa.Table], folder: Path, *, open_data: bool) -> list[Path]:
    """The tables by their names below `folder`, replacing those of an earlier call; their paths.

    UserError as `write`.
    """
    folder = expanded(folder).resolve()
    if not open_data and folder.is_relative_to(REPOSITORY):
        raise UserError(
            f"{folder} is inside this repository, and the labels hold ids of credentialed data. "
            "Name a folder where the tables themselves may be kept."
        )
    for name, table in tables.items():
        path = folder / name
        unfinished = path.with_suffix(f".{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            pyarrow.parquet.write_table(table, unfinished)
            os.replace(unfinished, path)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror or type(error).__name__}.") from error
    return [folder / name for name in tables]
