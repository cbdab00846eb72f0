"""The kinds of a task, and what only a task of yes/no questions has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patientdx.evaluation.config.finetune import FinetuneConfig
    from patientdx.evaluation.config.privacy import PrivacyConfig
    from patientdx.evaluation.config.search import SearchConfig

CHOICE = "binary"  # two options, one token each: everything that a clinic asks for
MULTIPLE_CHOICE = "multiple_choice"  # any number of options, of any length
GENERATE = "generation"  # an answer in the model's own words
RANK = "ranking"  # yes or no for each candidate of a query, which puts them in order
KINDS = (CHOICE, MULTIPLE_CHOICE, GENERATE, RANK)
TAUGHT = (CHOICE, MULTIPLE_CHOICE, GENERATE)  # what a model can be fine-tuned on: a prompt has one right answer


def kind_errors(
    kind: str | None,
    task: str,
    finetune: FinetuneConfig | None,
    privacy: PrivacyConfig,
    search: SearchConfig | None,
) -> list[str]:
    """What a configuration names and a task of this kind does not have, as messages.

    These are privacy measures, a search for λ, of kind ranking a fine-tuned model, of the others the AUROC of one.
    Prompt variants and tabular models are refused by `patientdx.evaluation.plan`, which knows what the task gives.
    """
    if kind not in (MULTIPLE_CHOICE, GENERATE, RANK):
        return []
    needs = {
        "finetune": finetune is not None and kind not in TAUGHT,
        "privacy": privacy.enabled,
        "search": search is not None,
    }
    errors = [
        f"{name}: it needs yes/no questions, but task={task} is of kind {kind}. Leave {name} out, "
        "or use a task of kind binary (task=mortality)."
        for name, needed in needs.items()
        if needed
    ]
    if finetune is not None and kind in TAUGHT and finetune.hyperparameters.monitor == "auroc":
        errors.append(
            f"finetune.monitor=auroc: it is of yes/no questions, but task={task} is of kind {kind}. "
            "Use finetune.monitor=loss, or a task of kind binary (task=mortality)."
        )
    return errors
