"""What is known of each labelled stay before its prediction time: the course of each concept, counted and checked."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import duckdb
import numpy as np

from patientdx.core.errors import UserError
from patientdx.records.labelled.concept_file import ConceptFile
from patientdx.records.labelled.events import Events, plain_errors
from patientdx.records.labelled.units import Spread, objection
from patientdx.records.record import Course

_NAMED = 8  # codes in a line of the log
log = logging.getLogger(__name__)


class Stay(NamedTuple):
    """One label: whose records, and from which hour on up to which hour, which is not included, they are read.

    is_checked: whether checks that can end the command count it; they do not depend on the patients of the pilot.
    """

    key: str
    start: float
    stop: float
    is_checked: bool = True


@dataclass(frozen=True)
class Readings:
    """Of each stay, in their order, the course and the mean of every concept that was read; and what was counted.

    Hours of a course count back from the prediction time (-3 is three hours before it). counts: see `read`.
    """

    courses: tuple[Mapping[str, tuple[Course, float]], ...]
    present: tuple[bool, ...]
    counts: Mapping[str, int]


def read(con: duckdb.DuckDBPyConnection, events: Events, concepts: ConceptFile, stays: Sequence[Stay]) -> Readings:
    """The readings of the stays from the table `events`.

    `present` says of each stay whether the records know it at all. Counted are `unknown_codes` and
    `rows_of_unknown_codes`, which no concept reads, `impossible_values` outside minimum and maximum, `texts` instead of
    numbers, `empty_concepts` without a value in any window, and `stays_after_last_record`. Raises UserError where no
    code of the concepts occurs, no stay has a reading, no stay is known, and where a unit cannot be right.
    """
    with plain_errors("task.records"):
        _make_tables(con, concepts, stays)
        _check_codes(con, concepts)
        con.execute(_READ)
        _check_units(con, concepts)
        counts = {name: int(con.execute(query).fetchall()[0][0]) for name, query in _COUNTS.items()}
        late = int(con.execute(_CHECKED_LATE).fetchall()[0][0])
        known = {row for (row,) in con.execute(_PRESENT).fetchall()}
        rows = con.execute(_COURSES).fetchall()
    counts["empty_concepts"] = len(concepts.concepts) - len({name for _, name, *_ in rows})
    courses: list[dict[str, tuple[Course, float]]] = [{} for _ in stays]
    for row, name, mean, *course in rows:
        courses[row][name] = Course(*course), mean
    _check_stays(events, [stay.is_checked for stay in stays], late, known, courses)
    _say(counts, len(stays), len(known), sum(not course for course in courses))
    present = tuple(number in known for number in range(len(stays)))
    return Readings(tuple(courses), present, counts)


def _make_tables(con: duckdb.DuckDBPyConnection, concepts: ConceptFile, stays: Sequence[Stay]) -> None:
    con.execute(
        "CREATE OR REPLACE TEMP TABLE stays (number INTEGER, key VARCHAR, start DOUBLE, stop DOUBLE, "
        "is_checked BOOLEAN)"
    )
    columns = [list(column) for column in zip(*stays, strict=True)]
    con.execute(
        "INSERT INTO stays SELECT unnest(?), unnest(?), unnest(?), unnest(?), unnest(?)",
        [list(range(len(stays))), *columns],
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE codes (rank INTEGER, code VARCHAR, name VARCHAR, scale DOUBLE, shift DOUBLE, "
        "minimum DOUBLE, maximum DOUBLE)"
    )
    for rank, code in enumerate(concepts.codes):
        concept = concepts.concepts[code.name]
        values = [rank, code.code, code.name, code.scale, code.offset, concept.minimum, concept.maximum]
        con.execute("INSERT INTO codes VALUES (?, ?, ?, ?, ?, ?, ?)", values)


def _check_codes(con: duckdb.DuckDBPyConnection, concepts: ConceptFile) -> None:
    """UserError where none of the codes occurs; those that do not occur are named in the log."""
    absent = [code for (code,) in con.execute(_ABSENT).fetchall()]
    if len(absent) == len(concepts.codes):
        raise UserError(
            f"none of the {len(absent)} codes of {concepts.file} occurs in the records: are they written as there, as "
            f"{absent[0]}? Compare its column code with the codes of the records."
        )
    if absent:
        named = ", ".join(absent[:_NAMED]) + (", …" if len(absent) > _NAMED else "")
        log.warning("%d codes of %s occur nowhere in the records: %s", len(absent), concepts.file, named)


def _check_units(con: duckdb.DuckDBPyConnection, concepts: ConceptFile) -> None:
    """UserError for units that cannot be right; a warning for those that hardly are."""
    spreads = {rank: rest for rank, *rest in con.execute(_SPREADS).fetchall()}
    certain = []
    for rank, (count, median, possible) in spreads.items():
        code = concepts.codes[rank]
        doubt = objection(Spread(code, count, median, possible), concepts.concepts[code.name], concepts.file)
        if doubt is not None and doubt[1]:
            certain.append(doubt[0])
        elif doubt is not None:
            log.warning("%s", doubt[0])
    if certain:
        raise UserError(
            "\n".join([*certain, "Set scale (and offset) of these rows so that the values are in the unit."])
        )


def _check_stays(
    events: Events, is_checked: Sequence[bool], late: int, known: set[int], courses: Sequence[Mapping[str, object]]
) -> None:
    """UserError where there is nothing to read of any stay that is checked; late: those after their last record."""
    numbers = np.flatnonzero(is_checked).tolist()
    total, present = len(numbers), known.intersection(numbers)
    if not numbers:
        return
    if not present:
        raise UserError(
            f"none of the {total} labels outside pilot has records: column {events.id} of labels and records have no "
            "value in common. Name the column that both have as 'task.record_columns={id: <name>}'."
        )
    if not any(courses[number] for number in numbers):
        raise UserError(
            f"none of the {total} labels outside pilot has a reading before its prediction time: the times of the "
            "labels and of the records do not fit together, task.window_hours is too short, or all values are "
            "impossible."
        )
    if late == len(present):
        raise UserError(
            "every label's prediction time is after the last record of its stay, and so perhaps after discharge: do "
            "both count from the same time? Check the time column of the labels."
        )


def _say(counts: Mapping[str, int], total: int, known: int, unread: int) -> None:
    """What was counted goes to the log."""
    for count, words in (
        (total - known, "labels have no record at all and are left out"),
        (unread - (total - known), "labels have records, but no reading before their prediction time"),
        (counts["stays_after_last_record"], "prediction times are after the last record of their stay"),
        (counts["unknown_codes"], "codes of the records are in no concept and are not read"),
        (counts["impossible_values"], "values are outside minimum and maximum of their concept and are left out"),
        (counts["texts"], "values of codes that are read are no numbers, and are left out"),
        (counts["empty_concepts"], "concepts have no value in any stay"),
    ):
        if count:
            log.warning("%d %s", count, words)


_ABSENT = (
    "SELECT code FROM codes WHERE code NOT IN (SELECT DISTINCT code FROM events WHERE code IS NOT NULL "
    "AND key NOT IN (SELECT key FROM stays WHERE NOT is_checked)) ORDER BY rank"
)
_READ = """
    CREATE OR REPLACE TEMP TABLE windowed AS
    SELECT s.number, c.rank, c.name, e.time - s.stop AS hour, e.value * c.scale + c.shift AS value,
        e.value * c.scale + c.shift BETWEEN c.minimum AND c.maximum AS possible
    FROM events e JOIN stays s USING (key) JOIN codes c USING (code)
    WHERE e.time >= s.start AND e.time < s.stop AND e.value IS NOT NULL AND isfinite(e.value)"""
_SPREADS = """
    SELECT rank, count(*), median(value), avg(CASE WHEN possible THEN 1.0 ELSE 0.0 END)
    FROM windowed JOIN stays USING (number) WHERE is_checked GROUP BY rank ORDER BY rank"""
_PRESENT = "SELECT number FROM stays WHERE key IN (SELECT DISTINCT key FROM events)"
# The mean is of decimals, so that neither the order of rows nor the number of threads can change a last digit.
_COURSES = """
    SELECT number, name, sum(TRY_CAST(value AS DECIMAL(18, 4)))::DOUBLE / count(value),
        arg_min(value, (hour, rank, value)), arg_max(value, (hour, -rank, -value)), min(value), max(value), count(*),
        min(hour), max(hour)
    FROM windowed WHERE possible AND abs(value) < 1e13 GROUP BY number, name ORDER BY ALL"""
_UNKNOWN = "FROM events WHERE code IS NOT NULL AND value IS NOT NULL AND code NOT IN (SELECT code FROM codes)"
_LATE = """
    SELECT count(*) FROM stays s JOIN (SELECT key, max(time) AS last FROM events GROUP BY key) e USING (key)
    WHERE s.stop > e.last AND isfinite(s.stop)"""
_CHECKED_LATE = f"{_LATE} AND s.is_checked"
_COUNTS = {
    "unknown_codes": f"SELECT count(DISTINCT code) {_UNKNOWN}",
    "rows_of_unknown_codes": f"SELECT count(*) {_UNKNOWN}",
    "texts": "SELECT count(*) FROM events WHERE value IS NULL AND code IN (SELECT code FROM codes)",
    "impossible_values": "SELECT count(*) FROM windowed WHERE NOT possible",
    "stays_after_last_record": _LATE,
}
