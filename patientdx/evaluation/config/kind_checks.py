"""What only tasks of some kinds have, checked by the traits of the kind."""

from __future__ import annotations

from patientdx.evaluation.config.finetune import FinetuneConfig
from patientdx.evaluation.config.privacy import PrivacyConfig
from patientdx.evaluation.config.search import SearchConfig
from patientdx.evaluation.registry import kind_names, kind_traits


def kind_errors(
    task: str | None,
    kind: str | None,
    finetune: FinetuneConfig | None,
    privacy: PrivacyConfig,
    search: SearchConfig | None,
) -> list[str]:
    """Errors of what was configured by name and a task of this kind does not have.

    Privacy measures, fine-tuning of kinds that cannot be trained on, stopping by AUROC, a private search.
    """
    if kind not in kind_names() or kind_traits(kind).gives_probability:
        return []
    trainable, of_kind = kind_traits(kind).trainable, f"but task={task} is of kind {kind}"
    use_binary = "a task of kind binary (task=mortality)"
    errors = [
        f"{name}: it needs yes/no questions, {of_kind}. Leave {name} out, or use {use_binary}."
        for name, is_refused in (("finetune", finetune is not None and not trainable), ("privacy", privacy.enabled))
        if is_refused
    ]
    if finetune is not None and trainable and finetune.hyperparameters.monitor == "auroc":
        errors.append(
            f"finetune.monitor=auroc: it is of yes/no questions, {of_kind}. Use finetune.monitor=loss, or {use_binary}."
        )
    if search is not None and not search.releases_scores:
        errors.append(
            f"search={search.name} is for the AUROC of binary tasks, {of_kind}. Use search=grid, or {use_binary}."
        )
    return errors
