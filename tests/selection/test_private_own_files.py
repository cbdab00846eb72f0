"""The same of a hospital's own files: the pilot's rows stand before and between the others', and no check counts them.

Every pilot of two patients, and edges; PATIENTDX_PILOT_PATIENTS=5 tries all of five.
"""

import csv
import itertools
import os
from pathlib import Path

import pytest
from command_line import ROOT, tiny
from hydra import compose, initialize_config_dir
from own_files import QUESTION
from own_hospitals import concepts, table
from private_pilots import ABSENT, EPSILON, WORDS, Commands, losses

PATIENTS = range(int(os.environ.get("PATIENTDX_PILOT_PATIENTS", "2")))
EVERY = list(itertools.product((ABSENT, 0, 1), repeat=len(PATIENTS)))
EDGES = [(0, 0, 0, 0), (1, 1, 1, 1), (ABSENT, 1, 0, 1)]
OTHERS = [("train", 0), ("train", 1), ("test", 0), ("test", 1), ("test", 0), ("test", 1)]


def rows(pilot: tuple, each) -> list[dict]:
    """The rows of the pilot's patients, of whom the second has two, and between them those of the others."""
    found = []
    others = [each(f"o{i}", i, label) | {"split": split} for i, (split, label) in enumerate(OTHERS)]
    for patient, label in enumerate(pilot):
        if label is not ABSENT:
            found += [each(f"p{patient}", patient, label) | {"split": "pilot"}] * (1 + (patient == 1))
        found += others[patient : patient + 1]
    return found + others[len(pilot) :]


def note(patient: str, number: int, label: int) -> dict:
    return {
        "patient_id": patient,
        "text": f"{patient}: heart rate {60 + number} bpm.",
        "label": label,
        "lactate": label,
    }


def stay(patient: str, number: int, label: int) -> dict:
    return {"patient_id": patient, "label": label, "time": 24}


def write_notes(folder: Path, pilot: tuple) -> None:
    table(folder / "notes.csv", rows(pilot, note))


def write_folder(folder: Path, pilot: tuple) -> None:
    """A file for each split, of which the pilot's may have no row."""
    everyone = rows(pilot, note)
    for split in ("train", "pilot", "test"):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["patient_id", "text", "label"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(row for row in everyone if row["split"] == split)


def write_stays(folder: Path, pilot: tuple) -> None:
    """Stays in a long table; a pilot patient with the event is read in other units, and of unknown age."""
    stays, values = [dict(row) for row in rows(pilot, stay)], []
    for number, one in enumerate(stays):
        again = sum(other["patient_id"] == one["patient_id"] for other in stays[:number])
        is_odd = one["split"] == "pilot" and one["label"] == 1
        one |= {"stay_id": f"{one['patient_id']}-{again}", "age": "" if is_odd else 60 + one["label"]}
        readings = [(1, "LOCAL//HR", 9000 if is_odd else 80 + one["label"])] + [(30, "LOCAL//HR", 90)] * (not is_odd)
        values += [{"stay_id": one["stay_id"], "time": hour, "code": code, "value": value}
                   for hour, code, value in readings]  # fmt: skip
    table(folder / "labels.csv", stays)
    table(folder / "values.csv", values)


LAYOUTS = {
    "notes": (write_notes, ["task=yes_no", "task.path={}/notes.csv", "task.features=[lactate]"]),
    "a folder": (write_folder, ["task=yes_no", "task.path={}"]),
    "stays": (
        write_stays,
        ["task=labelled_stays", "task.layout=long", "task.path={}/labels.csv", "task.records={}/values.csv",
         "task.concepts={}/concepts.csv", "task.static=[age]"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_pilot_ends_alike_and_no_chance_changes_beyond_epsilon(
    layout, monkeypatch, tmp_path, tiny_base, tiny_pivot, caplog
):
    write, words = LAYOUTS[layout]
    folder = tmp_path / "files"
    folder.mkdir()
    if layout == "stays":
        concepts(folder / "concepts.csv")
    of_task = [word.replace("{}", str(folder)) for word in words]
    places = [
        "baselines=[]",
        "clinical=false",
        f"output={tmp_path / 'outputs'}",
        f"cache={tmp_path / 'cache'}",
        f"task.question='{QUESTION}'",
    ]
    words = [*tiny(tiny_base, tiny_pivot), *of_task, *WORDS, *places]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", words)
    commands = Commands(monkeypatch, caplog, tmp_path, config)
    chances, first = {}, None
    for pilot in dict.fromkeys([*EVERY, *EDGES]):
        told, chances[pilot] = commands.run(lambda pilot=pilot: write(folder, pilot))
        first = first or told
        assert told == first, pilot
    assert first["code"] == 0, first["printed"]
    assert {len(chance) for chance in chances.values()} == {3}
    ratios = losses(chances, EVERY)
    assert 0 < max(ratios) <= EPSILON
