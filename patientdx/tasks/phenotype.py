"""Task `phenotype`: from the first hours of an ICU stay, which chronic condition will the admission be coded with?"""

import csv
import io
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from patientdx.core.errors import UserError
from patientdx.records.cohort import Outcome
from patientdx.records.source import SYNTHETIC
from patientdx.tasks.example import TaskData
from patientdx.tasks.prediction import FRACTIONS, Request, predict, switches

QUESTION = "Does this patient have {condition}? Answer Yes or No."
PROMPT_VARIANTS = (
    {"name": "reworded", "question": "Is {condition} among the diagnoses of this patient? Answer Yes or No."},
    {"name": "no_or_yes", "question": "Does this patient have {condition}? Answer No or Yes."},
    {"name": "absent", "question": "Is this patient free of {condition}? Answer Yes or No.", "inverted": True},
)
CODES = {"hosp/diagnoses_icd": {"hadm_id": "BIGINT", "icd_code": "VARCHAR", "icd_version": "INTEGER"}}


@cache
def conditions() -> dict[str, tuple[str, tuple[tuple[int, str], ...]]]:
    """By key: a condition's name and its codes, as (ICD version, what the code starts with). From conditions.csv."""
    text = (resources.files("patientdx.records") / "conditions.csv").read_text(encoding="utf-8")
    found: dict[str, tuple[str, tuple[tuple[int, str], ...]]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        _, codes = found.get(row["condition"], ("", ()))
        found[row["condition"]] = (row["name"], (*codes, (int(row["icd_version"]), row["starts_with"])))
    return found


def outcome(condition: str) -> Outcome:
    """Whether a discharge code of the stay's admission is one of the condition's. Raises UserError on another one."""
    if condition not in conditions():
        raise UserError(f"task.condition={condition!r}: there are {', '.join(conditions())}.")
    _, codes = conditions()[condition]
    one = " OR ".join(f"(d.icd_version = {version} AND starts_with(trim(d.icd_code), '{s}'))" for version, s in codes)
    coded = "EXISTS (SELECT 1 FROM diagnoses_icd d WHERE d.hadm_id = s.hadm_id{})"
    return Outcome(coded.format(f" AND ({one})"), (("admission has discharge codes", coded.format("")),), CODES)


def load(
    *,
    cache: Path,
    seed: int = 0,
    source: str = "mimic",
    mimic_root: Sequence[str] | str | None = None,
    synthetic: Mapping[str, float | None] = SYNTHETIC,
    preset: str | None = None,
    condition: str = "heart_failure",
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
    """Adult ICU stays of at least window + gap hours as yes/no questions; label 1: the admission is coded so.

    `condition` is a key of conditions.csv, which says which ICD-9 and ICD-10 codes make it; the codes are the
    admission's, given after discharge. Stays of admissions without any code are left out and counted. Other keywords
    are explained in conf/task/phenotype.yaml. Raises UserError where the text would hold the discharge codes, which are
    the answer, and on any parameter, file or cohort that will not do.
    """
    given = locals()
    own = {"condition": given.pop("condition")}
    asked = outcome(condition)
    if switches(preset, given)["diagnoses"] == "discharge":
        raise UserError(
            "task.diagnoses=discharge: the codes given at discharge are the answer that task=phenotype asks for. "
            "Set task.diagnoses=none or prior."
        )
    return predict("phenotype", asked, Request(**given), own=own, words={"condition": conditions()[condition][0]})
