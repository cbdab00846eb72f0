"""Task `length_of_stay`: from the first hours of an ICU stay, will it last longer than some days?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patientdx.core.errors import UserError
from patientdx.records.cohort import Outcome
from patientdx.records.source import SYNTHETIC
from patientdx.tasks.example import TaskData
from patientdx.tasks.prediction import FRACTIONS, Request, check_numbers, predict

QUESTION = "Did this patient stay in the intensive care unit for more than {days} days? Answer Yes or No."
PROMPT_VARIANTS = (
    {"name": "reworded", "question": "Was this stay in intensive care longer than {days} days? Answer Yes or No."},
    {
        "name": "no_or_yes",
        "question": "Did this patient stay in the intensive care unit for more than {days} days? Answer No or Yes.",
    },
    {
        "name": "short",
        "question": "Did this patient leave the intensive care unit within {days} days? Answer Yes or No.",
        "inverted": True,
    },
)


def outcome(days: int) -> Outcome:
    """Whether the ICU stay lasts more than so many days of 24 hours."""
    return Outcome(label=f"s.outtime - s.intime > to_hours({24 * days})")


def load(
    *,
    cache: Path,
    seed: int = 0,
    source: str = "mimic",
    mimic_root: Sequence[str] | str | None = None,
    synthetic: Mapping[str, float | None] = SYNTHETIC,
    preset: str | None = None,
    days: int = 3,
    window_hours: int = 24,
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
    """Adult ICU stays of at least window + gap hours as yes/no questions; label 1 is a stay of more than `days` days.

    From intime to outtime, in days of 24 hours; a stay that ends early by death is a short one. Other keywords are
    explained in conf/task/length_of_stay.yaml. Raises UserError where window and gap reach as far as the days asked
    about, and on any parameter, file or cohort that will not do.
    """
    given = locals()
    own = {"days": given.pop("days")}
    check_numbers(days=(days, 1), window_hours=(window_hours, 1), gap_hours=(gap_hours, 0))
    if window_hours + gap_hours >= 24 * days:
        raise UserError(
            f"task.window_hours={window_hours} and task.gap_hours={gap_hours} reach as far as task.days={days}, when "
            "all stays left are long ones. Shorten them, or ask about more days."
        )
    return predict("length_of_stay", outcome(days), Request(**given), own=own, words=own)
