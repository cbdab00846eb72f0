"""A connection with the table `cohort`, made here in plain SQL, for tests of what is read of its stays."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from patientdx.records import tables, window

COHORT = {
    "hosp/patients": {
        "subject_id": "BIGINT", "gender": "VARCHAR", "anchor_age": "INTEGER", "anchor_year": "INTEGER",
    },
    "hosp/admissions": {"subject_id": "BIGINT", "hadm_id": "BIGINT", "race": "VARCHAR", "insurance": "VARCHAR"},
    "icu/icustays": {
        "subject_id": "BIGINT", "hadm_id": "BIGINT", "stay_id": "BIGINT", "intime": "TIMESTAMP",
        "outtime": "TIMESTAMP",
    },
}  # fmt: skip
REVISED = {
    "hosp/admissions": {
        "admittime": "TIMESTAMP", "admission_type": "VARCHAR", "admission_location": "VARCHAR",
    },
    "icu/icustays": {"first_careunit": "VARCHAR"},
}  # fmt: skip


@contextmanager
def opened_stays(
    roots: list[Path], spill: Path, *, diagnoses: str = "none", hours: int = 48, threads: int = 2, revision: int = 1
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Adult stays of at least `hours` + 6 hours in the folders `roots`."""
    needed = window.needed(diagnoses, COHORT, *[REVISED] * (revision > 1), revision=revision)
    revised = ", a.admittime, a.admission_type, a.admission_location, i.first_careunit" if revision > 1 else ""
    with tables.opened(tables.find(roots, needed), needed, memory_limit="1GB", threads=threads, spill=spill) as con:
        con.execute(
            f"""CREATE TEMP TABLE cohort AS
            SELECT i.stay_id, i.subject_id, i.hadm_id, i.intime, i.intime + to_hours({hours}) AS prediction_time,
                i.intime AS window_start, i.intime + to_hours({hours}) AS window_end,
                p.anchor_age + year(i.intime) - p.anchor_year AS age, p.gender, a.race, a.insurance{revised}
            FROM icustays i JOIN patients p USING (subject_id) JOIN admissions a USING (hadm_id)
            WHERE p.anchor_age >= 18 AND epoch(i.outtime - i.intime) >= 3600 * {hours + 6}"""
        )
        yield con
