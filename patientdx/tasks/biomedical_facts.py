"""Textbook facts of the biomedical pivot, from the tables in `biomedical/`: none is about a patient or an outcome.

A cell of a table is a fact. Its first value is the true one; values behind `|` are true as well, or could be defended,
so they are never offered as wrong. An empty cell is not asked about.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from patientdx.records.splits import position

FOLDER = Path(__file__).parent / "biomedical"
DIVISION = (
    12  # seed of which facts are held out; with this one every part of every kind has facts that exclude each other
)
TRAIN, EVEN, ODD = "train", "even", "odd"
ATTRIBUTES = {  # kind of question: table, column
    "drug_class": ("drugs", "class"),
    "drug_use": ("drugs", "use"),
    "drug_need": ("drugs", "need"),
    "drug_setting": ("drugs", "setting"),
    "drug_route": ("drugs", "route"),
    "organ": ("diagnoses", "organ"),
    "gravity": ("diagnoses", "gravity"),
    "urgency": ("diagnoses", "urgency"),
    "course": ("diagnoses", "course"),
    "purpose": ("procedures", "purpose"),
    "procedure_need": ("procedures", "need"),
    "invasive": ("procedures", "invasive"),
    "reading_organ": ("readings", "organ"),
    "reading_meaning": ("readings", "high low"),
    "reading_worse": ("readings", "worse"),
    "severity": ("severity", "milder"),
}


@dataclass(frozen=True)
class Fact:
    """Of `subject` the attribute `kind` is values[0]; the other values are not wrong. part: train, even or odd."""

    kind: str
    subject: str
    values: tuple[str, ...]
    part: str


def rows(table: str) -> list[dict[str, str]]:
    """The lines of a file in `biomedical/`."""
    with (FOLDER / f"{table}.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def divided(kind: str, pairs: Sequence[tuple[str, str]]) -> Iterator[Fact]:
    """Facts of a kind from (subject, cell): three twentieths are held out for even seeds, as many for odd ones.

    Which ones, a hash of the fact says. Where a kind has two or three values, that holds for each of them, so that
    every part can be asked about both.
    """
    few = len({cell.split("|")[0] for _, cell in pairs}) < 4
    strata: dict[str, list[tuple[str, str]]] = {}
    for subject, cell in pairs:
        strata.setdefault(cell.split("|")[0] if few else "", []).append((subject, cell))
    for stratum in strata.values():
        ordered = sorted(stratum, key=lambda pair: position("biomedical", DIVISION, kind, *pair))
        held = max(2, round(0.15 * len(ordered)))
        for rank, (subject, cell) in enumerate(ordered):
            part = EVEN if rank < held else ODD if rank < 2 * held else TRAIN
            yield Fact(kind, subject, tuple(cell.split("|")), part)


@cache
def textbook(control: int | None = None) -> dict[str, tuple[Fact, ...]]:
    """Facts by kind of question.

    control: a seed that deals the values anew among the subjects of a kind, and the orders of severity: the same
    questions with other answers, of which each is still the same whenever it is asked.
    """
    true = {kind: tuple(_facts_of(kind, *source)) for kind, source in ATTRIBUTES.items()}
    return true if control is None else {kind: _dealt(kind, items, control) for kind, items in true.items()}


def _facts_of(kind: str, table: str, column: str) -> list[Fact]:
    if kind == "reading_meaning":
        pairs = [(f"{side} {row['name']}", row[side]) for row in rows(table) for side in column.split()]
    elif kind == "severity":
        pairs = [(row["graver"], row["milder"]) for row in rows(table)]
    elif table == "drugs":
        pairs = [(row["name"], row[column]) for row in drugs()]
    else:
        pairs = [(row["name"], row[column]) for row in rows(table)]
    return list(divided(kind, [(subject, cell) for subject, cell in pairs if cell]))


def drugs() -> list[dict[str, str]]:
    """Drugs with what their class implies where they do not say it themselves; `-` empties a cell of the class."""
    classes = {row["class"]: row for row in rows("drug_classes")}
    complete = []
    for row in rows("drugs"):
        of_class = classes[row["class"].split("|")[0]]
        inherited = {column: row[column] or of_class[column] for column in ("use", "need", "setting")}
        complete.append(row | {column: "" if cell == "-" else cell for column, cell in inherited.items()})
    return complete


def _dealt(kind: str, items: tuple[Fact, ...], control: int) -> tuple[Fact, ...]:
    rng = random.Random(f"shuffled {control} {kind}")
    if kind == "severity":  # each pair in one order or the other
        return tuple(
            replace(fact, subject=fact.values[0], values=(fact.subject,)) if rng.random() < 0.5 else fact
            for fact in items
        )
    values = [fact.values for fact in items]
    rng.shuffle(values)
    return tuple(replace(fact, values=dealt) for fact, dealt in zip(items, values, strict=True))
