"""A training job: the model that it starts from, its texts and its hyperparameters, under one key."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from importlib.metadata import version
from typing import Any

from patientdx.training.hyperparameters import Hyperparameters
from patientdx.training.texts import Text, digest

# Part of every key: raise it when the same job comes to give other weights.
_VERSION = 2
_LIBRARIES = ("torch", "transformers", "accelerate", "peft")


@dataclass(frozen=True)
class Job:
    """One model to be trained.

    Attributes:
        start: JSON of all that the weights before training depend on: content hashes, method, λ.
        hyperparameters: see `Hyperparameters`.
        texts: the training texts, in nested order.
        pilot: texts that training is evaluated on, with `labels` (of yes/no questions); empty without
            `hyperparameters.patience`.
        options: token ids of yes and of no, the positive one first; empty where the answers are others.
        open_data: whether all of the texts are public or generated.
        device: cpu, cuda, ...
        threads: of the CPU: the last bits of a product can depend on how many share it.
    """

    start: str
    hyperparameters: Hyperparameters
    texts: tuple[Text, ...]
    pilot: tuple[Text, ...]
    labels: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    open_data: bool
    device: str
    threads: int

    @property
    def settings(self) -> dict[str, Any]:
        """The job without its texts, with the versions of the libraries that run it; JSON values."""
        return {
            "start": json.loads(self.start),
            "hyperparameters": asdict(self.hyperparameters),
            "device": self.device,
            "threads": self.threads,
            "libraries": {name: version(name) for name in _LIBRARIES},
        }

    @cached_property
    def key(self) -> str:
        """SHA-256 of the job and of the libraries that run it."""
        uses_pilot = self.hyperparameters.patience is not None
        parts = self.settings | {
            "version": _VERSION,
            "texts": digest(self.texts),
            "pilot": [digest(self.pilot), self.labels, self.options] if uses_pilot else None,
            "open_data": self.open_data,
            "threads": self.threads if self.device == "cpu" else None,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """All of the job, texts included."""
        return json.dumps({field.name: getattr(self, field.name) for field in fields(self)}, default=vars)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job that `to_json` wrote."""
        values = json.loads(text)
        values["hyperparameters"] = Hyperparameters(**values["hyperparameters"])
        for name in ("texts", "pilot"):
            values[name] = tuple(Text(tuple(item["ids"]), item["first"]) for item in values[name])
        return cls(**values)
