"""What every task hands to the scorers: questions with their right answers, and where they come from."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Example:
    """One question about one record.

    The prompt's text is `before + record + after`; only `record` may be cut when the prompt is too long.
    `options[i]` holds every way of writing answer i. Option 0 is the positive answer, and `label` is 1 when
    the outcome happened, so `label == 1` says that option 0 is right. Of a task of kind multiple_choice `label` is the
    number of the right option; of kind generation there are no options, and `label` is 0; of kind ranking it is 1 where the
    candidate is relevant. `answer`: what a right answer in words says, as its author wrote it; empty where
    there is none.
    """

    uid: str
    subject: str
    split: str
    before: str
    record: str
    after: str
    options: tuple[tuple[str, ...], ...]
    label: int
    answer: str = ""


@dataclass(frozen=True)
class Probe:
    """The task's question put another way, to see how much of a score hangs on the wording.

    `after` takes the place of an example's own, `options` likewise. `reverses`: option 0 now says that the outcome did
    not happen (survival in place of death), so that a model which understands reverses its order.
    """

    name: str
    after: str
    options: tuple[tuple[str, ...], ...]
    reverses: bool = False


@dataclass(frozen=True)
class Features:
    """What a tabular model sees of the examples: `values` float64 (n, k), NaN where nothing was read; k `names`."""

    names: tuple[str, ...]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Generation:
    """How answers in the model's own words are made and judged.

    `length`: most new tokens. `stops`: texts before which an answer ends. `judge(i, text)` says of the answer to
    example i, by the name of each of `metrics`, how much of it is right and out of how much. None: answers are compared
    with the examples' own, as `patientdx.metrics.text_overlap` has it. `encoder`: folder of the encoder that compares
    meanings too (BERTScore); None: none does.
    """

    length: int
    stops: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    judge: Callable[[int, str], Mapping[str, tuple[float, float]]] | None = None
    encoder: str | None = None


@dataclass(frozen=True)
class Ranking:
    """Queries with their candidates, of a task of kind ranking: each example is a query beside one candidate.

    Of each example: the number of its `query`, the number of its `document`, the `first_stage` score (higher is better)
    and the `grade` of relevance, 0 for none. The examples of a query stand together, as the first stage orders them. Of
    each query: its id in `queries`, and in `missed` the grades of the relevant documents that are not among its
    candidates. `documents` are ids. `depth`: how many candidates were asked for; a small collection has fewer.
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

    `open_data` is true only when the source is known to be public or generated; text of any other source
    stays out of logs, reports and uploads. `fingerprint` changes whenever a prompt, a label or a split does.
    `provenance` says which files and which settings made the examples, without a path of any machine.
    `cohort` is the attrition table: one row per step with the keys step, stays, patients and events.
    `features`, every list of `groups` (sex, age band, ... by name) and `times` (prediction times, where what the text
    may know ends) have one entry per example, in their order.
    `chat`: whether its prompts go through the model's chat template; None: as the model is marked. `generation`: how
    the answers of a task of kind generation are made and judged. `ranking`: which examples belong to which query, of a
    task of kind ranking.
    """

    name: str
    kind: str
    examples: tuple[Example, ...]
    open_data: bool
    fingerprint: str
    provenance: dict[str, Any]
    cohort: list[dict[str, Any]]
    probes: tuple[Probe, ...] = ()
    features: Features | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    times: tuple[datetime, ...] = ()
    chat: bool | None = None
    generation: Generation | None = None
    ranking: Ranking | None = None


def fingerprint(examples: tuple[Example, ...], settings: Mapping[str, Any]) -> str:
    """sha256 (hex) over the examples themselves and the plain settings that made them."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, ensure_ascii=False).encode())
    for example in examples:
        facts = asdict(example)
        if not example.answer:  # tasks that have none keep the fingerprints that they had before there was such a field
            del facts["answer"]
        digest.update(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode())
    return digest.hexdigest()
