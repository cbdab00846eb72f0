"""conf/finetune as a checked value: which model is trained, on what, and how."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from patientdx.evaluation.config import checks
from patientdx.training.hyperparameters import LOSSES, METHODS, MONITORS, PRECISIONS, Hyperparameters

STARTS = ("base", "pivot", "merged")
SPLITS = ("train", "test")
NONE = "none"
_OF_LORA = ("rank", "alpha", "dropout", "targets")


@dataclass(frozen=True)
class FinetuneConfig:
    """A model to be fine-tuned, and to stand beside the others of the run.

    Attributes:
        init_from: the model that training starts from: base, pivot, or merged (at the run's λ).
        split: the split it is trained on: train; test is a control for measures of leakage, and no result.
        examples: so many of the split's, always the same; None: all.
        pilot_examples: so many of the pilot split's to look at during training; None: all.
        max_tokens: longest prompt with its answer; None: as scoring has it.
        hyperparameters: see `Hyperparameters`.
    """

    init_from: str
    split: str
    examples: int | None
    pilot_examples: int | None
    max_tokens: int | None
    hyperparameters: Hyperparameters


def comparator(plain: Mapping[str, Any], errors: list[str]) -> FinetuneConfig | None:
    """What the composed config asks to be fine-tuned; None for finetune=none. What is wrong goes to `faults`."""
    node = plain.get("finetune")
    if not isinstance(node, dict):
        errors.append("this configuration has no finetune: choose one, as in finetune=none.")
        return None
    if node.get("name") == NONE:
        return None
    before = len(errors)
    method = checks.one_of(node.get("name"), "finetune", METHODS, errors)
    _beside(plain, method, errors)
    own = [field.name for field in fields(Hyperparameters) if field.name != "method"]
    known = {"name", "init_from", "split", "examples", "pilot_examples", "max_tokens", *own}
    known -= set() if method == "lora" else set(_OF_LORA)
    errors += [f"finetune.{key}: finetune={method} has no such key." for key in sorted(set(node) - known)]
    errors += [f"finetune.{key} is missing." for key in sorted(known - set(node))]
    if len(errors) > before:
        return None
    found = FinetuneConfig(
        init_from=checks.one_of(node["init_from"], "finetune.init_from", STARTS, errors),
        split=checks.one_of(node["split"], "finetune.split", SPLITS, errors),
        examples=checks.whole(node["examples"], "finetune.examples", 2, errors, null=True),
        pilot_examples=checks.whole(node["pilot_examples"], "finetune.pilot_examples", 2, errors, null=True),
        max_tokens=checks.whole(node["max_tokens"], "finetune.max_tokens", 16, errors, null=True),
        hyperparameters=_hyperparameters(node, method, errors),
    )
    return None if len(errors) > before else found


def _beside(plain: Mapping[str, Any], method: str, errors: list[str]) -> None:
    """What cannot go together with a fine-tuned model."""
    model = plain["model"].get("name")
    if model != "merged":
        errors.append(
            f"finetune={method}: model={model} is scored alone, and is no language model. Leave finetune out, or use "
            "model=merged."
        )
    if plain["task"].get("name") == NONE:
        errors.append(f"finetune={method}: without a task there is nothing to train on. Choose one: task=mortality.")
    elif plain["save"] is not None or plain["dry_run"] is True:
        errors.append(
            f"finetune={method}: save and dry_run are of the merged model; a fine-tuned one holds what it was trained "
            "on, and stays in the cache. Leave out one or the other."
        )


def _hyperparameters(node: Mapping[str, Any], method: str, errors: list[str]) -> Hyperparameters:
    def whole(key: str, least: int, null: bool = False) -> int | None:
        return checks.whole(node[key], f"finetune.{key}", least, errors, null=null)

    def number(key: str, fits: Callable[[float], bool], words: str) -> float:
        value = node[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not fits(value):
            errors.append(f"finetune.{key}={value}: give a number {words}.")
            return 1.0
        return float(value)

    def share(key: str) -> float:
        return number(key, lambda value: 0 <= value < 1, "of at least 0 and below 1")

    def positive(key: str) -> float:
        return number(key, lambda value: value > 0, "above 0")

    batch, micro_batch_size = whole("batch", 1), whole("micro_batch_size", 1)
    if (
        isinstance(batch, int)
        and isinstance(micro_batch_size, int)
        and micro_batch_size > 0
        and batch % micro_batch_size
    ):
        errors.append(
            f"finetune.micro_batch_size={micro_batch_size}: a batch of {batch} cannot be split "
            "so. Give a divisor of it."
        )
    lora = {}
    if method == "lora":
        targets = node["targets"]
        if not isinstance(targets, list) or not targets or not all(isinstance(one, str) for one in targets):
            errors.append(f"finetune.targets={targets}: give a list of names of linear layers, as in [q_proj,v_proj].")
            targets = []
        lora = {"rank": whole("rank", 1), "alpha": positive("alpha"), "dropout": share("dropout"),
                "targets": tuple(dict.fromkeys(targets))}  # fmt: skip
    return Hyperparameters(
        method=method,
        loss=checks.one_of(node["loss"], "finetune.loss", LOSSES, errors),
        epochs=positive("epochs"),
        steps=whole("steps", 1, null=True),
        learning_rate=positive("learning_rate"),
        warmup_ratio=share("warmup_ratio"),
        batch=batch,
        micro_batch_size=micro_batch_size,
        seed=whole("seed", 0),
        precision=checks.one_of(node["precision"], "finetune.precision", PRECISIONS, errors),
        gradient_checkpointing=checks.yes_no(node["gradient_checkpointing"], "finetune.gradient_checkpointing", errors),
        patience=whole("patience", 1, null=True),
        monitor=checks.one_of(node["monitor"], "finetune.monitor", MONITORS, errors),
        check_every=whole("check_every", 1, null=True),
        **lora,
    )
