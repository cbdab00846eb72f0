"""Task `mortality`: from the first hours of an ICU stay, will the patient die in the ICU?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patientdx.records.cohort import Outcome
from patientdx.records.source import SYNTHETIC
from patientdx.tasks.example import TaskData
from patientdx.tasks.prediction import FRACTIONS, Request, predict

QUESTION = "Did this patient die in the intensive care unit? Answer Yes or No."
PROMPT_VARIANTS = (
    {"name": "reworded", "question": "Was this stay in intensive care fatal for the patient? Answer Yes or No."},
    {"name": "no_or_yes", "question": "Did this patient die in the intensive care unit? Answer No or Yes."},
    {
        "name": "survival",
        "question": "Did this patient survive the intensive care unit? Answer Yes or No.",
        "inverted": True,
    },
)
# The rule of PatientDx's data: a time of death from intime to outtime.
OUTCOME = Outcome(label="s.death BETWEEN s.intime AND s.outtime")


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
    """Adult ICU stays of at least window + gap hours as yes/no questions; label 1 is death in the ICU.

    Every keyword is explained in conf/task/mortality.yaml. `mimic_root` is a folder, or several of which the first
    that has a table wins; None takes the synthetic hospital, generated in `cache` on first use. `seed` draws the
    split. `limit` keeps so many stays of each split, always the same ones. `memory_limit` and `threads` (None: all
    cores) bound DuckDB. Raises UserError on any parameter, file or cohort that will not do.
    """
    given = locals()
    return predict("mortality", OUTCOME, Request(**given))
