"""Which model is fine-tuned, on what, and how: conf/finetune."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ValidationInfo

from patientdx.core import extras
from patientdx.core.validation import ConfigErrors, at_least
from patientdx.evaluation.config.section import Section, group_name, model_key
from patientdx.training.hyperparameters import Hyperparameters

LORA = ("rank", "alpha", "dropout", "targets")


def _hyperparameters(node: Any, info: ValidationInfo) -> Any:
    from patientdx.lm.load import default_dtype

    if not isinstance(node, dict):
        return node
    if node.get("precision") == "auto":
        device = (info.context or {}).get("plain", {}).get("device", "auto")
        node = node | {"precision": default_dtype(str(device))}
    method = node.get("name")
    beside = {"name", "init_from", "split", "examples", "pilot_examples", "max_tokens"}
    known = {field.name for field in fields(Hyperparameters)} - (
        {"method"} | (set() if method == "lora" else set(LORA))
    )
    errors = [f".{name}: finetune={method} has no such key." for name in sorted(node.keys() - beside - known)]
    errors += [f".{name} is missing." for name in sorted(known - node.keys())]
    if method == "lora" and (absent := extras.absence(["peft"])):
        errors.append(f"=lora needs {absent}")
    if errors and method in ("lora", "full"):
        raise ConfigErrors(errors)
    return {"method": method} | {name: value for name, value in node.items() if name in known}


class FinetuneConfig(Section):
    """A model to be fine-tuned, and to be scored beside the others of the run.

    init_from: the model that training starts from: base, pivot, or merged (at the run's λ). split: the split it is
    trained on: train; test is a control for measures of leakage, and no result. examples: so many of the split, always
    the same; None: all. pilot_examples: so many of the pilot split to evaluate during training; None: all.
    max_tokens: longest prompt with its answer; None: as in scoring. After validation precision is never `auto`.
    """

    init_from: Literal["base", "pivot", "merged"] = model_key("finetune", "init_from")
    split: Literal["train", "test"] = model_key("finetune", "split")
    examples: Annotated[int, at_least(2)] | None = model_key("finetune", "examples")
    pilot_examples: Annotated[int, at_least(2)] | None = model_key("finetune", "pilot_examples")
    max_tokens: Annotated[int, at_least(16)] | None = model_key("finetune", "max_tokens")
    hyperparameters: Annotated[Hyperparameters, BeforeValidator(_hyperparameters)] = model_key("finetune")

    @classmethod
    def is_absent(cls, plain: Mapping[str, Any]) -> bool:
        """Whether this configuration has no such section."""
        return group_name(plain, "finetune") == "none"
