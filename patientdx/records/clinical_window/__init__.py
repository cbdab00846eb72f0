"""Revision 2 of the records: what was known about a stay at prediction time, as the concept table defines it.

Only what is dated from the window's begin up to, and not including, its end is read (see `periods` for what goes on
over its edges), of the laboratory also the 24 h before ICU admission. By default a value is dated by its charttime;
`clock="storetime"` takes it only if it was in the record before the window ended (one without a storetime as charted).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb

from patientdx.records.clinical_window import background, periods, readings
from patientdx.records.clinical_window.items import name_items
from patientdx.records.concept_table import concepts
from patientdx.records.record import Background, Course, Infusion, Period, Record, Times, Word

NEEDED = {
    "hosp/admissions": {
        "subject_id": "BIGINT", "hadm_id": "BIGINT", "dischtime": "TIMESTAMP",
    },
    "hosp/diagnoses_icd": {
        "hadm_id": "BIGINT", "seq_num": "INTEGER", "icd_code": "VARCHAR", "icd_version": "INTEGER",
    },
    "hosp/labevents": {
        "subject_id": "BIGINT", "charttime": "TIMESTAMP", "itemid": "INTEGER", "valuenum": "DOUBLE",
    },
    "hosp/services": {"hadm_id": "BIGINT", "transfertime": "TIMESTAMP", "curr_service": "VARCHAR"},
    "icu/chartevents": {"value": "VARCHAR"},
    "icu/inputevents": {
        "amountuom": "VARCHAR", "rate": "DOUBLE", "rateuom": "VARCHAR", "patientweight": "DOUBLE",
    },
    "icu/procedureevents": {"endtime": "TIMESTAMP"},
}  # fmt: skip
CLOCKS = ("charttime", "storetime")
STORED = {name: {"storetime": "TIMESTAMP"} for name in ("icu/chartevents", "icu/outputevents", "hosp/labevents")}


@dataclass
class Counts:
    """What was read of how many stays: values, how many of them cannot be readings, stays that have one, by reading."""

    stays: int = 0
    values: dict[str, int] = field(default_factory=lambda: dict.fromkeys(concepts(), 0))
    kept: dict[str, int] = field(default_factory=lambda: dict.fromkeys(concepts(), 0))
    measured: dict[str, int] = field(default_factory=lambda: dict.fromkeys(concepts(), 0))

    def rows(self) -> list[dict[str, int | str]]:
        """One row for each reading: values charted, dropped as impossible, stays without any, and all stays."""
        return [
            {
                "reading": name,
                "values": self.values[name],
                "dropped": self.values[name] - self.kept[name],
                "stays_without": self.stays - self.measured[name],
                "stays": self.stays,
            }
            for name in self.values
        ]


def batch(
    con: duckdb.DuckDBPyConnection,
    bounds: str,
    *,
    limits: Mapping[int, float] | None = None,
    clock: str = "charttime",
    comorbidities: bool = True,
    titles: Mapping[int, list[tuple]] | None = None,
    counts: Counts | None = None,
) -> Iterator[tuple[int, Record]]:
    """(stay_id, Record) of the stays of the table `batch`, all fetched before the first is handed out.

    `bounds` is the condition on stay_id that they meet; `titles` are rows of coded diagnoses by stay.
    """
    name_items(con, limits)
    known_at = {"charttime": "e.charttime", "storetime": "coalesce(e.storetime, e.charttime)"}[clock]
    con.execute(readings.charted(bounds, known_at))
    con.execute(readings.laboratory(known_at))
    con.execute(readings.KNOWN)
    for derived in (readings.RATIO, readings.BODY_MASS, readings.COMA):
        con.execute(derived)

    def listed(query: str) -> dict[int, list[tuple]]:
        rows: dict[int, list[tuple]] = {}
        for stay, *values in con.execute(query).fetchall():
            rows.setdefault(stay, []).append(tuple(values))
        return rows

    read = listed(readings.COURSES)
    infusions = listed(periods.drugs(bounds))
    performed = listed(periods.procedures(bounds))
    words = listed(readings.words(bounds, known_at))
    for stay, rows in listed(readings.UNABLE).items():
        words.setdefault(stay, []).extend(rows)
    before = listed(readings.earlier(known_at))
    queries = (
        periods.fluid_in(bounds), periods.fluid_out(bounds, "out", known_at),
        periods.fluid_out(bounds, "urine", known_at),
    )  # fmt: skip
    volumes = [{stay: rows[0][0] for stay, rows in listed(query).items()} for query in queries]
    names = listed(periods.outputs(bounds))
    conditions = listed(background.COMORBIDITIES) if comorbidities else {}
    people = con.execute(background.PEOPLE).fetchall()
    if counts is not None:
        _count(con, counts, read, len(people))
    for stay, *person in people:
        into, out, urine = (volume.get(stay) for volume in volumes)
        rest = {
            "urine": urine, "fluid_in": into, "fluid_out": out,
            "outputs": tuple(name for name, *_ in names.get(stay, ())),
            "words": tuple(Word(*row) for row in words.get(stay, ())),
            "earlier": tuple((name, value) for name, value in before.get(stay, ())),
            "diagnoses": tuple(title for title, *_ in (titles or {}).get(stay, ())),
        }  # fmt: skip
        known = tuple(name for name, *_ in conditions.get(stay, ()))
        yield stay, _record(person, known, read.get(stay, []), infusions.get(stay, []), performed.get(stay, []), rest)


def _record(
    person: list, known: tuple[str, ...], read: list[tuple], drugs: list[tuple], done: list[tuple], rest: dict[str, Any]
) -> Record:
    """One stay from the rows of the queries: a person of PEOPLE, readings, drugs and procedures; `rest` as it is."""
    age, gender, race, insurance, kind, location, unit, hours, surgical, at_discharge = person
    return Record(
        age=age, gender=gender, race=race, insurance=insurance, 
        background=Background(kind, location, unit, hours, surgical, known),
        at_discharge=at_discharge,
        readings=tuple((name, mean) for name, mean, *_ in read),
        courses=tuple(Course(*values) for _, _, *values in read),
        drugs=tuple((name, amount) for name, amount, *_ in drugs),
        drug_times=tuple(Times(*row[2:5]) for row in drugs),
        infusions=tuple(Infusion(*row[5:]) for row in drugs),
        procedures=tuple(name for name, *_ in done),
        procedure_times=tuple(Times(*row[1:4]) for row in done),
        periods=tuple(Period(*row[4:]) for row in done),
        **rest,
    )  # fmt: skip


def _count(con: duckdb.DuckDBPyConnection, counts: Counts, read: Mapping[int, list[tuple]], stays: int) -> None:
    counts.stays += stays
    for name, values, kept in con.execute(readings.COUNTS).fetchall():
        counts.values[name] += values
        counts.kept[name] += kept
    for rows in read.values():
        for name, *_ in rows:
            counts.measured[name] += 1
