"""The groups of patients that a result is also reported for: age band, sex, race, insurance.

races.csv gathers MIMIC-IV's words for race (version 3.1; HISPANIC/LATINO alone is the synthetic hospital's) into the
coarse groups that published subgroup tables use. They are what a clerk wrote down at admission, not what a patient is.
"""

import csv
import io
from collections.abc import Iterable
from functools import cache
from importlib import resources

UNKNOWN = "unknown"
_SEXES = {"F": "female", "M": "male"}
_BANDS = ((45, "18-44"), (65, "45-64"), (80, "65-79"))  # (below, name)
_OLDEST = "80 or over"
# MIMIC-IV's words. Another hospital's field may hold anything, and a group's name is printed.
_INSURANCES = {name.upper(): name for name in ("Medicaid", "Medicare", "Private", "No charge", "Other")}


@cache
def _races() -> dict[str, str]:
    text = (resources.files("patientdx.records") / "races.csv").read_text(encoding="utf-8")
    return {row["race"]: row["group"] for row in csv.DictReader(io.StringIO(text))}


def age_band(age: int) -> str:
    """The band of an adult's age in years."""
    return next((name for below, name in _BANDS if age < below), _OLDEST)


def groups(people: Iterable[tuple[int, str | None, str | None, str | None]]) -> dict[str, tuple[str, ...]]:
    """Lists `age`, `sex`, `race` and `insurance` of people given as (age in years, gender, race, insurance).

    A race that races.csv does not list is "other", an insurance that MIMIC-IV does not know "Other"; what is missing is
    "unknown".
    """
    rows = [
        (
            age_band(age),
            _SEXES.get((gender or "").strip().upper(), UNKNOWN),
            _races().get(race.strip().upper(), "other") if race else UNKNOWN,
            _INSURANCES.get(insurance.strip().upper(), "Other") if insurance and insurance.strip() else UNKNOWN,
        )
        for age, gender, race, insurance in people
    ]
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    return dict(zip(("age", "sex", "race", "insurance"), columns, strict=True))
