"""Task `mortality_hospital`: from the first hours of an ICU stay, will the patient die before leaving the hospital?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patientdx.records.cohort import Outcome
from patientdx.records.source import SYNTHETIC
from patientdx.tasks.example import TaskData
from patientdx.tasks.prediction import FRACTIONS, Request, predict, switches

QUESTION = "Did this patient die in the hospital? Answer Yes or No."
PROMPT_VARIANTS = (
    {"name": "reworded", "question": "Was this admission to the hospital fatal for the patient? Answer Yes or No."},
    {"name": "no_or_yes", "question": "Did this patient die in the hospital? Answer No or Yes."},
    {
        "name": "survival",
        "question": "Was this patient discharged from the hospital alive? Answer Yes or No.",
        "inverted": True,
    },
)
IN_ICU = "s.death BETWEEN s.intime AND s.outtime"
# MIMIC-IV has a deathtime for deaths in hospital only, now and then later than dischtime: that it is there counts.
LABELS = {
    "deathtime": f"s.deathtime IS NOT NULL OR s.hospital_expire_flag = 1 OR {IN_ICU}",
    "dod": "s.dod BETWEEN s.intime AND s.dischtime",
}


def outcome(death: str) -> Outcome:
    """Whether the patient dies before discharge, by the rule `death` (see `cohort.select`, which refuses others)."""
    return Outcome(LABELS.get(death, "false"), (("discharge time known", "s.dischtime IS NOT NULL"),))


def load(
    *,
    cache: Path,
    seed: int = 0,
    source: str = "mimic",
    mimic_root: Sequence[str] | str | None = None,
    synthetic: Mapping[str, float | None] = SYNTHETIC,
    preset: str | None = None,
    window_hours: int = 48,
    gap_hours: int = 6,
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
    """Adult ICU stays of at least window + gap hours as yes/no questions; label 1 is death before hospital discharge.

    With `death="deathtime"` that is an admission with a deathtime or with hospital_expire_flag, or a death in the ICU;
    with `"dod"` a date of death whose midnight lies between ICU admission and hospital discharge. Stays without a
    discharge time are left out and counted. Keywords are explained in conf/task/mortality_hospital.yaml. Raises UserError
    on any parameter, file or cohort that will not do.
    """
    given = locals()
    return predict("mortality_hospital", outcome(switches(preset, given)["death"]), Request(**given))
