"""Rows of a hospital's files with a label and a patient each: which columns hold what, and what is refused.

Messages name file, line and column, and quote no value: it may be the text or the id of a patient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patientdx.core.errors import UserError
from patientdx.records.splits import ALL_SPLITS, SPLITS, WITHHELD, position, split_of
from patientdx.tasks.clinical import OPTIONS
from patientdx.tasks.example import Example
from patientdx.tasks.item_columns import without_key
from patientdx.tasks.item_files import SPLIT_WORDS, rows

OPTIONAL_SPLIT = "split"  # the default name of a column that a file need not have
# What MEDS calls the splits, beside the words that files of questions are named by.
SPLIT_VALUES = SPLIT_WORDS | {"tuning": "pilot", "held_out": "test"}
_WORDS = ("yes", "no", "true", "false", "y", "n", "t", "f")  # a message may quote these labels: no patient is in them


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a row's label, patient, split (None: drawn), id (None: by patient) and of others.

    further: columns that each row must have beside these, with the key of the configuration that names each.
    """

    label: str
    patient: str
    split: str | None
    id: str | None
    further: Mapping[str, str] = field(default_factory=dict)

    @property
    def required(self) -> dict[str, str]:
        """Columns that each row must have, with the key that names each."""
        columns = {self.label: "label_column", self.patient: "patient_column", **self.further}
        if self.id is not None:
            columns[self.id] = "id_column"
        if self.split not in (None, OPTIONAL_SPLIT):
            columns[str(self.split)] = "split_column"
        return columns


@dataclass(frozen=True)
class LabelledRow:
    """One row of a file: `cells` are all its columns, by names in lower case; `label` is 0 or 1."""

    location: str
    uid: str
    subject: str
    split: str
    label: int
    cells: Mapping[str, Any]

    def order(self, seed: int, secret: bytes) -> tuple[int, float]:
        """Its place among sorted rows: split after split, and with a secret in an order that only its holder knows."""
        return ALL_SPLITS.index(self.split), position("order", seed, self.uid, secret=secret) if secret else 0.0

    def example(self, text: str, question: str) -> Example:
        """The question behind a text of this row, answered with yes or no."""
        return Example(
            uid=self.uid, subject=self.subject, split=self.split, prefix="", context=text, suffix=f"\n\n{question}",
            options=OPTIONS, label=self.label,
        )  # fmt: skip


@dataclass
class LabelledRows:
    """The rows of all files, checked one by one as they are read.

    labels: what other labels than 0 and 1 mean, by their text (None: others are refused). fractions, seed: draw the
    split of a patient where the files state none, keyed with `secret`.
    """

    columns: Columns
    labels: Mapping[str, int] | None
    fractions: Mapping[str, float]
    seed: int
    secret: bytes
    _locations: dict[str, str] = field(default_factory=dict)  # of each id
    _rows: Counter[str] = field(default_factory=Counter)  # of each patient
    _splits: dict[str, tuple[str, str]] = field(default_factory=dict)  # split and first location of each patient

    def __post_init__(self) -> None:
        self._meanings = _meanings(self.labels)

    def read(self, files: Iterable[tuple[Path, str, str | None]], split: str | None = None) -> Iterator[LabelledRow]:
        """The rows of files, each given with its name in messages and the split that its name states (or None).

        split: the split of all rows, whatever the files state. Raises UserError at the first row that is not valid,
        and for a file without any, but for one of several in which the patients of the pilot may be.
        """
        empty, is_filled = [], False
        for path, name, of_file in files:
            number = 0
            for number, (location, cells) in enumerate(rows(path, name, header=True), 1):
                yield self._row(without_key(location, number), cells, split or of_file, is_fixed=split is not None)
            is_filled = is_filled or number > 0
            empty += [(name, of_file)] if number == 0 else []
        for name, of_file in empty:
            if not is_filled or of_file not in (None, WITHHELD):
                raise UserError(f"{name} holds no rows below its header.")

    def check_outcomes(self, name: str, labels: Iterable[tuple[str, int]]) -> None:
        """UserError where all rows, (split, label), have one label; `name` is that of the file or folder."""
        different = {label for split, label in labels if split != WITHHELD}
        if len(different) == 1:
            raise UserError(
                f"{name}: every label in column {self.columns.label} is {different.pop()}. Both outcomes are needed; "
                "give the rows of the patients without the event too, or name another column as task.label_column."
            )

    def _row(self, location: str, cells: Mapping[str, Any], split: str | None, *, is_fixed: bool) -> LabelledRow:
        for column, key in self.columns.required.items():
            if column.lower() not in cells:
                raise UserError(
                    f"{location}: there is no column {column} among its {len(cells)} columns. Set task.{key} to the "
                    "column's name; a csv file needs a first line with the names."
                )
        subject = self._cell(location, cells, self.columns.patient)
        uid = self._uid(location, cells, subject)
        label = self._label(location, cells[self.columns.label.lower()])
        if not is_fixed:
            split = self._split(location, cells, subject, split)
        split = str(split)
        known, first = self._splits.setdefault(subject, (split, location))
        if known != split:
            raise UserError(
                f"{location}: its patient is in {split}, and in {known} at {first}. A patient belongs to one split, or "
                "the model is tested on patients that it has seen. Mend the splits, or let them be drawn by patient: "
                "task.split_column=null."
            )
        return LabelledRow(location, uid, subject, split, label, cells)

    def _uid(self, location: str, cells: Mapping[str, Any], subject: str) -> str:
        """The row's own id, or its patient's and which of the patient's rows it is: its line would tell how many rows
        of other patients stand before it."""
        if self.columns.id is None:
            self._rows[subject] += 1
            return f"{subject}:{self._rows[subject]}"
        uid = self._cell(location, cells, self.columns.id)
        first = self._locations.setdefault(uid, location)
        if first != location:
            raise UserError(
                f"{location}: column {self.columns.id} has the id of {first} again. Each row needs an id of its own; "
                "take one of the rows out, or leave task.id_column out."
            )
        return uid

    def _cell(self, location: str, cells: Mapping[str, Any], column: str) -> str:
        """The text of an id; UserError where it is empty."""
        text = identifier(cells[column.lower()])
        if not text:
            raise UserError(f"{location}: column {column} is empty. Fill it, or take the row out.")
        return text

    def _label(self, location: str, value: Any) -> int:
        value = int(value) if isinstance(value, bool) else value  # the type says what it means, as no word does
        text = "" if value is None or value != value else str(value).strip().casefold()
        label = self._meanings.get(text)
        if label is not None:
            return label
        column = self.columns.label
        if not text:
            raise UserError(f"{location}: column {column} is empty. A label is 0 or 1; take rows without a label out.")
        if self.labels is not None:
            raise UserError(f"{location}: the label in column {column} is none of those in task.labels.")
        if text in _WORDS:
            raise UserError(
                f"{location}: the label in column {column} is {text}, neither 0 nor 1. Say what the words mean: "
                "'task.labels={yes: 1, no: 0}'."
            )
        raise UserError(
            f"{location}: the label in column {column} is neither 0 nor 1. Map other values by hand: "
            "'task.labels={died: 1, survived: 0}'."
        )

    def _split(self, location: str, cells: Mapping[str, Any], subject: str, of_file: str | None) -> str:
        column = self.columns.split
        if column is None or column.lower() not in cells:
            return of_file or split_of(subject, seed=self.seed, fractions=self.fractions, secret=self.secret)
        split = SPLIT_VALUES.get(str(cells[column.lower()]).strip().lower())
        if split is None:
            raise UserError(
                f"{location}: column {column} holds none of {', '.join(SPLITS)} (nor tuning, held_out). Mend it, or "
                "let the splits be drawn by patient: task.split_column=null."
            )
        if of_file not in (None, split):
            raise UserError(
                f"{location}: column {column} says {split}, and the name of the file says {of_file}. Leave one of them "
                "out: task.split_column=null, or one file alone."
            )
        return split


def _meanings(labels: Mapping[str, int] | None) -> dict[str, int]:
    """The label that each text stands for. UserError unless both labels occur in `labels`, and nothing else."""
    if labels is None:
        return {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
    meanings = {str(text).strip().casefold(): label for text, label in labels.items()}
    if set(meanings.values()) != {0, 1} or any(isinstance(label, bool) for label in labels.values()):
        raise UserError("task.labels maps every value of the label's column to 0 or 1, as in '{died: 1, survived: 0}'.")
    return meanings


def identifier(value: Any) -> str:
    """An id as text, "" for a missing value; whole numbers are written alike in every format."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None or value != value else str(value).strip()


def number(location: str, cells: Mapping[str, Any], column: str) -> float:
    """The number in a column; NaN where it is empty. UserError for what is no finite number."""
    value = cells.get(column.lower())
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return float("nan")
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise UserError(
            f"{location}: column {column} is no number. Numeric columns alone can be features; leave the cell empty "
            "where nothing was measured."
        ) from None
    if result in (float("inf"), float("-inf")):
        raise UserError(f"{location}: column {column} is infinite. Leave the cell empty where nothing was measured.")
    return result


def check_columns(names: Sequence[str], taken: Mapping[str, str | None], key: str) -> None:
    """UserError where a column of the list `task.<key>` occurs twice or holds something else, as the label.

    taken: columns by the key that names them.
    """
    used = {column.lower(): name for name, column in taken.items() if column is not None}
    for index, column in enumerate(names):
        if column.lower() in used:
            raise UserError(
                f"task.{key}: {column} is the column of task.{used[column.lower()]}, and would tell a model the "
                "answer or who the patient is. Take it out."
            )
        if column.lower() in (other.lower() for other in names[:index]):
            raise UserError(f"task.{key}: {column} occurs twice. Name each column once.")


def asked_question(question: str | None) -> str:
    """The question without white space around it; UserError where there is none."""
    text = (question or "").strip()
    if not text:
        raise UserError(
            "task.question is missing: ask so that Yes means label 1, as in task.question='Will the patient be "
            "admitted again within 30 days? Answer with yes or no.'"
        )
    return text
