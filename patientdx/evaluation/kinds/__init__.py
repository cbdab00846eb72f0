"""The kinds of a task. Each is one file of this folder with a `KIND`, and is found by listing the folder.

No other code tests which kind a task has: what differs between kinds is a method or an attribute of `Kind`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from patientdx.core.errors import UserError, present
from patientdx.core.functions import Call
from patientdx.evaluation.config.finetune import FinetuneConfig
from patientdx.evaluation.inference import Array, Request
from patientdx.evaluation.registry import KINDS, member
from patientdx.evaluation.session import Parents
from patientdx.tasks.example import Example, Generation, Ranking, TaskData

Tokens = tuple[int, ...]
Keys = Mapping[tuple[str, str], str]  # fingerprints of responses by (role, split)


@dataclass(frozen=True)
class PromptSpec:
    """What prompts are made by: folder of the tokenizer, whether its model is a chat model, task, longest prompt.

    template_args: arguments of the chat template, as JSON. context: the longest text that the models read, in tokens;
    None where they do not say. without: the split whose examples are left out. vocabulary: how many tokens the models
    have an embedding for; None where they do not say.
    """

    tokenizer: Path
    chat: bool
    task: Call
    max_tokens: int
    template_args: str = "{}"
    context: int | None = None
    without: str | None = None
    vocabulary: int | None = None

    def load_tokenizer(self) -> Any:
        """The tokenizer, with the arguments of its template."""
        from patientdx.lm.load import load_tokenizer

        return load_tokenizer(self.tokenizer, json.loads(self.template_args))


@dataclass(frozen=True)
class TaskContext:
    """A task as it is evaluated: `rows` are example numbers by split, `metrics` dotted functions by name.

    prompts: the tokenised examples, as `Kind.encode` gives them. parents, prompt_spec and prompts are None in a run
    without a language model.
    """

    kind: Kind
    data: TaskData
    rows: Mapping[str, list[int]]
    metrics: tuple[tuple[str, str], ...]
    parents: Parents | None = None
    prompt_spec: PromptSpec | None = None
    prompts: Any = None

    @property
    def spec(self) -> PromptSpec:
        """What prompts are made by; ValueError in a run without a language model."""
        return present(self.prompt_spec, "no language model runs")

    @property
    def opened(self) -> Parents:
        """The parents; ValueError in a run without a language model."""
        return present(self.parents, "no language model runs")


@dataclass(frozen=True)
class Measures:
    """What metrics take of one system: one entry for each unit (u,), which is a stay, a question or a query.

    examples: number of each unit's (first) example, for its cluster and groups. values: by metric what was answered,
    (u,) or (u, k), and what is right, (u,). events: (u,) whether a unit has the event; all false without one.
    """

    examples: list[int]
    values: Mapping[str, tuple[Array, NDArray[Any]]]
    events: NDArray[np.bool_]

    def clusters(self, data: TaskData) -> NDArray[np.str_]:
        """(u,) the patient (or whatever a bootstrap draws together) of each unit."""
        return np.array([data.examples[i].subject for i in self.examples])


@dataclass(frozen=True)
class Scored:
    """One system's responses to some rows of a split, with all that their predictions are written from.

    hashed: gives ids as predictions may hold them. in_words: whether a language model answered.
    """

    context: TaskContext
    rows: Sequence[int]
    measures: Measures
    responses: Array
    hashed: Callable[[Sequence[str]], list[str]]
    in_words: bool


@dataclass(frozen=True)
class TrainingPrompts:
    """What the right answers of a task are taught with; `prompts` are those of the examples by number."""

    finetune: FinetuneConfig
    data: TaskData
    spec: PromptSpec
    prompts: Any


class Kind(Protocol):
    """What an evaluation needs to know of a kind.

    Attributes:
        name: as in `TaskData.kind` and `task.kind`; the stem of the file.
        unit: what is counted.
        gives_probability: whether responses are probabilities of an outcome with two values. The clinical evaluation,
            tabular models, prompt variants and measures of privacy need them.
        trainable: whether a model can be fine-tuned on such tasks.
        cpu_batch_tokens: padded tokens of a batch on a CPU.
        version: part of the fingerprint of responses; raise it when the same inputs give other responses. None for
            binary, whose responses have the version of `patientdx.evaluation.language_systems`.
    """

    name: str
    unit: str = "question"
    gives_probability: bool = False
    trainable: bool = False
    cpu_batch_tokens: int = 256
    version: int | None = 1

    def check_rows(self, name: str, data: TaskData, splits: Sequence[str], metrics: Sequence[str]) -> None:
        """UserError where the task `name` lacks what its metrics need in one of the splits."""
        require_units(name, [example.split for example in data.examples], splits)

    def metrics(self, metrics: tuple[tuple[str, str], ...], data: TaskData) -> tuple[tuple[str, str], ...]:
        """Those of the configured metrics that can be computed for this task."""
        return metrics

    def encode(self, data: TaskData, tokenizer: Any, *, chat: bool, max_tokens: int, context: int | None) -> Any:
        """The examples as token ids, at most `max_tokens` and the model's `context` long."""
        ...

    def respond(self, request: Request) -> Array:
        """(n, k) float64: the responses of a language model to the rows of the request; all processes take part."""
        ...

    def measures(self, context: TaskContext, rows: Sequence[int], responses: Array) -> Measures:
        """What the metrics take of responses (n, k) to these rows. UserError for a metric that the kind lacks."""
        ...

    def describe(self, context: TaskContext, measures: Measures, responses: Array, in_words: bool) -> dict[str, Any]:
        """Further numbers of a row of results; `in_words` says whether the system is a language model."""
        return {"n": len(measures.examples)}

    def unit_of(self, data: TaskData, row: int) -> int:
        """The number of the unit that an example belongs to."""
        return row

    def unit_ids(self, data: TaskData, measures: Measures) -> list[str]:
        """The id of each unit, to be hashed."""
        return [data.examples[i].uid for i in measures.examples]

    def columns(self, scored: Scored) -> dict[str, Any]:
        """Columns of the predictions beside ids, split and role; no text, and ids only as `hashed` gives them."""
        columns: dict[str, Any] = {}
        for name, (answer, right) in scored.measures.values.items():
            columns |= {name: list(answer), f"{name}_right": right}
        return columns

    def curves(self, measures: Measures) -> dict[str, list[tuple[float, float]]]:
        """Small curves for a tracker, by name."""
        return {}

    def write_texts(
        self, context: TaskContext, keys: Mapping[tuple[str, str], str], scores: Path, folder: Path
    ) -> None:
        """Write what was said, where the kind keeps texts and the data is open."""

    def has_targets(self, data: TaskData) -> bool:
        """Whether the examples have right answers to train on."""
        return False

    def training_limit(self, max_tokens: int, longest: int) -> int:
        """The longest prompt of training, whose examples with their answers may have `max_tokens`."""
        return min(longest, max_tokens - 1)

    def targets(self, training: TrainingPrompts, numbers: Sequence[int]) -> Iterator[tuple[Tokens, int | Tokens]]:
        """Prompt and right answer of some examples, as token ids."""
        raise UserError(f"{self.name} tasks have no answers to teach")


def kind_named(name: str) -> Kind:
    """The kind of that name."""
    return cast(Kind, member(KINDS, name))


def texts_of(example: Example) -> tuple[str, str, str]:
    """The three parts of an example's prompt."""
    return example.prefix, example.context, example.suffix


def ranking_of(data: TaskData) -> Ranking:
    """The queries of a ranking task; ValueError for another."""
    if data.ranking is None:
        raise ValueError(f"{data.name} is no ranking task")
    return data.ranking


def generation_of(data: TaskData) -> Generation:
    """How answers are generated; ValueError for a task without."""
    if data.generation is None:
        raise ValueError(f"{data.name} is no generation task")
    return data.generation


def require_units(name: str, splits_of_units: Sequence[str], splits: Sequence[str]) -> None:
    """UserError where one of the splits has fewer than two units."""
    count = {split: list(splits_of_units).count(split) for split in dict.fromkeys(splits_of_units)}
    few = [split for split in splits if count.get(split, 0) < 2]
    if few:
        present = ", ".join(f"{split} {n}" for split, n in count.items()) or "none"
        raise UserError(
            f"task={name} has fewer than 2 questions in {', '.join(few)}; it has {present}. Give files of "
            "that split, a share for it in task.fractions, or other splits, as in splits=[test]."
        )


def too_long(finetune: FinetuneConfig, longest: int, error: UserError, detail: str = "") -> UserError:
    """The error where a prompt and its answer do not fit, whatever is cut of the record."""
    cause = str(error).partition(". ")[0] + detail
    method = finetune.hyperparameters.method
    if finetune.max_tokens is None:
        return UserError(
            f"finetune={method}: a question and its reference are longer than the model's context of "
            f"{longest} tokens ({cause}). Leave such examples out, or use a model with a longer context."
        )
    return UserError(
        f"finetune.max_tokens={finetune.max_tokens} is too small for the question, its answer and something of a "
        f"record ({cause}). Set it higher, or leave it out: prompts are then as long as in scoring."
    )
