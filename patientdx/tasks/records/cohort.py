"""Which ICU stays are asked about, and what happened to them."""

from dataclasses import dataclass
from typing import Any

import duckdb

from patientdx.refusal import Refusal

NEEDED = {
    "hosp/patients": {
        "subject_id": "BIGINT", "gender": "VARCHAR", "anchor_age": "INTEGER", "anchor_year": "INTEGER",
        "dod": "TIMESTAMP",
    },
    "hosp/admissions": {
        "subject_id": "BIGINT", "hadm_id": "BIGINT", "deathtime": "TIMESTAMP", "insurance": "VARCHAR",
        "race": "VARCHAR",
    },
    "icu/icustays": {
        "subject_id": "BIGINT", "hadm_id": "BIGINT", "stay_id": "BIGINT", "intime": "TIMESTAMP",
        "outtime": "TIMESTAMP",
    },
}  # fmt: skip
DEATHS = {"deathtime": "coalesce(a.deathtime, p.dod)", "dod": "p.dod"}
ADULT = 18


@dataclass(frozen=True)
class Cohort:
    """Stays in the order of stay_id, as (stay_id, subject_id, label), and the attrition table."""

    stays: tuple[tuple[int, int, int], ...]
    attrition: list[dict[str, Any]]


def mortality(con: duckdb.DuckDBPyConnection, *, window_hours: int, gap_hours: int, death: str) -> Cohort:
    """Adult ICU stays that last at least window + gap hours, labelled by death in the ICU.

    The length is in whole hours, cut off (PatientDx's data pipeline). Age is anchor_age. Death in the ICU is
    a time of death from intime to outtime: `death="deathtime"` takes admissions.deathtime and, where that is
    missing, patients.dod; `death="dod"` takes dod alone, as the pipeline does. A dod is a date and counts as
    its midnight, so a death on the day of ICU admission is then missed.

    Leaves a table `cohort` in the connection: stay_id, subject_id, hadm_id, intime, prediction_time (intime +
    window), age (at ICU admission, years), gender, race, insurance, label. Raises Refusal on another `death`,
    on a stay_id, subject_id or hadm_id that occurs twice, and on an empty cohort.
    """
    if death not in DEATHS:
        raise Refusal(f"task.death={death!r}: a death is dated by {' or '.join(DEATHS)}.")
    for table, key in (("patients", "subject_id"), ("admissions", "hadm_id"), ("icustays", "stay_id")):
        extra = con.execute(f"SELECT count({key}) - count(DISTINCT {key}) FROM {table}").fetchall()[0][0]
        if extra:
            raise Refusal(f"Table {table} has {extra} rows whose {key} occurs before; each must occur once.")
    con.execute(
        f"""CREATE TEMP TABLE stays AS
        SELECT i.stay_id, i.subject_id, i.hadm_id, i.intime, i.outtime,
            p.anchor_age, p.gender, a.race, a.insurance,
            p.anchor_age + year(i.intime) - p.anchor_year AS age,
            i.intime + to_hours({int(window_hours)}) AS prediction_time,
            floor(epoch(i.outtime - i.intime) / 3600) AS hours,
            p.subject_id IS NOT NULL AND a.hadm_id IS NOT NULL AS known,
            coalesce({DEATHS[death]} BETWEEN i.intime AND i.outtime, false)::INTEGER AS label
        FROM icustays i LEFT JOIN patients p USING (subject_id) LEFT JOIN admissions a USING (hadm_id)"""
    )
    hours = int(window_hours) + int(gap_hours)
    steps = (
        ("all ICU stays", "true"),
        ("patient and admission known", "known"),
        ("intime and outtime known", "hours IS NOT NULL"),
        (f"aged {ADULT} or over", f"anchor_age >= {ADULT}"),
        (f"at least {hours} h ({window_hours} h window and {gap_hours} h gap)", f"hours >= {hours}"),
    )
    attrition, conditions = [], []
    for step, condition in steps:
        conditions.append(condition)
        kept = " AND ".join(conditions)
        counts = "count(*), count(DISTINCT subject_id), coalesce(sum(label), 0)"
        stays, patients, events = con.execute(f"SELECT {counts} FROM stays WHERE {kept}").fetchall()[0]
        attrition.append({"step": step, "stays": stays, "patients": patients, "events": int(events)})
    if not attrition[-1]["stays"]:
        left = ", ".join(f"{row['step']}: {row['stays']}" for row in attrition)
        raise Refusal(f"No ICU stay is left in the cohort ({left}). Shorten task.window_hours or task.gap_hours.")
    con.execute(f"CREATE TEMP TABLE cohort AS SELECT * EXCLUDE (known, hours) FROM stays WHERE {kept}")
    rows = con.execute("SELECT stay_id, subject_id, label FROM cohort ORDER BY stay_id").fetchall()
    return Cohort(tuple(rows), attrition)
