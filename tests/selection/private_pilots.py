"""Pilots for which search=private is run as a command: responses from a table, and what a command says and leaves."""

import io
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from hydra.types import RunMode
from omegaconf import DictConfig

from patientdx.cli import run as command
from patientdx.evaluation.kinds.binary import Binary
from patientdx.evaluation.session import Session
from patientdx.privacy import ledger
from patientdx.selection import private as mechanism

EPSILON = 1.5
POINTS = ("0", "0.5", "1")
ABSENT = None
WORDS = ["search=private", f"search.points=[{','.join(POINTS)}]", f"search.epsilon={EPSILON}", "splits=[test]",
         "parents=false", "hydra.verbose=true"]  # fmt: skip


def respond(self, request) -> np.ndarray:
    """Log masses from a table: some candidates rank a patient first whom others rank last."""
    _, weight = request.system.weights(request.session, request.config, request.timer)
    rows = []
    for number in request.rows:
        name = request.data.examples[number].uid
        place = (sum(name.encode()) * (1 if weight == 0 else 7 if weight == 0.5 else 3)) % 11
        rows.append((-1.0 - place, -3.0))
    return np.array(rows)


class Commands:
    """`run(set_up)`: exit code, what was said and left by the command, and the probabilities that the draw had."""

    def __init__(self, monkeypatch, caplog, folder: Path, config: DictConfig) -> None:
        monkeypatch.setattr(Binary, "respond", respond)
        monkeypatch.setattr(mechanism, "draw", lambda gammas, below: 1)
        # Pictures of the rows that metrics.json holds: they take most of the time.
        monkeypatch.setattr("patientdx.cli.sweep_summary.draw", lambda rows, folder: None)
        monkeypatch.setenv(ledger.PLACE, str(folder / "cache/private_search/ledger.jsonl"))
        monkeypatch.setattr(ledger.secrets, "token_hex", lambda count: "5" * 2 * count)
        self.session = Session()
        monkeypatch.setattr(command, "SESSION", self.session)
        caplog.set_level(logging.DEBUG, "patientdx")
        self._log, self._folder, self._config = caplog, folder, config

    def run(self, set_up: Callable[[], object]) -> tuple[dict, list[float]]:
        job = SimpleNamespace(
            mode=RunMode.RUN,
            overrides=SimpleNamespace(task=[], hydra=[]),
            runtime=SimpleNamespace(config_sources=[]),
        )
        for kind in ("task_data", "prompts"):
            self.session._results.pop(kind, None)
        set_up()
        for name in ("outputs", "cache/private_search"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        self._log.clear()
        words, code = io.StringIO(), 0
        with redirect_stdout(words), redirect_stderr(words):
            try:
                command.run_job(self._config, job)
            except SystemExit as end:
                code = end.code
        logged = [record.getMessage() for record in self._log.records]
        told = {"code": code, "printed": words.getvalue(), "logged": logged}
        drawn = [json.loads(file.read_text()) for file in (self._folder / "cache/private_search").glob("*.json")]
        chances = [one["probability"] for kept in drawn for one in kept["not for release"]["candidates"]]
        return told | left(self._folder / "outputs"), chances


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
    yield from ((*pilot[:i], ABSENT, *pilot[i + 1 :]) for i, label in enumerate(pilot) if label is not ABSENT)


def losses(chances: dict[tuple, Sequence[float]], pilots: Sequence[tuple]) -> list[float]:
    """How much the log of each chance changes between a pilot and each of its neighbours."""
    return [
        abs(np.log(one / other))
        for pilot in pilots for near in neighbours(pilot)
        for one, other in zip(chances[pilot], chances[near], strict=True)
    ]  # fmt: skip
