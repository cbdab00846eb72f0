"""The data that every task hands over: prompts with their right answers, and where they come from."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from patientdx.records.features import Features
from patientdx.records.severity import scored


@dataclass(frozen=True)
class Example:
    """One prompt with its right answer. Which of `label`, `gold` and `reference` is set depends on the task's kind.

    Attributes:
        uid, subject, split: unique id, patient (or another unit that a bootstrap draws), and split of the example.
        prefix, context, suffix: the prompt's text is their concatenation. Only `context` may be cut when the prompt is
            too long.
        options: `options[i]` holds every spelling of answer i; () for generation. For binary and ranking tasks option 0
            is the positive answer.
        label: binary and ranking: 1 if the outcome happened or the candidate is relevant (option 0 is right), else 0.
        gold: multiple choice: index of the right option.
        reference: generation: a right answer as its author wrote it, "" if there is none.
    """

    uid: str
    subject: str
    split: str
    prefix: str
    context: str
    suffix: str
    options: tuple[tuple[str, ...], ...] = ()
    label: int | None = None
    gold: int | None = None
    reference: str = ""


@dataclass(frozen=True)
class PromptVariant:
    """The task's question in other words, to measure how much a score depends on the wording.

    `suffix` and `options` replace those of an example. `inverted`: option 0 now means that the outcome did not happen
    (survival instead of death), so a model that understands the question reverses its order of the patients.
    """

    name: str
    suffix: str
    options: tuple[tuple[str, ...], ...]
    inverted: bool = False


@dataclass(frozen=True)
class Generation:
    """How generated answers are made and scored.

    Attributes:
        length: largest number of new tokens.
        stops: texts at which an answer ends; they are cut off.
        metrics: names of the scores that `judge` returns.
        judge: `judge(i, text)` maps each of `metrics` to (points, maximum) for the answer `text` to example i. None:
            answers are compared with the references by `patientdx.metrics.text_overlap`.
        encoder: folder of the encoder for BERTScore; None: no BERTScore.
    """

    length: int
    stops: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    judge: Callable[[int, str], Mapping[str, tuple[float, float]]] | None = None
    encoder: str | None = None


@dataclass(frozen=True)
class Ranking:
    """Queries with their candidates, of a ranking task: each example is one query with one candidate document.

    The examples of a query are adjacent, in the order of the first stage.

    Attributes:
        query, document: per example: index into `queries` and `documents`.
        first_stage: per example: score of the first stage, higher is better.
        grade: per example: grade of relevance, 0 for irrelevant.
        queries: ids of the queries.
        missed: per query: grades of the relevant documents that are not among its candidates.
        documents: ids of the documents.
        depth: requested number of candidates; a small collection has fewer.
    """

    query: tuple[int, ...]
    document: tuple[int, ...]
    first_stage: tuple[float, ...]
    grade: tuple[int, ...]
    queries: tuple[str, ...]
    missed: tuple[tuple[int, ...], ...]
    documents: tuple[str, ...]
    depth: int


@dataclass(frozen=True)
class TaskData:
    """A loaded task.

    Attributes:
        name: the task's name. kind: `binary`, `multiple_choice`, `generation` or `ranking`.
        examples: the prompts; `features`, every list of `groups` and `times` have one entry per example, in this order.
        open_data: true only if the source is known to be public or generated. The text of any other source stays out
            of logs, reports and uploads.
        fingerprint: changes whenever a prompt, a right answer or a split changes.
        provenance: the files and settings that made the examples, without a path of this machine.
        cohort: the attrition table, one row per step (clinical tasks: step, stays, patients, events).
        readings: of clinical tasks, for each reading: values charted, dropped as impossible, stays without any.
        prompt_variants: the question in other words; () if there are none.
        features: input of tabular models, None if there are none.
        severity: what severity scores take of each row (`severity_points` counts the points); None if nothing.
        groups: subgroup of every example, by grouping (sex, age band, set of questions, ...).
        times: prediction times, where the window that the text may show ends.
        chat: whether prompts go through the model's chat template; None: as the model is marked.
        generation, ranking: the further data of these two kinds.
    """

    name: str
    kind: str
    examples: tuple[Example, ...]
    open_data: bool
    fingerprint: str
    provenance: dict[str, Any]
    cohort: list[dict[str, Any]]
    readings: list[dict[str, Any]] = field(default_factory=list)
    prompt_variants: tuple[PromptVariant, ...] = ()
    features: Features | None = None
    severity: Features | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    times: tuple[datetime, ...] = ()
    chat: bool | None = None
    generation: Generation | None = None
    ranking: Ranking | None = None

    @cached_property
    def severity_points(self) -> Features | None:
        """The points of the severity scores, see `records.severity.scored`; counted when first needed."""
        return None if self.severity is None else scored(self.severity)


def fingerprint(examples: tuple[Example, ...], settings: Mapping[str, Any]) -> str:
    """sha256 (hex) over the examples and the plain settings that made them."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, ensure_ascii=False).encode())
    for example in examples:
        digest.update(json.dumps(asdict(example), sort_keys=True, ensure_ascii=False).encode())
    return digest.hexdigest()


def without_split(data: TaskData, split: str) -> TaskData:
    """The data as they would be if no example were in `split`: nothing of the result depends on one that is.

    What counts or hashes all examples is left out: the attrition table, the counts of readings, and of the provenance
    all but the settings. For tasks of kind `binary`.
    """
    rows = [i for i, example in enumerate(data.examples) if example.split != split]
    examples = tuple(data.examples[i] for i in rows)
    public = {"settings": data.provenance.get("settings", {})}

    def cut(table: Features | None) -> Features | None:
        return None if table is None else replace(table, values=table.values[rows])

    return replace(
        data,
        examples=examples,
        fingerprint=fingerprint(examples, public),
        provenance=public | {"withheld": f"what depends on the examples of {split}"},
        cohort=[],
        readings=[],
        features=cut(data.features),
        severity=cut(data.severity),
        groups={name: tuple(values[i] for i in rows) for name, values in data.groups.items()},
        times=tuple(data.times[i] for i in rows) if data.times else (),
    )
