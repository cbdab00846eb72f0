"""The ICU stays of a cohort and their outcomes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb

from patientdx.core.errors import UserError

NEEDED = {
    "hosp/patients": {
        "subject_id": "BIGINT", "gender": "VARCHAR", "anchor_age": "INTEGER", "anchor_year": "INTEGER",
        "dod": "TIMESTAMP",
    },
    "hosp/admissions": {
        "subject_id": "BIGINT", "hadm_id": "BIGINT", "admittime": "TIMESTAMP", "dischtime": "TIMESTAMP",
        "deathtime": "TIMESTAMP", "admission_type": "VARCHAR", "insurance": "VARCHAR", "race": "VARCHAR",
        "hospital_expire_flag": "INTEGER",
    },
    "icu/icustays": {
        "subject_id": "BIGINT", "hadm_id": "BIGINT", "stay_id": "BIGINT", "intime": "TIMESTAMP",
        "outtime": "TIMESTAMP",
    },
}  # fmt: skip
DEATHS = {"deathtime": "coalesce(a.deathtime, p.dod)", "dod": "p.dod"}
AGES = {"admission": "p.anchor_age + year(i.intime) - p.anchor_year", "anchor": "p.anchor_age"}
ADULT = 18


@dataclass(frozen=True)
class Outcome:
    """The outcome of an ICU stay, as SQL conditions over the row `s`.

    `label` holds when the outcome happened. `steps` are (name, condition) of further conditions on a stay, beyond
    those of every cohort; each becomes a row of the attrition table. `needed` are tables and columns beyond NEEDED.

    `s` has stay_id, subject_id, hadm_id, intime, outtime, admittime, dischtime, deathtime, dod, death (time of death
    by the cohort's rule), hospital_expire_flag, gender, race, insurance, age, prediction_time and target_start
    (prediction time and gap). Conditions may look into the tables themselves (admissions, icustays, ...).
    """

    label: str
    steps: tuple[tuple[str, str], ...] = ()
    needed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Cohort:
    """Stays in the order of stay_id, as (stay_id, subject_id, label), and the attrition table."""

    stays: tuple[tuple[int, int, int], ...]
    attrition: list[dict[str, Any]]

    def of_patients(self, splits: Mapping[int, str] | None) -> "Cohort":
        """The stays of patients that `splits` names, one row of attrition more; None: all.

        Raises UserError where none is left.
        """
        if splits is None:
            return self
        stays = tuple(stay for stay in self.stays if stay[1] in splits)
        if not stays:
            raise UserError("The source's own splits name no patient of the cohort. Set task.fractions to draw splits.")
        row = {
            "step": "patient in a split of the source", "stays": len(stays),
            "patients": len({subject for _, subject, _ in stays}), "events": sum(label for *_, label in stays),
        }  # fmt: skip
        return Cohort(stays, [*self.attrition, row])


def select(
    con: duckdb.DuckDBPyConnection,
    outcome: Outcome,
    *,
    window_hours: int,
    gap_hours: int,
    death: str = "deathtime",
    age: str = "admission",
) -> Cohort:
    """Adult ICU stays that last at least window + gap hours and fulfil the steps of the outcome, with their labels.

    The length is in whole hours, cut off (PatientDx's data pipeline). `age="admission"` is the age in the calendar
    year of ICU admission, `"anchor"` patients.anchor_age as it is. `death="deathtime"` takes admissions.deathtime
    and, where that is missing, patients.dod; a stay whose patient is recorded dead before the gap's end is left out.
    `death="dod"` takes dod alone, as the pipeline does. A dod is a date and counts as its midnight, so a death on the
    day of ICU admission is then missed. A patient dead before ICU admission is left out under either rule.

    Leaves a table `cohort` in the connection: stay_id, subject_id, hadm_id, intime, outtime, admittime, dischtime,
    prediction_time (intime + window), age (years), gender, race, insurance, label. Raises UserError on another `death`
    or `age` and on an empty cohort. The source checks that ids of patients, admissions and stays are unique.
    """
    for key, value, known in (("death", death, DEATHS), ("age", age, AGES)):
        if value not in known:
            dated = "a death is dated by" if key == "death" else "an age is that at"
            raise UserError(f"task.{key}={value!r}: {dated} {' or '.join(known)}.")
    steps = _steps(outcome, window_hours=window_hours, gap_hours=gap_hours, death=death)
    met = ", ".join(f"coalesce({condition}, false) AS met_{number}" for number, (_, condition) in enumerate(steps))
    con.execute(
        f"""CREATE TEMP TABLE candidates AS
        WITH s AS (
            SELECT i.stay_id, i.subject_id, i.hadm_id, i.intime, i.outtime,
                a.admittime, a.dischtime, a.deathtime, a.hospital_expire_flag, a.race, a.insurance,
                p.dod, p.gender, {AGES[age]} AS age, {DEATHS[death]} AS death,
                i.intime + to_hours({int(window_hours)}) AS prediction_time,
                i.intime + to_hours({int(window_hours) + int(gap_hours)}) AS target_start,
                i.stay_id IS NOT NULL AND p.subject_id IS NOT NULL AND a.hadm_id IS NOT NULL AS known
            FROM icustays i LEFT JOIN patients p USING (subject_id) LEFT JOIN admissions a USING (hadm_id))
        SELECT s.*, coalesce({outcome.label}, false)::INTEGER AS label, {met} FROM s"""
    )
    attrition = _attrition(con, [name for name, _ in steps])
    if not attrition[-1]["stays"]:
        left = ", ".join(f"{row['step']}: {row['stays']}" for row in attrition)
        raise UserError(f"No ICU stay is left in the cohort ({left}). Shorten task.window_hours or task.gap_hours.")
    columns = (
        "stay_id, subject_id, hadm_id, intime, outtime, admittime, dischtime, prediction_time, "
        "age, gender, race, insurance, label"
    )
    every = " AND ".join(f"met_{number}" for number in range(len(steps)))
    con.execute(f"CREATE TEMP TABLE cohort AS SELECT {columns} FROM candidates WHERE {every} ORDER BY stay_id")
    con.execute("DROP TABLE candidates")
    rows = con.execute("SELECT stay_id, subject_id, label FROM cohort ORDER BY stay_id").fetchall()
    return Cohort(tuple(rows), attrition)


def _steps(outcome: Outcome, *, window_hours: int, gap_hours: int, death: str) -> list[tuple[str, str]]:
    """(name, condition) of every row of the attrition table, in order."""
    hours = int(window_hours) + int(gap_hours)
    length = f"at least {hours} h ({window_hours} h window and {gap_hours} h gap)"
    steps = [
        ("all ICU stays", "true"),
        ("patient and admission known", "s.known"),
        ("intime and outtime known", "s.intime IS NOT NULL AND s.outtime IS NOT NULL"),
        ("outtime after intime", "s.outtime > s.intime"),
        (f"aged {ADULT} or over", f"s.age >= {ADULT}"),
        ("not dead before ICU admission", f"NOT {_dead('s.intime', death)}"),
        *outcome.steps,
        (length, f"floor(epoch(s.outtime - s.intime) / 3600) >= {hours}"),
    ]
    if death == "deathtime":
        steps.append(("not dead before the end of the gap", f"NOT {_dead('s.target_start', death)}"))
    return steps


def _dead(time: str, death: str) -> str:
    """Condition: recorded dead before that time. A dod has no hour, so it must be of an earlier day."""
    dated = f"CAST(s.dod AS DATE) < CAST({time} AS DATE)"
    known = f"CASE WHEN s.deathtime IS NULL THEN {dated} ELSE s.deathtime < {time} END"
    return f"coalesce({known if death == 'deathtime' else dated}, false)"


def _attrition(con: duckdb.DuckDBPyConnection, names: list[str]) -> list[dict[str, Any]]:
    """The rest of the table `candidates` after each step."""
    counts = "count(*), count(DISTINCT subject_id), coalesce(sum(label), 0)"
    rows = []
    for number, name in enumerate(names):
        kept = " AND ".join(f"met_{earlier}" for earlier in range(number + 1))
        stays, patients, events = con.execute(f"SELECT {counts} FROM candidates WHERE {kept}").fetchall()[0]
        rows.append({"step": name, "stays": stays, "patients": patients, "events": int(events)})
    return rows
