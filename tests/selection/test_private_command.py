"""search=private as a command: how it ends, what it prints and what it leaves tell nothing of the pilot but λ.

The responses come from a fixed table in place of a model, and the pilot is every one that can be made of three
patients, each absent, without the event, or with it; PATIENTDX_PILOT_PATIENTS=5 tries all of five, in a few minutes.
"""

import itertools
import os
from dataclasses import replace

import numpy as np
import pytest
from command_line import ROOT, small
from hydra import compose, initialize_config_dir
from private_pilots import ABSENT, EPSILON, WORDS, Commands, losses

from patientdx.evaluation.config.run_config import parse
from patientdx.records.features import Features
from patientdx.tasks.clinical import ClinicalTask
from patientdx.tasks.example import Example, TaskData

PATIENTS = range(int(os.environ.get("PATIENTDX_PILOT_PATIENTS", "3")))
EVERY = list(itertools.product((ABSENT, 0, 1), repeat=len(PATIENTS)))
EDGES = [(ABSENT,) * 5, (1, *[ABSENT] * 4), (0, *[ABSENT] * 4), (0,) * 5, (1,) * 5, (1, 0, 0, 0, 0), (0, 1, 0, 1, 0)]


def stays(patient: int, label: int, like: Example) -> list[Example]:
    """The pilot stays of a patient; the third has two, of which one counts."""
    names = [f"p{patient}"] if patient != 2 else [f"p{patient}", f"p{patient} again"]
    text = f"heart rate {60 + patient} bpm " * (patient + 1)
    return [replace(like, uid=name, subject=f"p{patient}", split="pilot", context=text, label=label) for name in names]


def aligned(rows: int) -> Features:
    """A table of so many rows whose last numbers are the same whatever is above them."""
    return Features(("a number",), np.arange(-rows, 0.0)[:, None])


def with_pilot(data: TaskData, pilot: tuple, **settings) -> TaskData:
    """The data with these pilot patients, by their labels, and eight stays of test; `settings` are the task's."""
    rest = [example for example in data.examples if example.split == "test"]
    new = [
        stay for patient, label in enumerate(pilot) if label is not ABSENT for stay in stays(patient, label, rest[0])
    ]
    provenance = data.provenance | {"settings": data.provenance["settings"] | settings}
    provenance |= {"tables": {"icu/icustays": {"sha256": f"{pilot}"}}, "stays_without_readings": len(new)}
    examples = (*new, *rest[:8])
    return replace(
        data, examples=examples, open_data=False, fingerprint=f"{pilot}", provenance=provenance,
        features=aligned(len(examples)), severity=aligned(len(examples)), readings=[{"charted": len(new)}],
        cohort=[{"step": "all", "stays": len(examples), "patients": 3, "events": 1}], times=(), groups={},
    )  # fmt: skip


@pytest.fixture
def ends(monkeypatch, tmp_path, tiny_base, tiny_pivot, caplog):
    """`ends(pilot)`: see `private_pilots.Commands`."""
    words = small(tiny_base, tiny_pivot, *WORDS, f"output={tmp_path / 'outputs'}", f"cache={tmp_path / 'cache'}")
    words = [word for word in words if word != "splits=[pilot,test]"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", words)
    commands, data = Commands(monkeypatch, caplog, tmp_path, config), parse(config).task_config.call().load()

    def run(pilot: tuple, **settings):
        shown = with_pilot(data, pilot, **settings)
        return commands.run(lambda: monkeypatch.setattr(ClinicalTask, "load", lambda task: shown))

    return run


def test_every_pilot_ends_alike_and_no_chance_changes_beyond_epsilon(ends):
    chances, first = {}, None
    for pilot in dict.fromkeys([*EVERY, *EDGES]):
        told, chances[pilot] = ends(pilot)
        first = first or told
        assert told == first, pilot
    assert (first["code"], len(first)) == (0, 3 + 5)
    assert {len(chance) for chance in chances.values()} == {3}
    ratios = losses(chances, EVERY)
    assert len(ratios) == 3 * len(PATIENTS) * 2 * 3 ** (len(PATIENTS) - 1)
    assert EPSILON / 3 < max(ratios) <= EPSILON


@pytest.mark.parametrize("settings", [{"limit": 2}, {"outliers": "cohort"}, {"split_by": "stay"}], ids=str)
def test_a_refusal_is_the_same_for_every_pilot(ends, settings):
    told = [ends(pilot, **settings) for pilot in EDGES]
    assert told[0][0]["code"] == 2
    assert "search=private with task." in told[0][0]["printed"]
    assert told == [told[0]] * len(told)
