"""The command line with all that may stand beside a merge: tabular models, other wordings, the clinical evaluation."""

import csv
import json
import subprocess
from pathlib import Path

import pytest
from command_line import forked, rows_of, small, the_one

ALL = ("baselines=null", "clinical=true", "prompt_variants=true")
PICTURES = {"calibration.png", "decision_curve.png", "distribution.png", "roc_pr.png"}
BESIDE = ("news2", "oasis", "sofa", "tabular_gbm", "tabular_logistic")
ROLES = {"merged", "base", "pivot", *BESIDE}


@pytest.fixture(scope="module")
def arguments(tiny_base, tiny_pivot) -> list[str]:
    return small(tiny_base, tiny_pivot, *ALL)


@pytest.fixture(scope="module")
def others(done, place, arguments, tiny_pivot) -> dict[str, subprocess.CompletedProcess]:
    """The same again; tabular models alone, where there is no language model to open; a sweep."""
    nowhere = small(place / "nowhere", tiny_pivot, "baselines=null", "clinical=true", "name=alone")
    commands = {
        "again": arguments,
        "alone": [*nowhere, "model=tabular_logistic"],
        "both alone": ["-m", *nowhere, "model=tabular_gbm,tabular_logistic"],
    }
    ended = forked(place, list(commands.values()), models_may_load=False)
    ended += forked(place, [["-m", *arguments, "name=sweep", "lambda=0.2,0.4"]])
    return dict(zip([*commands, "sweep"], ended, strict=True))


@pytest.fixture(scope="module")
def result(done, place) -> Path:
    return the_one(place, "outputs/default/mortality_*")


def test_what_a_run_leaves(result):
    left = {path.name for path in result.iterdir()}
    assert left >= PICTURES | {"clinical.json", "clinical.txt", "cohort.csv", "metrics.json", "predictions.parquet"}
    found = json.loads((result / "clinical.json").read_text())
    assert found["models"].keys() == ROLES == {row["role"] for row in rows_of(result)}
    assert found["models"]["merged"]["subgroups"].keys() >= {"age", "sex"}
    wordings = json.loads((result / "prompt_variants.json").read_text())["wordings"]
    assert [one["reverses"] for one in wordings.values()].count(True) >= 1
    with (result / "cohort.csv").open() as file:
        steps = list(csv.DictReader(file))
    assert json.loads((result / "provenance.json").read_text())["task"]["cohort"] == [
        {key: value if key == "step" else int(value) for key, value in step.items()} for step in steps
    ]


def test_what_it_says_fits_a_narrow_terminal(done):
    lines = done.stdout.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    for title in ("Cohort", "Models, mortality", "Clinical evaluation, test", "merged with other prompts"):
        assert title in [line.strip() for line in lines]
    assert len(lines) < 110
    assert done.stderr == ""


def test_the_same_command_again_says_the_same(others, done):
    again = others["again"]
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[:-1] == done.stdout.splitlines()[:-1]
    assert "already finished, nothing was computed again: " in again.stdout


def test_a_tabular_model_alone_needs_no_language_model(others, result, place):
    assert others["alone"].returncode == 0, others["alone"].stderr
    beside = [row for row in rows_of(result) if row["role"] == "tabular_logistic"]
    assert rows_of(the_one(place, "outputs/alone/mortality_tabular_logistic_*")) == beside
    assert others["both alone"].returncode == 0, others["both alone"].stderr
    with (place / "outputs/alone/sweep.csv").open() as file:
        assert [row["role"] for row in csv.DictReader(file)] == ["tabular_gbm", "tabular_logistic"] * 2


def test_two_processes_find_and_say_the_same(done, arguments, place, result):
    (pair,) = forked(place, [[*arguments, "output=pair"]], processes=2)
    assert pair.returncode == 0, pair.stderr
    theirs = place / "pair/default" / result.name
    assert rows_of(theirs) == rows_of(result)
    for name in ("clinical.json", "cohort.csv"):
        assert (theirs / name).read_bytes() == (result / name).read_bytes()
    assert pair.stdout.splitlines()[:-1] == done.stdout.splitlines()[:-1]


def test_a_sweep_evaluates_every_run_and_fits_once(others, place, result):
    sweep = others["sweep"]
    assert sweep.returncode == 0, sweep.stderr
    assert "Clinical evaluation" not in sweep.stdout
    folders = list((place / "outputs/sweep").glob("mortality_*"))
    assert len(folders) == 2
    for folder in folders:
        assert json.loads((folder / "clinical.json").read_text())["models"].keys() == ROLES
        assert rows_of(folder)[6:] == rows_of(result)[6:]
    seconds = [json.loads(path.read_text())["seconds"] for path in sorted((place / "outputs/sweep/sweep").glob("*"))]
    assert "baselines" not in seconds[0].keys() | seconds[1].keys()  # the single run had fitted them
    with (place / "outputs/sweep/sweep.csv").open() as file:
        roles = [row["role"] for row in csv.DictReader(file)]
    assert roles == ["base", "merged", "merged", "pivot", *BESIDE] * 2
