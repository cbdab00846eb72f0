"""Task `readmission_30d`: from the first hours in the ICU, will the patient be back within 30 days of discharge?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from patientdx.core.errors import UserError
from patientdx.records.cohort import Outcome
from patientdx.tasks.example import TaskData
from patientdx.tasks.prediction import FRACTIONS, Request, predict

QUESTION = "Was this patient readmitted to the {place} within {days} days of discharge? Answer Yes or No."
PROMPT_VARIANTS = (
    {
        "name": "reworded",
        "question": "Within {days} days of discharge, was this patient back in the {place}? Answer Yes or No.",
    },
    {
        "name": "no_or_yes",
        "question": "Was this patient readmitted to the {place} within {days} days of discharge? Answer No or Yes.",
    },
    {
        "name": "stayed_out",
        "question": "Did this patient stay out of the {place} for {days} days after discharge? Answer Yes or No.",
        "inverted": True,
    },
)
DAYS = 30
SYNTHETIC = MappingProxyType({"stays": 400, "seed": 0, "returns": 0.7})  # so that some come back in time
PLACES = {"hospital": "hospital", "icu": "intensive care unit"}
# Words of admissions.admission_type for what was agreed beforehand. Observation stays are none of them, and count.
PLANNED = ("ELECTIVE", "SURGICAL SAME DAY ADMISSION")
# Of an admission with several ICU stays only the last is asked about, as all would share one answer.
LAST = """NOT EXISTS (SELECT 1 FROM icustays l WHERE l.hadm_id = s.hadm_id
    AND (l.intime > s.intime OR (l.intime = s.intime AND l.stay_id > s.stay_id)))"""
ALIVE = "s.deathtime IS NULL AND coalesce(s.hospital_expire_flag, 0) = 0"


def outcome(readmission: str = "hospital", planned: bool = False) -> Outcome:
    """Whether a later admission of the patient, or an ICU stay in one, begins within 30 days of discharge."""
    event = "n.admittime" if readmission == "hospital" else "i.intime"
    stay = "" if readmission == "hospital" else "JOIN icustays i ON i.hadm_id = n.hadm_id"
    agreed = "" if planned else f"AND coalesce(n.admission_type, '') NOT IN {PLANNED}"
    label = f"""EXISTS (SELECT 1 FROM admissions n {stay}
        WHERE n.subject_id = s.subject_id AND n.hadm_id <> s.hadm_id AND n.admittime >= s.dischtime {agreed}
        AND {event} <= s.dischtime + INTERVAL {DAYS} DAY)"""
    steps = (
        ("last ICU stay of its admission", LAST),
        ("discharge time known", "s.dischtime IS NOT NULL"),
        ("discharged alive", ALIVE),
    )
    return Outcome(label, steps)


def load(
    *,
    cache: Path,
    seed: int = 0,
    source: str = "mimic",
    mimic_root: Sequence[str] | str | None = None,
    synthetic: Mapping[str, float | None] = SYNTHETIC,
    preset: str | None = None,
    readmission: str = "hospital",
    planned: bool = False,
    window_hours: int = 24,
    gap_hours: int = 0,
    death: str | None = None,
    age: str | None = None,
    diagnoses: str | None = None,
    outliers: str | None = None,
    template: str | None = None,
    sections: Mapping[str, int | None] | None = None,
    split_by: str | None = None,
    fractions: Mapping[str, float] = FRACTIONS,
    limit: int | None = None,
    memory_limit: str = "2GB",
    threads: int | None = None,
    question: str = QUESTION,
    prompt_variants: Sequence[Mapping[str, Any]] = PROMPT_VARIANTS,
) -> TaskData:
    """Adults discharged alive after an ICU stay as yes/no questions; label 1 is a return within 30 days of discharge.

    One question an admission, about its last ICU stay of at least window + gap hours. `readmission="hospital"` counts a
    later admission of the patient that begins at discharge or within 30 days of it, `"icu"` the first ICU stay in such
    an admission, begun within the 30 days. `planned=False` leaves out admissions agreed beforehand (ELECTIVE, SURGICAL
    SAME DAY ADMISSION). Deaths in hospital are left out and counted; a patient who dies at home within 30 days has
    label 0. Other keywords are explained in conf/task/readmission_30d.yaml. Raises UserError on any parameter, file or
    cohort that will not do.
    """
    given = locals()
    own = {"readmission": given.pop("readmission"), "planned": given.pop("planned")}
    if readmission not in PLACES:
        raise UserError(f"task.readmission={readmission!r}: choose {' or '.join(PLACES)}.")
    words = {"place": PLACES[readmission], "days": DAYS}
    return predict("readmission_30d", outcome(readmission, planned), Request(**given), own=own, words=words)
