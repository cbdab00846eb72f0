"""The records of any hospital as one table of events in DuckDB: whose, when, which code, which value.

Layouts: `meds` (a MEDS folder), `long` (a row for each value), `wide` (a column for each code), `yaib` (YAIB's export,
whose dyn.parquet is wide). Times are hours: since 1970 where the records have dates, else as the records count them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from patientdx.core.errors import UserError
from patientdx.core.regular_files import is_regular
from patientdx.core.tables import repeated
from patientdx.records.meds.folder import meds_folder

LAYOUTS = ("meds", "long", "wide", "yaib")
ID_COLUMNS = ("stay_id", "subject_id", "patient_id")  # what a row of the records is of, where no column is named
MEDS_ID = "subject_id"
_READERS = {".parquet": "read_parquet(?)", ".csv": "read_csv(?, all_varchar=true, header=true)",
            ".tsv": "read_csv(?, all_varchar=true, header=true, delim='\t')"}  # fmt: skip
_HOURS = "3.6e9"  # microseconds


@dataclass(frozen=True)
class Names:
    """Names of the columns: whose (None: the first of ID_COLUMNS that is there), when, and of long tables what."""

    id: str | None = None
    time: str = "time"
    code: str = "code"
    value: str = "value"


@dataclass(frozen=True)
class Events:
    """The table `events` (key, time in hours, code, value) of a connection; value is NULL where it is no number.

    id: the column that `key` was. dated: whether times are hours since 1970. files: name to path, for hashes. splits:
    that of each patient by its id, where a MEDS folder says it.
    """

    id: str
    dated: bool
    files: Mapping[str, Path]
    splits: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def plain_errors(what: str) -> Iterator[None]:
    """DuckDB's errors inside the block as UserError, without its message, which may quote a patient's row."""
    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.IOException):
        raise
    except duckdb.Error as error:
        raise UserError(f"{what} cannot be read ({type(error).__name__}): is it whole, and of this kind?") from None


def open_events(con: duckdb.DuckDBPyConnection, path: Path, layout: str, names: Names) -> Events:
    """Make the table `events` of the connection. Raises UserError for files, columns and times that are not valid."""
    if layout == "meds":
        return _meds(con, path)
    if layout == "yaib":
        path = yaib_file(path, "dyn.parquet")
    if not is_regular(path):
        raise UserError(
            f"task.records={path}: there is no such file. A {layout} table is one csv, tsv or parquet file."
        )
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"task.records={path.name}: records are read from {', '.join(_READERS)}.")
    with plain_errors(path.name):
        rows = con.execute(f"DESCRIBE SELECT * FROM {reader}", [str(path)]).fetchall()
    types = {str(name).lower(): (str(name), str(kind)) for name, kind, *_ in rows}
    if again := repeated([str(name).lower() for name, *_ in rows]):
        raise UserError(f"{path.name} has the column {again[0]} more than once: leave one.")
    needed = {"time": names.time} | ({"code": names.code, "value": names.value} if layout == "long" else {})
    key = names.id or next((column for column in ID_COLUMNS if column in types), None)
    if key is None:
        raise UserError(
            f"{path.name} has none of the columns {', '.join(ID_COLUMNS)}: name the one that says whose a row is, as "
            "'task.record_columns={id: <name>}'."
        )
    for name, column in (needed | {"id": key}).items():
        if column.lower() not in types:
            raise UserError(
                f"{path.name} has no column {column}. Name the right one as 'task.record_columns={{{name}: <name>}}'."
            )
    with plain_errors(path.name):
        con.execute(f"CREATE OR REPLACE TEMP VIEW raw AS SELECT * FROM {reader.replace('?', _quoted(str(path)))}")
        return _normalised(con, path, types, key.lower(), names, layout)


def yaib_file(folder: Path, name: str) -> Path:
    """A file of YAIB's export; UserError where the folder lacks it."""
    if not is_regular(folder / name):
        raise UserError(
            f"{folder} is no folder of YAIB's export, outc.parquet, dyn.parquet and sta.parquet: it lacks {name}."
        )
    return folder / name


def _meds(con: duckdb.DuckDBPyConnection, path: Path) -> Events:
    folder = meds_folder(path)
    files = ", ".join(_quoted(str(file)) for file in folder.files)
    with plain_errors(path.name):
        con.execute(
            f"CREATE OR REPLACE TEMP VIEW events AS SELECT CAST(subject_id AS VARCHAR) AS key, "
            f"epoch_us(time) / {_HOURS} AS time, code, CAST({folder.value} AS DOUBLE) AS value "
            f"FROM read_parquet([{files}], union_by_name=true) WHERE time IS NOT NULL"
        )
    files_by_name = {file.relative_to(folder.root).as_posix(): file for file in folder.files}
    splits = {str(subject): split for subject, split in (folder.splits or {}).items()}
    return Events(MEDS_ID, True, files_by_name, splits)


def _normalised(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    types: Mapping[str, tuple[str, str]],
    key: str,
    names: Names,
    layout: str,
) -> Events:
    """The view `raw` as the table `events`."""
    time, kind = types[names.time.lower()]
    hours, dated = _hours(con, time, kind)
    written, id_kind = types[key]
    integral = f"CAST({_name(written)} AS BIGINT)" if id_kind in ("DOUBLE", "FLOAT") else _name(written)
    start = f"CAST({integral} AS VARCHAR) AS key, {hours} AS time"
    if layout == "long":
        code, value = (_name(types[column.lower()][0]) for column in (names.code, names.value))
        query = f"SELECT {start}, trim(CAST({code} AS VARCHAR)) AS code, {value} AS written FROM raw"
    else:
        codes = [name for column, (name, _) in types.items() if column not in (key, names.time.lower())]
        if not codes:
            raise UserError(
                f"{path.name} has no column beside {key} and {names.time}: a wide table has one for each code."
            )
        cast = ", ".join(f"CAST({_name(name)} AS VARCHAR) AS {_name(name)}" for name in codes)
        query = (
            f"UNPIVOT (SELECT {start}, {cast} FROM raw) ON {', '.join(map(_name, codes))} INTO NAME code VALUE written"
        )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE events AS SELECT key, time, code, TRY_CAST(written AS DOUBLE) AS value, "
        f"written IS NOT NULL AND trim(CAST(written AS VARCHAR)) <> '' AS is_filled FROM ({query})"
    )
    bad = con.execute("SELECT count(*) FROM events WHERE key IS NULL OR time IS NULL").fetchall()[0][0]
    if bad:
        raise UserError(
            f"{path.name}: {bad} values have no {key}, or a {names.time} that is neither a date and time "
            "(2130-05-01 14:00) nor a number of hours. Mend or leave out these rows."
        )
    con.execute("DELETE FROM events WHERE value IS NULL AND NOT is_filled")
    return Events(key, dated, {path.name: path})


def _hours(con: duckdb.DuckDBPyConnection, column: str, kind: str) -> tuple[str, bool]:
    """SQL of a column of times as hours, and whether these are dates."""
    name = _name(column)
    if kind.startswith("TIMESTAMP") or kind == "DATE":
        return f"epoch_us(CAST({name} AS TIMESTAMP)) / {_HOURS}", True
    if kind in ("INTERVAL", "TIME"):
        return f"epoch({name}) / 3600", False
    if kind != "VARCHAR":
        return f"CAST({name} AS DOUBLE)", False
    counts = f"SELECT count(TRY_CAST({name} AS DOUBLE)), count({name}) FROM raw"
    numbers, filled = con.execute(counts).fetchall()[0]
    if numbers == filled:
        return f"TRY_CAST({name} AS DOUBLE)", False
    return f"epoch_us(TRY_CAST({name} AS TIMESTAMP)) / {_HOURS}", True


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def hours_of(value: Any, location: str, column: str) -> tuple[float, bool]:
    """A time of a labels' file in hours, and whether it is a date: UserError for anything else."""
    if isinstance(value, str):
        text = value.strip()
        try:
            return float(text), False
        except ValueError:
            try:
                value = datetime.fromisoformat(text)
            except ValueError:
                raise UserError(
                    f"{location}: column {column} is neither a date and time (2130-05-01 14:00) nor a number of hours."
                ) from None
    if isinstance(value, timedelta):
        return value.total_seconds() / 3600, False
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp() / 3600, True
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return float(value), False
    raise UserError(
        f"{location}: column {column} holds no time. Give a date and time, or hours as the records count them."
    )
