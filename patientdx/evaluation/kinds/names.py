"""The kinds of a task, and what only a task of yes/no questions has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patientdx.evaluation.config.settings import Settings

CHOICE = "binary"  # two options, one token each: everything that a clinic asks for
MULTIPLE_CHOICE = "multiple_choice"  # any number of options, of any length
GENERATE = "generation"  # an answer in the model's own words
RANK = "ranking"  # yes or no for each candidate of a query, which puts them in order
KINDS = (CHOICE, MULTIPLE_CHOICE, GENERATE, RANK)
TAUGHT = (CHOICE, MULTIPLE_CHOICE, GENERATE)  # what a model can be fine-tuned on: a prompt has one right answer


def only_yes_no(found: Settings, errors: list[str]) -> Settings:
    """The settings without the clinical evaluation where the task's questions are not answered by yes or no.

    What somebody asked for by name and such a task does not have goes to `faults`: privacy measures, a search for λ, of
    kind ranking a comparator, of the others a comparator's AUROC. Probes and tabular models are refused by
    `patientdx.evaluation.plan`, which knows what the task gives.
    """
    if found.kind not in (MULTIPLE_CHOICE, GENERATE, RANK):
        return found
    asked = {
        "finetune": found.finetune is not None and found.kind not in TAUGHT,
        "privacy": found.privacy is not None and found.privacy.asked,
        "search": found.search is not None,
    }
    for name in (name for name, wanted in asked.items() if wanted):
        errors.append(
            f"{name}: it needs yes/no questions, but task={found.task_name} is of kind {found.kind}. Leave {name} out, "
            "or use a task of kind binary (task=mortality)."
        )
    if found.finetune is not None and found.kind in TAUGHT and found.finetune.hyperparameters.monitor == "auroc":
        errors.append(
            f"finetune.monitor=auroc: it is of yes/no questions, but task={found.task_name} is of kind {found.kind}. "
            "Use finetune.monitor=loss, or a task of kind binary (task=mortality)."
        )
    return replace(found, clinical=False)
