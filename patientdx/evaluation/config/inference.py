"""How rows are scored, and how sure the metrics are."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import ValidationInfo, field_validator

from patientdx.core import extras
from patientdx.core.validation import ConfigErrors, at_least, number
from patientdx.evaluation.config.search import FIXED, PRIVATE
from patientdx.evaluation.config.section import Loop, Section, group_name, key, model_key
from patientdx.records.splits import ALL_SPLITS, EXTERNAL, SPLITS

# The keys of a task that give it a split of patients from elsewhere.
ELSEWHERE = ("external", "external_years")


class InferenceConfig(Section):
    """Which splits are scored, and how a language model is run. max_tokens and batch_tokens count tokens.

    dtype is that of the live model; after validation it is never `auto`. load: the precision that the weights of its
    linear layers are rounded to behind the merge; None: as they are.
    """

    splits: tuple[str, ...] = key("splits", loop=Loop.SCORES)
    device: Literal["auto", "cpu", "cuda", "mps"] = key("device", loop=Loop.LOAD)
    device_map: str | None = model_key("device_map", loop=Loop.LOAD)
    generator: Literal["transformers", "vllm"] = model_key("generator")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = model_key("dtype", loop=Loop.LOAD)
    load: Literal["int8", "int4"] | None = model_key("load", loop=Loop.LOAD)
    max_tokens: Annotated[int, at_least(16)] = model_key("scoring", "max_tokens", loop=Loop.TASK)
    batch_tokens: Annotated[int, at_least(1)] | None = model_key("scoring", "batch_tokens", loop=Loop.TASK)

    @property
    def reported(self) -> str:
        """The split whose numbers go by the task's own name: the last one that is not of patients from elsewhere."""
        return ([split for split in self.splits if split != EXTERNAL] or [EXTERNAL])[-1]

    @property
    def precision(self) -> str:
        """What rows and reports call the arithmetic: the dtype, behind int8 or int4 where weights are rounded to it."""
        return self.dtype if self.load is None else f"{self.load}-{self.dtype}"

    @property
    def identity(self) -> dict[str, Any]:
        """What responses depend on of all this, for fingerprints."""
        return {"dtype": self.dtype} | ({} if self.load is None else {"load": self.load})

    @field_validator("splits", mode="before")
    @classmethod
    def _check_splits(cls, value: Any, info: ValidationInfo) -> tuple[str, ...]:
        if value is None:  # a sweep chooses λ on pilot, and reports it on test
            context = info.context or {}
            sweep = context.get("sweep") and group_name(context.get("plain", {}), "search") == FIXED
            plain = context.get("plain", {})
            has_elsewhere = any((plain.get("task") or {}).get(name) is not None for name in ELSEWHERE)
            # What is frozen for patients from elsewhere is fitted on pilot, whose scores a private choice keeps back.
            with_pilot = sweep or (has_elsewhere and group_name(plain, "search") != PRIVATE)
            return ("pilot",) * bool(with_pilot) + ("test",) + (EXTERNAL,) * has_elsewhere
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not names or any(name not in ALL_SPLITS for name in names):
            raise ValueError(f"give one or more of {', '.join(SPLITS)}, and {EXTERNAL} where the task has it.")
        return tuple(dict.fromkeys(names))

    @field_validator("device", mode="after")
    @classmethod
    def _check_device(cls, value: str) -> str:
        present = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        kind = "cpu" if present is None else present.type
        if value not in ("auto", "cpu", kind):
            raise ValueError(
                f"this machine shows no such device. Give auto or {' or '.join(dict.fromkeys(('cpu', kind)))}."
            )
        return value

    @field_validator("dtype", mode="after")
    @classmethod
    def _resolve_dtype(cls, value: str, info: ValidationInfo) -> str:
        from patientdx.lm.load import default_dtype

        return default_dtype(info.data.get("device", "auto")) if value == "auto" else value

    @field_validator("load", mode="after")
    @classmethod
    def _check_load(cls, value: str | None) -> str | None:
        if value is not None and (absent := extras.absence(["torchao"])):
            raise ValueError(f"it needs {absent} Or leave load out.")
        return value

    @field_validator("generator", mode="after")
    @classmethod
    def _check_generator(cls, value: str) -> str:
        from patientdx.lm import vllm

        if errors := vllm.errors(value):
            raise ConfigErrors(errors)
        return value


class BootstrapConfig(Section):
    """How intervals are drawn: resamples of patients with replacement, and the level of the interval."""

    resamples: Annotated[int, at_least(100)] = key("bootstrap", "resamples", loop=Loop.SCORES)
    level: Annotated[float, number("give a number between 0 and 1.", lambda level: 0 < level < 1)] = key(
        "bootstrap", "level", loop=Loop.SCORES
    )
    seed: Annotated[int, at_least(0)] = key("seed")

    @property
    def keywords(self) -> dict[str, Any]:
        """Keywords of the functions of `metrics.bootstrap`."""
        return self.model_dump()
