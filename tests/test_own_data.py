"""The commands of docs/own_data.md, run as they stand there, on files as the page describes them."""

import re
import shlex
from pathlib import Path

import pytest
from command_line import ROOT, forked, rows_of, tiny
from own_files import notes, write
from own_hospitals import concepts, hospital, long, meds, wide, yaib

PAGE = ROOT / "docs" / "own_data.md"


def commands(heading: str) -> list[list[str]]:
    """The arguments of every `python run.py …` below a heading of the page."""
    section = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(heading)]
    return [shlex.split(line)[2:] for line in re.findall(r"^python run\.py .*$", text, re.MULTILINE)]


def with_small_models(base: Path, pivot: Path, words: list[str], name: str) -> list[str]:
    """A command of the page on tiny models, and with what makes it fast."""
    small = [word for word in tiny(base, pivot) if not word.startswith("splits=")]
    at = words.index("-m") + 1 if "-m" in words else 0
    return [*words[:at], *small, f"name={name}", "clinical=false", *words[at:]]


@pytest.fixture(scope="module")
def ended(tiny_base, tiny_pivot, tmp_path_factory):
    """The folder, and the commands on texts with their ends."""
    folder = tmp_path_factory.mktemp("own")
    write(folder / "notes.csv", notes())
    letters = [
        {"note": row["text"], "outcome": "died" if row["label"] else "survived", "mrn": row["patient_id"],
         "age": 40 + i % 50, "lactate": row["lactate"]} for i, row in enumerate(notes(patients=60))
    ]  # fmt: skip
    write(folder / "letters.csv", letters)
    words = commands("A table of texts")
    runs = [with_small_models(tiny_base, tiny_pivot, command, f"run{i}") for i, command in enumerate(words)]
    return folder, words, forked(folder, runs)


def test_the_commands_on_texts_work(ended):
    folder, words, ends = ended
    assert len(words) == 4
    for command, end in zip(words, ends, strict=True):
        assert end.returncode == 0, (command, end.stderr)
    assert len(list((folder / "outputs/run1").glob("yes_no_*"))) == 2
    assert (next((folder / "outputs/run2").glob("yes_no_*")) / "search.json").is_file()


def test_tabular_models_are_fitted_where_columns_are_features(ended):
    folder = ended[0]
    roles = {name: {row["role"] for row in rows_of(next((folder / f"outputs/{name}").glob("yes_no_*")))}
             for name in ("run0", "run3")}  # fmt: skip
    assert roles["run0"] == {"merged", "base", "pivot"}
    assert roles["run3"] == {"merged", "base", "pivot", "tabular_gbm", "tabular_logistic"}
    rows = {row["role"]: row for row in rows_of(next((folder / "outputs/run3").glob("yes_no_*")))}
    assert rows["tabular_logistic"]["auroc"] > 0.6  # lactate tells who is sick
    assert rows["merged"]["data"] == "credentialed"


@pytest.fixture(scope="module")
def stays(tiny_base, tiny_pivot, tmp_path_factory):
    """The same for the commands on stays."""
    folder, house = tmp_path_factory.mktemp("stays"), hospital(stays=120)
    long(folder, house)
    wide(folder, house)
    meds(folder / "meds", house)
    yaib(folder / "export", house)
    concepts(folder / "concepts.csv")
    words = commands("Stays with measurements")
    more = ["baselines=[tabular_logistic]", "task.threads=1"]
    runs = [with_small_models(tiny_base, tiny_pivot, command, f"run{i}") + more for i, command in enumerate(words)]
    return folder, words, forked(folder, runs)


def test_the_commands_on_stays_work_with_language_and_tabular_models(stays):
    folder, words, ends = stays
    assert [word for command in words for word in command if word.startswith("task.layout")] == [
        f"task.layout={layout}" for layout in ("long", "wide", "meds", "yaib")
    ]
    for number, (command, end) in enumerate(zip(words, ends, strict=True)):
        assert end.returncode == 0, (command, end.stderr)
        rows = {row["role"]: row for row in rows_of(next((folder / f"outputs/run{number}").glob("labelled_stays_*")))}
        assert set(rows) == {"merged", "base", "pivot", "tabular_logistic"}
        assert rows["tabular_logistic"]["auroc"] > 0.6  # lactate tells who is sick
