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
from patientdx.records.cohort import PREDICT_AT, Outcome
from patientdx.records.parameters import check_choice, check_numbers

DAYS_TO_READMISSION = 30
PLACES = {"hospital": "hospital", "icu": "intensive care unit"}
# Values of admissions.admission_type for planned admissions, and for observation, which is no inpatient admission.
PLANNED = ("ELECTIVE", "SURGICAL SAME DAY ADMISSION")
OBSERVATION = ("EU OBSERVATION", "OBSERVATION ADMIT", "DIRECT OBSERVATION", "AMBULATORY OBSERVATION")
# Values of discharge_location after which a readmission is not expected, not possible, or not this hospital's.
DISCHARGES = {
    "hospice": ("not discharged to hospice", "HOSPICE"),
    "against_advice": ("not discharged against advice", "AGAINST ADVICE"),
    "transfer": ("not transferred to another acute hospital", "ACUTE HOSPITAL"),
}
COMPETING = ("exclude", "no_event", "event")
READMISSION = {
    "readmission": "hospital", "planned": False, "observation": False, "competing_death": "exclude",
    "excluded_discharges": tuple(DISCHARGES), "predict_at": "hospital_discharge",
}  # fmt: skip
CODES = {"hosp/diagnoses_icd": {"hadm_id": "BIGINT", "icd_code": "VARCHAR", "icd_version": "INTEGER"}}
_DISCHARGE_KNOWN = ("discharge time known", "s.dischtime IS NOT NULL")
# The rule of PatientDx's data: a time of death from intime to outtime.
_DEATH_IN_ICU = "s.death BETWEEN s.intime AND s.outtime"
# MIMIC-IV has a deathtime only for deaths in hospital, sometimes later than dischtime: that it exists counts.
_DEATH_IN_HOSPITAL = {"deathtime": "s.died", "dod": "s.dod BETWEEN s.intime AND s.dischtime"}
# Only the last ICU stay of an admission is a unit, because all of them would share one answer.
_LAST_STAY = """NOT EXISTS (SELECT 1 FROM icustays l WHERE l.hadm_id = s.hadm_id
    AND (l.intime > s.intime OR (l.intime = s.intime AND l.stay_id > s.stay_id)))"""


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

    `observation`: whether stays for observation count as admissions. `excluded_discharges`: keys of DISCHARGES that are
    left out. `competing_death`: what a death within 30 days without readmission is: left out, no event, or an event.
    """
    readmission, competing, planned = keys["readmission"], keys["competing_death"], keys["planned"]
    check_choice("readmission", readmission, PLACES)
    check_choice("predict_at", keys["predict_at"], PREDICT_AT)
    check_choice("competing_death", competing, COMPETING)
    for discharge in keys["excluded_discharges"]:
        check_choice("excluded_discharges", discharge, DISCHARGES)
    ignored = (() if planned else PLANNED) + (() if keys["observation"] else OBSERVATION)
    counted = f"AND coalesce(n.admission_type, '') NOT IN {ignored}" if ignored else ""
    event = "n.admittime" if readmission == "hospital" else "i.intime"
    stay = "" if readmission == "hospital" else "JOIN icustays i ON i.hadm_id = n.hadm_id"
    back = f"""EXISTS (SELECT 1 FROM admissions n {stay}
        WHERE n.subject_id = s.subject_id AND n.hadm_id <> s.hadm_id AND n.admittime >= s.dischtime {counted}
        AND {event} <= s.dischtime + INTERVAL {DAYS_TO_READMISSION} DAY)"""
    dead = f"coalesce(CAST(s.dod AS DATE) <= CAST(s.dischtime + INTERVAL {DAYS_TO_READMISSION} DAY AS DATE), false)"
    steps = [("last ICU stay of its admission", _LAST_STAY), _DISCHARGE_KNOWN, ("discharged alive", "NOT s.died")]
    for name, location in (DISCHARGES[discharge] for discharge in keys["excluded_discharges"]):
        steps.append((name, f"coalesce(s.discharge_location, '') <> '{location}'"))
    if competing == "exclude":
        steps.append((f"not dead within {DAYS_TO_READMISSION} days without readmission", f"{back} OR NOT {dead}"))
    counting = (
        f"{'any' if planned else 'any unplanned'} admission{'' if keys['observation'] else ' except for observation'}"
    )
    steps.append((f"an event is {counting}{' or a death' if competing == 'event' else ''}", "true"))
    words = {"place": PLACES[readmission] + (" or dead" if competing == "event" else ""), "days": DAYS_TO_READMISSION}
    label = f"({back} OR {dead})" if competing == "event" else back
    return Outcome(label, tuple(steps), predict_at=keys["predict_at"]), words


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
    return Outcome(coded.format(f" AND ({match})"), steps, CODES, asks_codes=True), {"condition": name}


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
        READMISSION,
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
