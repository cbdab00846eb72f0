"""External validation as a run does it: what is scored, frozen and shown; commands of docs/own_data.md."""

import json
from pathlib import Path

import pytest
from command_line import forked, rows_of, tiny_settings
from in_process import new_session, run
from own_files import QUESTION, notes, write
from own_hospitals import hospital, later, yaib
from test_own_data import commands, with_small_models

from patientdx.core.errors import UserError
from patientdx.evaluation.analyses import external_tables
from patientdx.evaluation.analyses.entries import Entry
from patientdx.reporting.terminal import text


@pytest.fixture(scope="module")
def ended(tiny_base, tiny_pivot, ward, tmp_path_factory):
    """The folder, and the commands of the page with their ends; the second hospital has sicker patients."""
    folder = tmp_path_factory.mktemp("sites")
    write(folder / "notes.csv", notes(patients=60))
    write(folder / "site_b.csv", notes(patients=60, seed=8, risk=0.7))
    yaib(folder / "export", hospital(stays=120))
    yaib(folder / "export_b", hospital(stays=120, seed=9, severity=1.0))
    later(ward, folder / "mimic")
    yaib(folder / "site_a", hospital(stays=240))
    yaib(folder / "site_b", hospital(stays=240, seed=1, severity=1.0))
    words = commands("Another hospital, or later years")
    runs = [with_small_models(tiny_base, tiny_pivot, command, f"run{i}") for i, command in enumerate(words)]
    for command in runs:
        if not any(word.startswith(("baselines=", "task=yes_no")) for word in command):
            command.append("baselines=[tabular_logistic]")
    return folder, words, forked(folder, runs)


def result(folder: Path, name: str) -> Path:
    (found,) = folder.glob(f"outputs/{name}/*/metrics.json")
    return found.parent


def test_the_commands_score_pilot_test_and_external_and_show_both_sides(ended):
    folder, words, ends = ended
    assert len(words) == 4
    for number, (command, end) in enumerate(zip(words, ends, strict=True)):
        assert end.returncode == 0, (command, end.stderr)
        rows = rows_of(result(folder, f"run{number}"))
        assert {row["split"] for row in rows} == {"pilot", "test", "external"}
        assert "Inside and outside" in end.stdout
        assert "Losses compared" in end.stdout
        external = json.loads((result(folder, f"run{number}") / "external.json").read_text())
        assert external["frozen_on"] == "pilot"
        by_role = {(row["role"], row["split"]): row["auroc"] for row in rows}
        for role, model in external["models"].items():
            values = [model["measures"]["auroc"][side]["value"] for side in ("inside", "outside")]
            assert values == pytest.approx([by_role[role, "test"], by_role[role, "external"]])


def test_two_hospitals_of_different_case_mix_differ_in_the_table(ended):
    external = json.loads((result(ended[0], "run1") / "external.json").read_text())
    inside, outside = (external["cohorts"][side]["prevalence"] for side in ("inside", "outside"))
    assert outside > inside + 0.1
    tabular = external["models"]["tabular_logistic"]["measures"]
    assert tabular["auroc"]["outside"]["value"] > 0.6
    assert {pair["b"] for pair in external["paired"]} == {"base", "pivot", "tabular_logistic"}
    entries = [Entry(role, role, external) for role in external_tables.roles(external)]
    shown = text(*external_tables.tables(entries), width=140)
    for word in ("recalibrated Brier", "sensitivity", "external: n = 120", "frozen outside", "loss of"):
        assert word in shown


def test_a_search_chooses_inside_alone(tiny_base, tiny_pivot, tmp_path):
    a, b = write(tmp_path / "a.csv", notes()), write(tmp_path / "b.csv", notes(seed=8, risk=0.7))
    with new_session():
        chosen = []
        for other in ([], [f"task.external={{path: {b}}}"]):
            words = ["task=yes_no", f"task.path={a}", f"task.question='{QUESTION}'", "search=grid", "clinical=false"]
            config = tiny_settings(tiny_base, tiny_pivot, tmp_path / f"out{len(chosen)}", *words, *other, "splits=null")
            folder = run(config).folder
            chosen.append(json.loads((folder / "search.json").read_text())["chosen"])
        assert chosen[0] == chosen[1]
        private = tiny_settings(
            tiny_base, tiny_pivot, tmp_path / "out", *words[:-2], *other, "search=private", "splits=null"
        )
        assert private.inference.splits == ("test", "external")
        with pytest.raises(UserError, match="Put another split last"):
            tiny_settings(tiny_base, tiny_pivot, tmp_path, *words, *other, "splits=[pilot,external]")
