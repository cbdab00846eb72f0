"""A yes/no question about texts of a hospital's own: one row per text, with its label and its patient."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from patientdx.core.cache import draw_secret
from patientdx.core.errors import UserError
from patientdx.records.features import Features
from patientdx.records.parameters import check_numbers
from patientdx.records.splits import ALL_SPLITS, EXTERNAL, FRACTIONS, WITHHELD, checked_fractions, position
from patientdx.tasks.clinical import checked_variants
from patientdx.tasks.data_files import digests, located, split_files
from patientdx.tasks.elsewhere import elsewhere, with_elsewhere
from patientdx.tasks.example import Example, TaskData, fingerprint
from patientdx.tasks.hub_files import origin
from patientdx.tasks.item_files import limited
from patientdx.tasks.labelled_rows import Columns, LabelledRow, LabelledRows, asked_question, check_columns, number
from patientdx.tasks.leaks import check_leaks
from patientdx.tasks.repeats import Repeats, distinct_step

VERSION = 2  # raise it when the same file gives other prompts or other splits
NAME = "yes_no"
_SOURCE = "It has a row for each text: text, label (0 or 1), patient_id and, where you divide the patients, split."
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class YesNoTask:
    """The keys of the task, as conf/task/yes_no.yaml explains them."""

    cache: Path
    question: str | None = None
    path: str | None = None
    text_column: str = "text"
    label_column: str = "label"
    patient_column: str = "patient_id"
    split_column: str | None = "split"
    id_column: str | None = None
    labels: Mapping[str, int] | None = None
    features: Sequence[str] = ()
    fractions: Mapping[str, float] = field(default_factory=lambda: dict(FRACTIONS))
    seed: int = 0
    limit: int | None = None
    prompt_variants: Sequence[Mapping[str, Any]] = ()
    open_data: bool = False
    external: Mapping[str, Any] | None = None

    def load(self) -> TaskData:
        """One example per row, with `external` also those of another file, in the split external.

        Raises UserError for a parameter, a file or a row that is not valid.
        """
        inside = self._load()
        return inside if self.external is None else with_elsewhere(inside, elsewhere(self)._load(split=EXTERNAL))

    def _load(self, *, split: str | None = None) -> TaskData:
        """The examples of one hospital; split: that of all of them, None: as the files say, or drawn."""
        question = asked_question(self.question)
        check_numbers(limit=(self.limit, 1), seed=(self.seed, 0))
        fractions = checked_fractions(self.fractions)
        variants = checked_variants(self.prompt_variants, {})
        taken = {key: getattr(self, key) for key in ("text_column", "label_column", "patient_column", "split_column",
                                                     "id_column")}  # fmt: skip
        check_columns(self.features, taken, "features")
        root = located(NAME, self.path, _SOURCE)
        secret = draw_secret(self.cache, open_data=self.open_data)
        reader = LabelledRows(self._columns(), self.labels, fractions, self.seed, secret)
        texts = _Texts(self.text_column)
        kept = limited(
            texts.checked(reader.read(_files(root), split)),
            lambda row: (row.split, position("order", self.seed, row.uid, secret=secret)),
            dict.fromkeys(ALL_SPLITS, self.limit),
        )
        reader.check_outcomes(root.name, texts.labels())
        texts.check()
        kept.sort(key=lambda row: row.order(self.seed, secret))
        examples = tuple(row.example(texts.of(row), question) for row in kept)
        settings: dict[str, Any] = {
            "task": NAME, "version": VERSION, "question": question, "fractions": fractions, "seed": self.seed,
            "limit": self.limit, "features": list(self.features), "open_data": self.open_data,
        }  # fmt: skip
        return TaskData(
            name=NAME,
            kind="binary",
            examples=examples,
            open_data=self.open_data,
            fingerprint=fingerprint(examples, settings),
            provenance={"source": digests(root), "settings": settings} | origin(NAME, self.path, root),
            cohort=texts.cohort(examples),
            prompt_variants=variants,
            features=self._features(kept),
        )

    def _columns(self) -> Columns:
        further = {self.text_column: "text_column"} | dict.fromkeys(self.features, "features")
        return Columns(self.label_column, self.patient_column, self.split_column, self.id_column, further)

    def _features(self, kept: Sequence[LabelledRow]) -> Features | None:
        """The numeric columns that tabular models get; UserError where one of them gives the label away."""
        if not self.features:
            return None
        values = [[number(row.location, row.cells, column) for column in self.features] for row in kept]
        features = Features(tuple(self.features), np.array(values, dtype=np.float64))
        check_leaks(features, kept, "task.features")
        return features


@dataclass
class _Texts:
    """The texts of the rows, checked and counted as they pass; no more of them is held than a digest."""

    column: str
    _repeats: Repeats = field(default_factory=lambda: Repeats(across=True))
    _first: dict[str, str] = field(default_factory=dict)  # location of the first equal text of the same patient
    _sides: dict[bytes, set[str]] = field(default_factory=dict)  # splits of each text
    _rows: list[tuple[str, str, int]] = field(default_factory=list)  # split, patient and label

    def of(self, row: LabelledRow) -> str:
        """The text of a row."""
        return str(row.cells[self.column.lower()] or "").replace("\r\n", "\n").strip()

    def checked(self, rows: Iterator[LabelledRow]) -> Iterator[LabelledRow]:
        """The rows, each with a text; UserError for an empty text."""
        for row in rows:
            text = self.of(row)
            if not text:
                raise UserError(
                    f"{row.location}: column {self.column} is empty. A model that reads nothing predicts nothing; fill "
                    "it, or take the row out."
                )
            self._first[row.uid] = self._repeats.first(row.location, row.split, (row.subject, text))
            self._sides.setdefault(hashlib.blake2b(text.encode(), digest_size=16).digest(), set()).add(row.split)
            self._rows.append((row.split, row.subject, row.label))
            yield row

    def labels(self) -> Iterator[tuple[str, int]]:
        """Split and label of every row."""
        return ((split, label) for split, _, label in self._rows)

    def check(self) -> None:
        """UserError for a file with its copy; a warning for texts that two patients of different splits share."""
        self._repeats.check(unchecked=WITHHELD)
        if shared := sum(len(splits) > 1 for splits in self._sides.values()):
            log.warning(
                "%d texts occur in more than one split, under different patients: are these the same persons?", shared
            )

    def cohort(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """The attrition table: rows read, and those kept."""
        counts = {
            "rows": [(subject, label) for _, subject, label in self._rows],
            "kept": [(example.subject, example.label or 0) for example in examples],
        }
        steps: list[dict[str, Any]] = [
            {"step": step, "texts": len(rows), "patients": len({subject for subject, _ in rows}),
             "events": sum(label for _, label in rows)}
            for step, rows in counts.items()
        ]  # fmt: skip
        return steps + distinct_step("texts", len(examples), len({self._first[example.uid] for example in examples}))


def _files(root: Path) -> list[tuple[Path, str, str | None]]:
    """The files with their names and, in a folder, the splits that these state."""
    if root.is_file():
        return [(root, root.name, None)]
    return [(file, name, split) for file, name, split in split_files(root)]
