"""The ICU stays of a cohort and their outcomes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb

from patientdx.core.errors import UserError
from patientdx.records import concept_table
from patientdx.records.parameters import check_choice

NEEDED = {
    "hosp/patients": {
        "subject_id": "BIGINT", "gender": "VARCHAR", "anchor_age": "INTEGER", "anchor_year": "INTEGER",
        "dod": "TIMESTAMP",
    },
    "hosp/admissions": {
        "subject_id": "BIGINT", "hadm_id": "BIGINT", "admittime": "TIMESTAMP", "dischtime": "TIMESTAMP",
        "deathtime": "TIMESTAMP", "admission_type": "VARCHAR", "admission_location": "VARCHAR",
        "discharge_location": "VARCHAR", "insurance": "VARCHAR", "race": "VARCHAR", "hospital_expire_flag": "INTEGER",
    },
    "icu/icustays": {
        "subject_id": "BIGINT", "hadm_id": "BIGINT", "stay_id": "BIGINT", "intime": "TIMESTAMP",
        "outtime": "TIMESTAMP", "first_careunit": "VARCHAR",
    },
}  # fmt: skip
# The one definition of a death in hospital, for every task and source: a deathtime, or hospital_expire_flag (in MEDS, a
# discharge with DIED). A dod alone is a death at home: that of the day of discharge is no death in hospital. Where the
# flag stands without a deathtime, the death is dated by the discharge, at the latest by the end of the day of dod.
DIED = "a.deathtime IS NOT NULL OR coalesce(a.hospital_expire_flag, 0) = 1"
DEATHS = {
    "deathtime": f"CASE WHEN {DIED} THEN coalesce(a.deathtime, least(a.dischtime, p.dod + INTERVAL 1 DAY)) END",
    "dod": "p.dod",
}
PREDICT_AT = ("admission", "icu_discharge", "hospital_discharge")
STAYS = ("all", "first_of_admission", "first_of_patient")
STEPDOWN = ("exclude", "keep")
AGES = {"admission": "p.anchor_age + year(i.intime) - p.anchor_year", "anchor": "p.anchor_age"}
ADULT = 18


@dataclass(frozen=True)
class Outcome:
    """The outcome of an ICU stay, as SQL conditions over the row `s`.

    `label` holds when the outcome happened. `steps` are (name, condition) of further conditions on a stay, beyond
    those of every cohort; each becomes a row of the attrition table. `needed` are tables and columns beyond NEEDED.
    `predict_at` is one of PREDICT_AT: after the first hours of the stay, or at discharge from the last hours of it.
    `asks_codes`: the answer is a coded condition, so that codes of earlier admissions are not told.

    `s` has stay_id, subject_id, hadm_id, intime, outtime, admittime, dischtime, deathtime, dod, died (in hospital),
    death (time of death by the cohort's rule), gender, race, insurance, age, admission_type, admission_location,
    discharge_location, first_careunit, window_start, window_end, prediction_time and target_start (prediction time and
    gap). Conditions may look into the tables themselves (admissions, icustays, ...).
    """

    label: str
    steps: tuple[tuple[str, str], ...] = ()
    needed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    predict_at: str = "admission"
    asks_codes: bool = False


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
    stays: str = "all",
    stepdown: str = "exclude",
) -> Cohort:
    """Adult ICU stays that last at least window + gap hours and fulfil the steps of the outcome, with their labels.

    The length is in whole hours, cut off (PatientDx's data pipeline). `age="admission"` is the age in the calendar
    year of ICU admission, `"anchor"` patients.anchor_age as it is. `death="deathtime"` is the definition of DIED; a
    stay whose patient is recorded dead before ICU admission or before the gap's end is left out. `death="dod"` takes
    dod alone, as the pipeline does, and leaves out nobody: a dod is a date and counts as its midnight, so a death on
    the day of ICU admission is then missed. `stays`: all, or the first ICU stay of each admission or patient
    (mimic-code's icustay_detail). `stepdown="exclude"` leaves out stays that began in a step-down unit
    (concept_table/stepdown_units.csv).

    Leaves a table `cohort` in the connection with stay_id, subject_id, hadm_id, intime, outtime, admittime, dischtime,
    window_start and window_end (what the text may show), prediction_time, age (years), gender, race, insurance,
    admission_type, admission_location, first_careunit, label. Raises UserError on unknown values of the switches, a gap
    after a discharge, and an empty cohort. The source checks that ids of patients, admissions and stays are unique.
    """
    for key, value, known in (("death", death, DEATHS), ("age", age, AGES)):
        if value not in known:
            dated = "a death is dated by" if key == "death" else "an age is that at"
            raise UserError(f"task.{key}={value!r}: {dated} {' or '.join(known)}.")
    check_choice("stays", stays, STAYS)
    check_choice("stepdown", stepdown, STEPDOWN)
    steps = _steps(outcome, window_hours=window_hours, gap_hours=gap_hours, death=death, stays=stays, stepdown=stepdown)
    con.execute(_candidates(outcome, steps, window_hours, gap_hours, death, age))
    attrition = _attrition(con, [name for name, _ in steps])
    if not attrition[-1]["stays"]:
        left = ", ".join(f"{row['step']}: {row['stays']}" for row in attrition)
        raise UserError(f"No ICU stay is left in the cohort ({left}). Shorten task.window_hours or task.gap_hours.")
    columns = (
        "stay_id, subject_id, hadm_id, intime, outtime, admittime, dischtime, window_start, window_end, "
        "prediction_time, age, gender, race, insurance, admission_type, admission_location, first_careunit, label"
    )
    every = " AND ".join(f"met_{number}" for number in range(len(steps)))
    con.execute(f"CREATE TEMP TABLE cohort AS SELECT {columns} FROM candidates WHERE {every} ORDER BY stay_id")
    con.execute("DROP TABLE candidates")
    rows = con.execute("SELECT stay_id, subject_id, label FROM cohort ORDER BY stay_id").fetchall()
    return Cohort(tuple(rows), attrition)


def _candidates(
    outcome: Outcome, steps: list[tuple[str, str]], window_hours: int, gap_hours: int, death: str, age: str
) -> str:
    """SQL of the table `candidates`: every ICU stay with its label and met_0, met_1, ...: the steps it fulfils."""
    window, gap = f"to_hours({int(window_hours)})", f"to_hours({int(gap_hours)})"
    start, end, prediction = {
        "admission": ("i.intime", f"i.intime + {window}", f"i.intime + {window}"),
        "icu_discharge": (f"i.outtime - {window}", "i.outtime", "i.outtime"),
        "hospital_discharge": (f"i.outtime - {window}", "i.outtime", "a.dischtime"),
    }[outcome.predict_at]
    met = ", ".join(f"coalesce({condition}, false) AS met_{number}" for number, (_, condition) in enumerate(steps))
    return f"""CREATE TEMP TABLE candidates AS
        WITH s AS (
            SELECT i.stay_id, i.subject_id, i.hadm_id, i.intime, i.outtime, a.admittime, a.dischtime, a.deathtime,
                p.dod, {DIED} AS died, {DEATHS[death]} AS death, p.gender, a.race, a.insurance, {AGES[age]} AS age,
                a.admission_type, a.admission_location, a.discharge_location, i.first_careunit,
                p.subject_id IS NOT NULL AND a.hadm_id IS NOT NULL AS known,
                {start} AS window_start, {end} AS window_end, {prediction} AS prediction_time,
                {prediction} + {gap} AS target_start
            FROM icustays i LEFT JOIN patients p USING (subject_id)
            LEFT JOIN (SELECT * EXCLUDE (subject_id) FROM admissions) a USING (hadm_id))
        SELECT s.*, coalesce({outcome.label}, false)::INTEGER AS label, {met} FROM s"""


def _steps(
    outcome: Outcome, *, window_hours: int, gap_hours: int, death: str, stays: str, stepdown: str
) -> list[tuple[str, str]]:
    """(name, condition) of every row of the attrition table, in order."""
    window, gap = int(window_hours), int(gap_hours)
    lasts = "floor(epoch(s.outtime - s.intime) / 3600) >= {}"
    steps = [
        ("all ICU stays", "true"),
        ("patient and admission known", "s.known"),
        ("intime and outtime known", "s.intime IS NOT NULL AND s.outtime IS NOT NULL"),
        ("outtime after intime", "s.outtime > s.intime"),
        (f"aged {ADULT} or over", f"s.age >= {ADULT}"),
    ]
    if stepdown == "exclude":
        units = ", ".join(f"'{row['careunit']}'" for row in concept_table.rows("stepdown_units.csv"))
        steps.append(("intensive care, not a step-down unit", f"coalesce(s.first_careunit, '') NOT IN ({units})"))
    if stays != "all":
        steps.append((f"first ICU stay of the {stays.removeprefix('first_of_')}", _first(stays)))
    if death == "deathtime":
        steps.append(("not dead before ICU admission", f"NOT {_dead('s.intime')}"))
    steps += [*outcome.steps, (f"at least {window} h in the ICU (window)", lasts.format(window))]
    if outcome.predict_at != "admission":
        if gap:
            raise UserError(f"task.gap_hours={gap}: a prediction at discharge has no gap. Set task.gap_hours=0.")
        return steps
    if gap:
        steps.append((f"still in the ICU after {window + gap} h ({gap} h gap)", lasts.format(window + gap)))
    if death == "deathtime":
        steps.append(("not dead before the end of the gap", f"NOT {_dead('s.target_start')}"))
    return steps


def _first(stays: str) -> str:
    """Condition: no ICU stay of the same admission or patient began before this one."""
    same = "hadm_id" if stays == "first_of_admission" else "subject_id"
    return f"""NOT EXISTS (SELECT 1 FROM icustays e WHERE e.{same} = s.{same}
        AND (e.intime < s.intime OR (e.intime = s.intime AND e.stay_id < s.stay_id)))"""


def _dead(time: str) -> str:
    """Condition: recorded dead before that time. A dod has no hour, so it must be of an earlier day."""
    dated = f"CAST(s.dod AS DATE) < CAST({time} AS DATE)"
    return f"coalesce(CASE WHEN s.deathtime IS NULL THEN {dated} ELSE s.deathtime < {time} END, false)"


def _attrition(con: duckdb.DuckDBPyConnection, names: list[str]) -> list[dict[str, Any]]:
    """The rest of the table `candidates` after each step."""
    counts = "count(*), count(DISTINCT subject_id), coalesce(sum(label), 0)"
    rows = []
    for number, name in enumerate(names):
        kept = " AND ".join(f"met_{earlier}" for earlier in range(number + 1))
        stays, patients, events = con.execute(f"SELECT {counts} FROM candidates WHERE {kept}").fetchall()[0]
        rows.append({"step": name, "stays": stays, "patients": patients, "events": int(events)})
    return rows
