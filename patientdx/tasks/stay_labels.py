"""Labels of stays from a hospital's file: in MEDS' label schema, in YAIB's, or a plain table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from patientdx.core.errors import UserError
from patientdx.core.regular_files import regular_files
from patientdx.records.labelled.events import Events, hours_of
from patientdx.records.labelled.readings import Stay
from patientdx.records.splits import WITHHELD
from patientdx.tasks.item_files import SUFFIXES, rows
from patientdx.tasks.labelled_rows import Columns, LabelledRow, LabelledRows, identifier

# The usual names of each column, in the order in which they are looked for; MEDS' label schema has the first ones.
LABELS, PATIENTS, TIMES = ("boolean_value", "label"), ("subject_id", "patient_id"), ("prediction_time", "time")
OF_STAYS = "stay_id"  # where a file names no patient, each stay stands for one


class LabelledStay(NamedTuple):
    """One label: its row, and the hours of the records that it may be predicted from."""

    row: LabelledRow
    stay: Stay


@dataclass(frozen=True)
class Named:
    """The columns of a file of labels; None: the usual names, and for `discharge` none."""

    label: str | None = None
    patient: str | None = None
    time: str | None = None
    discharge: str | None = None
    split: str | None = "split"
    static: Sequence[str] = ()


@dataclass
class StayLabels:
    """The labels of stays, with their windows. window: hours before the prediction time; None: all that is known."""

    named: Named
    events: Events
    window: int | None
    labels: Mapping[str, int] | None
    fractions: Mapping[str, float]
    seed: int
    secret: bytes
    subject_splits: Mapping[str, str] = field(default_factory=dict)

    def read(
        self, files: Sequence[tuple[Path, str]], statics: Mapping[str, Mapping[str, Any]], split: str | None = None
    ) -> list[LabelledStay]:
        """The labels of all files. statics: columns of a second file (YAIB's sta.parquet), by the id of the records.
        split: that of all rows, whatever the files state.

        Raises UserError for a file or a row that is not valid.
        """
        columns = self._columns(files)
        reader = LabelledRows(columns, self.labels, self.fractions, self.seed, self.secret)
        stays: list[LabelledStay] = []
        locations: dict[tuple[str, float], str] = {}
        for row in reader.read([(path, name, None) for path, name in files], split):
            stay = self._stay(row)
            first = locations.setdefault((stay.key, stay.stop), row.location)
            if first != row.location:
                raise UserError(
                    f"{row.location}: {self.events.id} and prediction time are those of {first} too. Each label is of "
                    "a stay of its own, or of another time."
                )
            if statics and stay.key not in statics:
                raise UserError(f"{row.location}: its {self.events.id} is not in the file of static values.")
            cells = dict(row.cells) | dict(statics.get(stay.key, {}))
            uid, part = f"{stay.key}:{stay.stop:.6f}", self._split(columns, row)
            stay = stay._replace(is_checked=part != WITHHELD)
            stays.append(LabelledStay(replace(row, uid=uid, split=part, cells=cells), stay))
        reader.check_outcomes(files[0][1], ((stay.row.split, stay.row.label) for stay in stays))
        return stays

    def _split(self, columns: Columns, row: LabelledRow) -> str:
        """The split of a row: its own, or where the labels have none that of the records' folder."""
        if not self.subject_splits or columns.split is None or columns.split.lower() in row.cells:
            return row.split
        if row.subject not in self.subject_splits:
            raise UserError(
                f"{row.location}: its patient is not in metadata/subject_splits.parquet of the records. Add it there, "
                "or let the splits be drawn by patient: task.split_column=null."
            )
        return self.subject_splits[row.subject]

    def _columns(self, files: Sequence[tuple[Path, str]]) -> Columns:
        """The names as they are set, or the usual ones that the first row has."""
        present = next((cells for path, name in files for _, cells in rows(path, name, header=True)), {})

        def usual(names: Sequence[str], fallback: str) -> str:
            return next((column for column in names if column in present), fallback)

        label = self.named.label or usual(LABELS, LABELS[-1])
        patient = self.named.patient or usual((*PATIENTS, OF_STAYS), PATIENTS[-1])
        self._time = self.named.time or next((column for column in TIMES if column in present), None)
        further = {self.events.id: "record_columns"} | dict.fromkeys(self.named.static, "static")
        further |= {} if self._time is None else {self._time: "time_column"}
        further |= {} if self.named.discharge is None else {self.named.discharge: "discharge_column"}
        return Columns(label, patient, self.named.split, None, further)

    def _stay(self, row: LabelledRow) -> Stay:
        key = identifier(row.cells[self.events.id.lower()])
        if not key:
            raise UserError(f"{row.location}: column {self.events.id} is empty. Fill it, or take the row out.")
        if self._time is None:
            if self.events.dated:
                raise UserError(
                    f"{row.location}: the records have dates, the labels no prediction time ({' or '.join(TIMES)}). "
                    "Name its column as task.time_column=<name>."
                )
            # Hours from admission: the first `window` of them, or all that the file holds.
            return Stay(key, float("-inf"), float("inf") if self.window is None else float(self.window))
        stop = self._hours(row, self._time)
        if self.named.discharge is not None and stop > self._hours(row, self.named.discharge):
            raise UserError(
                f"{row.location}: column {self._time} is after column {self.named.discharge}: nothing is left to "
                "predict. Take the row out, or predict earlier."
            )
        return Stay(key, float("-inf") if self.window is None else stop - self.window, stop)

    def _hours(self, row: LabelledRow, column: str) -> float:
        hours, dated = hours_of(row.cells[column.lower()], row.location, column)
        if dated != self.events.dated:
            raise UserError(
                f"{row.location}: column {column} is {'a date' if dated else 'a number of hours'}, the records have "
                f"{'dates' if self.events.dated else 'hours'}. Both must count alike."
            )
        return hours


def label_files(root: Path) -> list[tuple[Path, str]]:
    """The files of labels at a path, a file or a folder, with their names in messages. UserError without one."""
    if root.is_file():
        return [(root, root.name)]
    files = regular_files(root, SUFFIXES)
    if not files:
        raise UserError(f"task.path={root} holds no file of labels ({', '.join(SUFFIXES)}).")
    return [(file, file.relative_to(root).as_posix()) for file in files]


def cells_by(path: Path, key: str, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(id, the columns) of each row of a file. UserError for a column that it lacks, or an id twice."""
    ids: set[str] = set()
    for location, cells in rows(path, path.name, header=True):
        for column in (key, *columns):
            if column.lower() not in cells:
                raise UserError(f"{location}: there is no column {column}. Name the columns to take as task.static.")
        value = identifier(cells[key])
        if value in ids:
            raise UserError(f"{location}: its {key} occurs before; each stay has one row.")
        ids.add(value)
        yield value, {column.lower(): cells[column.lower()] for column in columns}
