"""Several sweeps at once in one study: none spoils another's table, and nothing is scored twice."""

import csv
import subprocess

import pytest
from command_line import forked, rows_of, small

ONE, OTHER = "lambda=0.2,0.4", "lambda=0.4,0.6"


@pytest.fixture(scope="module")
def ended(place, tiny_base, tiny_pivot) -> list[subprocess.CompletedProcess]:
    """Two sweeps that share a point, and the first of them once more, all three at once; before, each one alone."""
    arguments = ["-m", *small(tiny_base, tiny_pivot)]
    first = [*arguments[1:], "output=first"]
    alone = [[*arguments, ONE, "output=one"], [*arguments, OTHER, "output=other"]]
    for done in forked(place, alone, first=first):
        assert done.returncode == 0, done.stderr
    together = [[*arguments, words, "output=together"] for words in (ONE, OTHER, ONE)]
    note = {"kind": "note_scoring", "into": str(place / "scored")}
    return forked(place, together, first=first, errors=[note] * 3, at_once=True)


def shown(done: subprocess.CompletedProcess) -> set[str]:
    """The merged models of the table that a sweep printed."""
    return {line.split()[1] for line in done.stdout.splitlines() if line.startswith("slerp λ=")}


def test_each_has_the_table_of_its_own_runs(ended):
    for done, own in zip(ended, ("0.2 0.4", "0.4 0.6", "0.2 0.4"), strict=True):
        assert done.returncode == 0, done.stderr
        assert "default: 2 runs" in done.stdout
        assert shown(done) == {f"λ={weight}" for weight in own.split()}


def test_what_is_left_is_the_table_of_the_last_to_end_whole(ended, place):
    study = place / "together/default"
    left = (study / "sweep.csv").read_bytes()
    alone = [(place / name / "default/sweep.csv").read_bytes() for name in ("one", "other")]
    assert left in alone
    with (study / "sweep.csv").open() as file:
        merged = {row["lambda"] for row in csv.DictReader(file) if row["role"] == "merged"}
    folders = {path.name.split("=")[1][:3] for path in study.glob("mortality_*")}
    assert merged < folders == {"0.2", "0.4", "0.6"}
    assert sorted(path.name for path in (study / "sweep").iterdir()) == ["0.json", "1.json"]
    assert list((study / ".sweeps").iterdir()) == []


def test_results_are_those_of_the_sweeps_alone(ended, place):
    for name in ("one", "other"):
        for folder in (place / name / "default").glob("mortality_*"):
            assert rows_of(place / "together/default" / folder.name) == rows_of(folder)


def test_nothing_is_scored_twice_and_no_lock_stays(ended, place):
    scores = place / "together/scores"
    assert all(path.suffix == ".parquet" for path in scores.iterdir())
    assert len(list(scores.iterdir())) == 10  # three λ and two parents, on two splits
    assert len((place / "scored").read_text().splitlines()) == 10
    assert not list((place / "together").rglob("*.json.lock"))
