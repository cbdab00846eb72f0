"""The clinical outcomes as data: question, prompt variants, parameters, and the SQL of the cohort and the label.

A new outcome is one entry of OUTCOMES and one yaml in conf/task/.
"""

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from patientdx.core.errors import UserError
from patientdx.records.cohort import Outcome
from patientdx.records.parameters import check_choice, check_numbers

DAYS_TO_READMISSION = 30
PLACES = {"hospital": "hospital", "icu": "intensive care unit"}
# Values of admissions.admission_type for planned admissions. Observation stays are not among them, and count.
PLANNED = ("ELECTIVE", "SURGICAL SAME DAY ADMISSION")
CODES = {"hosp/diagnoses_icd": {"hadm_id": "BIGINT", "icd_code": "VARCHAR", "icd_version": "INTEGER"}}
_DISCHARGE_KNOWN = ("discharge time known", "s.dischtime IS NOT NULL")
# The rule of PatientDx's data: a time of death from intime to outtime.
_DEATH_IN_ICU = "s.death BETWEEN s.intime AND s.outtime"
_DEATH_IN_HOSPITAL = {
    # MIMIC-IV has a deathtime only for deaths in hospital, sometimes later than dischtime: that it exists counts.
    "deathtime": f"s.deathtime IS NOT NULL OR s.hospital_expire_flag = 1 OR {_DEATH_IN_ICU}",
    "dod": "s.dod BETWEEN s.intime AND s.dischtime",
}
# Only the last ICU stay of an admission is a unit, because all of them would share one answer.
_LAST_STAY = """NOT EXISTS (SELECT 1 FROM icustays l WHERE l.hadm_id = s.hadm_id
    AND (l.intime > s.intime OR (l.intime = s.intime AND l.stay_id > s.stay_id)))"""
_ALIVE = "s.deathtime IS NULL AND coalesce(s.hospital_expire_flag, 0) = 0"


@dataclass(frozen=True)
class ClinicalOutcome:
    """One outcome to predict from the first hours of an ICU stay.

    Attributes:
        question: the question; a {word} in it, or in a variant, is replaced by the word that `define` returns for it.
        variants: prompt variants as a yaml writes them: name, question and perhaps `inverted: true`.
        define: maps the task's keys (switches, window_hours, gap_hours, parameters) to the SQL of the outcome and the
            words of its questions. Raises UserError for keys that are not valid for this outcome.
        parameters: the keys that only this outcome has, with their defaults.
    """

    question: str
    variants: tuple[Mapping[str, Any], ...]
    define: Callable[[Mapping[str, Any]], tuple[Outcome, dict[str, Any]]]
    parameters: Mapping[str, Any] = field(default_factory=dict)


def _mortality(keys: Mapping[str, Any]) -> tuple[Outcome, dict[str, Any]]:
    return Outcome(_DEATH_IN_ICU), {}


def _mortality_hospital(keys: Mapping[str, Any]) -> tuple[Outcome, dict[str, Any]]:
    """Death before hospital discharge, by the rule task.death; `cohort.select` refuses another rule."""
    return Outcome(_DEATH_IN_HOSPITAL.get(keys["death"], "false"), (_DISCHARGE_KNOWN,)), {}


def _length_of_stay(keys: Mapping[str, Any]) -> tuple[Outcome, dict[str, Any]]:
    """An ICU stay of more than task.days days of 24 hours; a stay that ends early by death is a short one."""
    days, window, gap = keys["days"], keys["window_hours"], keys["gap_hours"]
    check_numbers(days=(days, 1), window_hours=(window, 1), gap_hours=(gap, 0))
    if window + gap >= 24 * days:
        raise UserError(
            f"task.window_hours={window} and task.gap_hours={gap} reach as far as task.days={days}, when all stays "
            "left are long ones. Shorten them, or ask about more days."
        )
    return Outcome(f"s.outtime - s.intime > to_hours({24 * days})"), {"days": days}


def _readmission(keys: Mapping[str, Any]) -> tuple[Outcome, dict[str, Any]]:
    """A later admission of the patient, or an ICU stay in one, that begins within 30 days of discharge.

    A patient who dies at home within 30 days has label 0.
    """
    readmission = keys["readmission"]
    check_choice("readmission", readmission, PLACES)
    event = "n.admittime" if readmission == "hospital" else "i.intime"
    stay = "" if readmission == "hospital" else "JOIN icustays i ON i.hadm_id = n.hadm_id"
    unplanned = "" if keys["planned"] else f"AND coalesce(n.admission_type, '') NOT IN {PLANNED}"
    label = f"""EXISTS (SELECT 1 FROM admissions n {stay}
        WHERE n.subject_id = s.subject_id AND n.hadm_id <> s.hadm_id AND n.admittime >= s.dischtime {unplanned}
        AND {event} <= s.dischtime + INTERVAL {DAYS_TO_READMISSION} DAY)"""
    steps = (("last ICU stay of its admission", _LAST_STAY), _DISCHARGE_KNOWN, ("discharged alive", _ALIVE))
    return Outcome(label, steps), {"place": PLACES[readmission], "days": DAYS_TO_READMISSION}


@cache
def conditions() -> dict[str, tuple[str, tuple[tuple[int, str], ...]]]:
    """The rows of conditions.csv by key: name of the condition, and its codes as (ICD version, prefix of the code)."""
    text = (resources.files("patientdx.records") / "conditions.csv").read_text(encoding="utf-8")
    table: dict[str, tuple[str, tuple[tuple[int, str], ...]]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        _, codes = table.get(row["condition"], ("", ()))
        table[row["condition"]] = (row["name"], (*codes, (int(row["icd_version"]), row["starts_with"])))
    return table


def _phenotype(keys: Mapping[str, Any]) -> tuple[Outcome, dict[str, Any]]:
    """A discharge code of the admission that is one of the condition's. Admissions without any code are left out."""
    condition = keys["condition"]
    if condition not in conditions():
        raise UserError(f"task.condition={condition!r}: there are {', '.join(conditions())}.")
    if keys["diagnoses"] == "discharge":
        raise UserError(
            "task.diagnoses=discharge: the codes given at discharge are the answer that task=phenotype asks for. "
            "Set task.diagnoses=none or prior."
        )
    name, codes = conditions()[condition]
    match = " OR ".join(f"(d.icd_version = {version} AND starts_with(trim(d.icd_code), '{s}'))" for version, s in codes)
    coded = "EXISTS (SELECT 1 FROM diagnoses_icd d WHERE d.hadm_id = s.hadm_id{})"
    steps = (("admission has discharge codes", coded.format("")),)
    return Outcome(coded.format(f" AND ({match})"), steps, CODES), {"condition": name}


def _variants(reworded: str, reversed_options: str, name: str, inverted: str) -> tuple[Mapping[str, Any], ...]:
    """The three variants that every outcome has: other words, the options in reverse order, the opposite question."""
    return (
        {"name": "reworded", "question": reworded},
        {"name": "no_or_yes", "question": reversed_options},
        {"name": name, "question": inverted, "inverted": True},
    )


OUTCOMES = {
    "mortality": ClinicalOutcome(
        "Did this patient die in the intensive care unit? Answer Yes or No.",
        _variants(
            "Was this stay in intensive care fatal for the patient? Answer Yes or No.",
            "Did this patient die in the intensive care unit? Answer No or Yes.",
            "survival",
            "Did this patient survive the intensive care unit? Answer Yes or No.",
        ),
        _mortality,
    ),
    "mortality_hospital": ClinicalOutcome(
        "Did this patient die in the hospital? Answer Yes or No.",
        _variants(
            "Was this admission to the hospital fatal for the patient? Answer Yes or No.",
            "Did this patient die in the hospital? Answer No or Yes.",
            "survival",
            "Was this patient discharged from the hospital alive? Answer Yes or No.",
        ),
        _mortality_hospital,
    ),
    "length_of_stay": ClinicalOutcome(
        "Did this patient stay in the intensive care unit for more than {days} days? Answer Yes or No.",
        _variants(
            "Was this stay in intensive care longer than {days} days? Answer Yes or No.",
            "Did this patient stay in the intensive care unit for more than {days} days? Answer No or Yes.",
            "short",
            "Did this patient leave the intensive care unit within {days} days? Answer Yes or No.",
        ),
        _length_of_stay,
        {"days": 3},
    ),
    "readmission_30d": ClinicalOutcome(
        "Was this patient readmitted to the {place} within {days} days of discharge? Answer Yes or No.",
        _variants(
            "Within {days} days of discharge, was this patient back in the {place}? Answer Yes or No.",
            "Was this patient readmitted to the {place} within {days} days of discharge? Answer No or Yes.",
            "stayed_out",
            "Did this patient stay out of the {place} for {days} days after discharge? Answer Yes or No.",
        ),
        _readmission,
        {"readmission": "hospital", "planned": False},
    ),
    "phenotype": ClinicalOutcome(
        "Does this patient have {condition}? Answer Yes or No.",
        _variants(
            "Is {condition} among the diagnoses of this patient? Answer Yes or No.",
            "Does this patient have {condition}? Answer No or Yes.",
            "absent",
            "Is this patient free of {condition}? Answer Yes or No.",
        ),
        _phenotype,
        {"condition": "heart_failure"},
    ),
}
