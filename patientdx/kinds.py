"""The kinds of a task, and what only a task of yes/no questions has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patientdx.settings import Settings

CHOICE = "choice"  # two options, one token each: everything that a clinic asks for
MULTIPLE_CHOICE = "multiple_choice"  # any number of options, of any length
GENERATE = "generate"  # an answer in the model's own words
KINDS = (CHOICE, MULTIPLE_CHOICE, GENERATE)


def only_yes_no(found: Settings, faults: list[str]) -> Settings:
    """The settings without the clinical evaluation where the task's questions are not answered by yes or no.

    What somebody asked for by name and such a task does not have goes to `faults`: a comparator, privacy measures, a
    search for λ. Probes and tabular models are refused by `patientdx.plan`, which knows what the task gives.
    """
    if found.kind not in (MULTIPLE_CHOICE, GENERATE):
        return found
    asked = {
        "finetune": found.finetune is not None,
        "privacy": found.privacy is not None and found.privacy.asked,
        "search": found.search is not None,
    }
    for name in (name for name, wanted in asked.items() if wanted):
        faults.append(
            f"{name}: it needs yes/no questions, but task={found.task_name} is of kind {found.kind}. Leave {name} out, "
            "or use a task of kind choice (task=mortality)."
        )
    return replace(found, clinical=False)
