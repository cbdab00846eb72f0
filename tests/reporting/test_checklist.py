"""The checklists: their items, and what a run answers."""

import json
from itertools import groupby

import pytest
from made_studies import write_made_run

from patientdx.cli.checklist import main
from patientdx.reporting import checklist
from patientdx.reporting.runs import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_made_run(tmp_path_factory.mktemp("study"), "slerp", 0.4, 1.0, clinical=True)


def where(folder, name: str) -> dict[str, tuple[str, ...]]:
    return {one.item.number: one.locations for one in checklist.answers(Run(folder)) if one.item.checklist == name}


@pytest.mark.parametrize(
    ("name", "letters"),
    [
        ("TRIPOD+AI", {3: 3, 5: 2, 6: 3, 8: 3, 9: 3, 12: 7, 18: 6, 20: 3, 23: 2, 27: 3}),
        ("TRIPOD-LLM", {3: 2, 5: 5, 6: 5, 7: 5, 8: 3, 9: 2, 14: 6, 16: 4, 19: 7}),
    ],
)
def test_the_numbers_are_those_that_were_published(name, letters):
    numbers = [item.number for item in checklist.items() if item.checklist == name]
    expected = []
    for number in range(1, {"TRIPOD+AI": 27, "TRIPOD-LLM": 19}[name] + 1):
        expected += [f"{number}{letter}" for letter in "abcdefg"[: letters.get(number, 0)]] or [str(number)]
    assert numbers == expected
    assert all(len(list(same)) == 1 for _, same in groupby(numbers))


def test_an_item_is_answered_by_what_the_folder_has(folder):
    answers = where(folder, "TRIPOD+AI")
    assert answers["5a"] == ("provenance.json:task.source",)  # there are no tables in a made run
    assert answers["23a"][:2] == ("metrics.json:rows", "clinical.json:models.*.discrimination")
    assert answers["18e"] == ("provenance.json:task.open_data",)  # false would be an answer too
    assert answers["20b"] == answers["17"] == answers["26"] == ()
    assert where(folder, "TRIPOD-LLM")["6a"] == ("provenance.json:parents",)


def test_what_is_suppressed_or_without_a_value_answers_nothing(folder):
    result = json.loads((folder / "clinical.json").read_text())
    contents = {"clinical.json": result}
    location = "clinical.json:models.*.subgroups.*.gaps.auroc.value"
    gaps = [
        part["gaps"]["auroc"]["value"] for model in result["models"].values() for part in model["subgroups"].values()
    ]
    assert checklist._is_there(contents, location) == any(value is not None for value in gaps)
    for model in result["models"].values():
        model["subgroups"] = {"sex": {"cells": {"F": {"suppressed": "few"}}, "gaps": {"auroc": {"value": None}}}}
    assert not checklist._is_there(contents, location)
    assert not checklist._is_there(contents, "clinical.json:models.*.subgroups.*.cells.*.auroc")
    assert checklist._is_there(contents, "clinical.json:models.*.subgroups")


@pytest.mark.parametrize("form", ["text", "markdown", "csv"])
def test_the_command_prints_every_item(folder, form, capsys):
    assert main([str(folder), "--format", form]) == 0
    shown = capsys.readouterr().out
    assert "TRIPOD+AI" in shown or form == "csv"
    assert shown.count("not reported") >= 30
    assert "provenance.json:task.source" in shown
    assert str(folder) not in shown


def test_a_study_of_several_runs_and_an_empty_folder_are_refused(tmp_path, capsys):
    for number in (1, 2):
        write_made_run(tmp_path / "study" / str(number), "slerp", 0.2 * number, 1.0)
    assert main([str(tmp_path / "study")]) == 2
    said = capsys.readouterr().err
    assert "holds 2 runs, and a checklist is filled from one. Give its result folder" in said
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty")]) == 2
    assert "holds no finished run" in capsys.readouterr().err
