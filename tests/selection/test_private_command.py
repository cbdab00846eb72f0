"""search=private as a command: how it ends, what it prints and what it leaves tell nothing of the pilot but λ.

The responses come from a fixed table in place of a model, and the pilot is every one that can be made of three
patients, each absent, without the event, or with it; PATIENTDX_PILOT_PATIENTS=5 tries all of five, in a few minutes.
"""

import io
import itertools
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import ROOT, small
from hydra import compose, initialize_config_dir
from hydra.types import RunMode

from patientdx.cli import run as command
from patientdx.evaluation.config.run_config import parse
from patientdx.evaluation.kinds.binary import Binary
from patientdx.evaluation.session import Session
from patientdx.privacy import ledger
from patientdx.selection import private as mechanism
from patientdx.tasks.clinical import ClinicalTask
from patientdx.tasks.example import Example, TaskData

EPSILON = 1.5
PATIENTS = range(int(os.environ.get("PATIENTDX_PILOT_PATIENTS", "3")))
POINTS = ("0", "0.5", "1")
ABSENT = None
EVERY = list(itertools.product((ABSENT, 0, 1), repeat=len(PATIENTS)))
EDGES = [(ABSENT,) * 5, (1, *[ABSENT] * 4), (0, *[ABSENT] * 4), (0,) * 5, (1,) * 5, (1, 0, 0, 0, 0), (0, 1, 0, 1, 0)]
WORDS = ["search=private", f"search.points=[{','.join(POINTS)}]", f"search.epsilon={EPSILON}", "splits=[test]",
         "parents=false", "hydra.verbose=true"]  # fmt: skip


def stays(patient: int, label: int, like: Example) -> list[Example]:
    """The pilot stays of a patient; the third has two, of which one counts."""
    names = [f"p{patient}"] if patient != 2 else [f"p{patient}", f"p{patient} again"]
    text = f"heart rate {60 + patient} bpm " * (patient + 1)
    return [replace(like, uid=name, subject=f"p{patient}", split="pilot", context=text, label=label) for name in names]


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
        data, examples=examples, open_data=False, fingerprint=f"{pilot}", provenance=provenance, features=None,
        cohort=[{"step": "all", "stays": len(examples), "patients": 3, "events": 1}], times=(), groups={},
    )  # fmt: skip


def respond(self, request) -> np.ndarray:
    """Log masses from a table: some candidates rank a patient first whom others rank last."""
    _, weight = request.system.weights(request.session, request.config, request.timer)
    rows = []
    for number in request.rows:
        name = request.data.examples[number].uid
        place = (sum(name.encode()) * (1 if weight == 0 else 7 if weight == 0.5 else 3)) % 11
        rows.append((-1.0 - place, -3.0))
    return np.array(rows)


@pytest.fixture
def ends(monkeypatch, tmp_path, tiny_base, tiny_pivot, caplog):
    """`ends(pilot)`: exit code, what was said and left, and the probabilities that the draw had."""
    monkeypatch.setattr(Binary, "respond", respond)
    monkeypatch.setattr(mechanism, "draw", lambda gammas, below: 1)
    # Pictures of the rows that metrics.json holds: they take most of the time.
    monkeypatch.setattr("patientdx.cli.sweep_summary.draw", lambda rows, folder: None)
    words = small(tiny_base, tiny_pivot, *WORDS, f"output={tmp_path / 'outputs'}", f"cache={tmp_path / 'cache'}")
    words = [word for word in words if word != "splits=[pilot,test]"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", words)
    job = SimpleNamespace(mode=RunMode.RUN, overrides=SimpleNamespace(task=[]))
    session, data = Session(), parse(config).task_config.call().load()
    monkeypatch.setattr(command, "SESSION", session)
    monkeypatch.setenv(ledger.PLACE, str(tmp_path / "cache/private_search/ledger.jsonl"))
    monkeypatch.setattr(ledger.secrets, "token_hex", lambda count: "5" * 2 * count)
    caplog.set_level(logging.DEBUG, "patientdx")

    def run(pilot: tuple, **settings):
        for kind in ("task_data", "prompts"):
            session._results.pop(kind, None)
        shown = with_pilot(data, pilot, **settings)
        monkeypatch.setattr(ClinicalTask, "load", lambda task: shown)
        for folder in ("outputs", "cache/private_search"):
            shutil.rmtree(tmp_path / folder, ignore_errors=True)
        caplog.clear()
        words, code = io.StringIO(), 0
        with redirect_stdout(words), redirect_stderr(words):
            try:
                command.run_job(config, job)
            except SystemExit as end:
                code = end.code
        told = {"code": code, "printed": words.getvalue(), "logged": [record.getMessage() for record in caplog.records]}
        drawn = [json.loads(file.read_text()) for file in (tmp_path / "cache/private_search").glob("*.json")]
        chances = [one["probability"] for kept in drawn for one in kept["not for release"]["candidates"]]
        return told | left(tmp_path / "outputs"), chances

    return run


def left(folder: Path) -> dict:
    """Content by name of every file, but for stored responses, which stay on the machine; without durations."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    content = {name: path.read_bytes() for name, path in files.items() if not name.startswith("scores/")}
    for name in [name for name in content if name.endswith(("provenance.json", "metrics.json"))]:
        plain = json.loads(content[name])
        plain.pop("seconds", None)
        plain.pop("seal", None)
        plain.pop("files", None)  # with the hash of the durations
        content[name] = plain
    return content


def neighbours(pilot: tuple) -> Iterator[tuple]:
    """The same pilot without one of its patients."""
    yield from ((*pilot[:i], ABSENT, *pilot[i + 1 :]) for i in PATIENTS if pilot[i] is not ABSENT)


def test_every_pilot_ends_alike_and_no_chance_changes_beyond_epsilon(ends):
    chances, first = {}, None
    for pilot in dict.fromkeys([*EVERY, *EDGES]):
        told, chances[pilot] = ends(pilot)
        first = first or told
        assert told == first, pilot
    assert (first["code"], len(first)) == (0, 3 + 5)
    assert {len(chance) for chance in chances.values()} == {3}
    ratios = [
        abs(math.log(one / other))
        for pilot in EVERY for near in neighbours(pilot)
        for one, other in zip(chances[pilot], chances[near], strict=True)
    ]  # fmt: skip
    assert len(ratios) == 3 * len(PATIENTS) * 2 * 3 ** (len(PATIENTS) - 1)
    assert EPSILON / 3 < max(ratios) <= EPSILON


@pytest.mark.parametrize("settings", [{"limit": 2}, {"outliers": "cohort"}, {"split_by": "stay"}], ids=str)
def test_a_refusal_is_the_same_for_every_pilot(ends, settings):
    told = [ends(pilot, **settings) for pilot in EDGES]
    assert told[0][0]["code"] == 2
    assert "search=private with task." in told[0][0]["printed"]
    assert told == [told[0]] * len(told)
