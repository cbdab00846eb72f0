"""What the clinical tasks share: from a cohort to yes/no questions about the first hours of an ICU stay."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb

from patientdx.core.errors import UserError
from patientdx.records import cohort, features, groups, outliers, splits, templates, window
from patientdx.records.source import opened_source
from patientdx.tasks.example import Example, PromptVariant, TaskData, fingerprint

OPTIONS = (
    ("Yes", "yes", "YES", " Yes", " yes", " YES"),
    ("No", "no", "NO", " No", " no", " NO"),
)
FRACTIONS = MappingProxyType({"train": 0.3, "pilot": 0.3, "test": 0.4})
# What the switches are unless the user says otherwise: `paper` is how PatientDx's data came about, flaws and all.
PRESETS: dict[str | None, dict[str, str]] = {
    None: {
        "death": "deathtime", "age": "admission", "diagnoses": "none", "split_by": "patient", "outliers": "range",
        "template": "intervals",
    },
    "paper": {
        "death": "dod", "age": "anchor", "diagnoses": "discharge", "split_by": "stay", "outliers": "cohort",
        "template": "paper",
    },
}  # fmt: skip
OUTLIERS = ("range", "train", "cohort")


@dataclass(frozen=True)
class Request:
    """The keywords that every clinical task takes, as conf/task/mortality.yaml explains them."""

    cache: Path
    seed: int
    source: str
    mimic_root: Sequence[str] | str | None
    synthetic: Mapping[str, float | None]
    preset: str | None
    window_hours: int
    gap_hours: int
    death: str | None
    age: str | None
    diagnoses: str | None
    outliers: str | None
    template: str | None
    sections: Mapping[str, int | None] | None
    split_by: str | None
    fractions: Mapping[str, float]
    limit: int | None
    memory_limit: str
    threads: int | None
    question: str
    prompt_variants: Sequence[Mapping[str, Any]] | None


def switches(preset: str | None, given: Mapping[str, Any]) -> dict[str, str]:
    """The value of every switch: as given, or where that is None as the preset has it.

    Raises UserError on another preset, `split_by` or `outliers`; the other switches are checked where they are used.
    """
    if preset not in PRESETS:
        raise UserError(f"task.preset={preset!r}: it is null (safe settings) or paper (as PatientDx's data was made).")
    chosen = {name: value if given[name] is None else given[name] for name, value in PRESETS[preset].items()}
    for name, known in (("split_by", splits.UNITS), ("outliers", OUTLIERS)):
        if chosen[name] not in known:
            raise UserError(f"task.{name}={chosen[name]!r}: choose {' or '.join(known)}.")
    return chosen


def predict(
    task: str,
    outcome: cohort.Outcome,
    asked: Request,
    *,
    own: Mapping[str, Any] = MappingProxyType({}),
    words: Mapping[str, Any] = MappingProxyType({}),
) -> TaskData:
    """The task's examples: one for every stay of the cohort of `outcome`, label 1 where the outcome happened.

    `own` are the task's further keywords, for the record; `words` fill the {places} in its questions. Raises UserError on
    any parameter, file or cohort that will not do, before anything expensive where that can be known.
    """
    chosen = switches(asked.preset, vars(asked))
    written = templates.template(chosen["template"], sections=asked.sections)
    shares = splits.checked_fractions(asked.fractions)
    needed = window.needed(chosen["diagnoses"], cohort.NEEDED, outcome.needed)
    hours = {"window_hours": asked.window_hours, "gap_hours": asked.gap_hours}
    check_numbers(
        window_hours=(asked.window_hours, 1),
        gap_hours=(asked.gap_hours, 0),
        limit=(asked.limit, 1),
        seed=(asked.seed, 0),
    )
    question, prompt_variants = filled(asked.question, words), checked_variants(asked.prompt_variants or (), words)
    with opened_source(
        cache=Path(asked.cache), source=asked.source, root=asked.mimic_root, synthetic=asked.synthetic, needed=needed,
        memory_limit=asked.memory_limit, threads=asked.threads,
    ) as found:  # fmt: skip
        group = cohort.select(found.con, outcome, **hours, death=chosen["death"], age=chosen["age"])
        stays = splits.divided(group.stays, by=chosen["split_by"], seed=asked.seed, fractions=shares, limit=asked.limit)
        splits.check_splits([(part, label) for _, _, label, part in stays])
        texts, cut, table = _read(found.con, stays, written, chosen, asked.window_hours)
        people = _people(found.con, stays)
    examples = tuple(_example(*row, record=texts[row[0]], question=question) for row in stays)
    settings: dict[str, Any] = {
        "task": task, **chosen, "template": written.id, "template_sha256": written.sha256,
        "sections": dict(written.sections), "seed": asked.seed, **hours, "fractions": shares, "limit": asked.limit,
        "question": question, **own,
    }  # fmt: skip
    used = {"preset": asked.preset, **settings}
    return TaskData(
        name=task,
        kind="binary",
        examples=examples,
        open_data=found.open_data,
        fingerprint=fingerprint(examples, settings),
        provenance={"source": found.origins, "tables": found.facts, "settings": used, "sections_cut": cut},
        cohort=group.attrition,
        prompt_variants=prompt_variants,
        features=table,
        groups=groups.groups(rest for _, *rest in people),
        times=tuple(time for time, *_ in people),
    )


def _read(
    con: duckdb.DuckDBPyConnection,
    stays: Sequence[splits.Row],
    written: templates.Template,
    chosen: dict[str, str],
    hours: int,
) -> tuple[dict[int, str], dict[str, dict[str, int]], features.Features | None]:
    """Text of each stay, what its budgets cut, and the stays' features. Narrows the table `cohort` to these stays."""
    train = [stay for stay, _, _, part in stays if part == "train"]
    ceilings: dict[bool, Any] = {False: None, True: None}  # by every_item
    if chosen["outliers"] == "train" and not train:
        raise UserError("task.outliers=train: no stay is in train. Give train a share in task.fractions.")
    if chosen["outliers"] != "range":
        fitted = train if chosen["outliers"] == "train" else None
        kinds = {False, written.every_item}
        ceilings |= {every: outliers.limits(con, stays=fitted, every_item=every) for every in kinds}
    con.execute("DELETE FROM cohort WHERE stay_id NOT IN (SELECT unnest(?))", [[stay for stay, *_ in stays]])
    same = {"diagnoses": chosen["diagnoses"], "courses": True}
    words: dict[int, templates.Written] = {}

    def told(records: Iterable[tuple[int, window.Record]]) -> Iterator[tuple[int, window.Record]]:
        for stay, record in records:
            words[stay] = written.written(record, hours)
            yield stay, record

    plain = window.stream(con, limits=ceilings[False], **same)
    read = plain if written.every_item else told(plain)
    table = None
    # Which drugs and codes are common is counted on train: without it there is nothing to fit a tabular model on.
    if train:
        order, found = features.table(read, fit_on=train)
        place = {stay: row for row, stay in enumerate(order)}
        table = features.Features(found.names, found.values[[place[stay] for stay, *_ in stays]])
    if written.every_item:
        read = told(window.stream(con, every_item=True, limits=ceilings[True], **(same | {"courses": written.courses})))
    deque(read, maxlen=0)  # what nobody has read yet
    return {stay: one.text for stay, one in words.items()}, templates.left_out(words.values()), table


def _people(con: duckdb.DuckDBPyConnection, stays: Sequence[splits.Row]) -> list[tuple]:
    """(prediction time, age, gender, race, insurance) of each stay, in their order."""
    rows = con.execute("SELECT stay_id, prediction_time, age, gender, race, insurance FROM cohort").fetchall()
    known = {stay: tuple(rest) for stay, *rest in rows}
    return [known[stay] for stay, *_ in stays]


def _example(stay: int, subject: int, label: int, part: str, *, record: str, question: str) -> Example:
    return Example(
        uid=str(stay),
        subject=str(subject),
        split=part,
        prefix="",
        context=record,
        suffix=f"\n\n{question}",
        options=OPTIONS,
        label=label,
    )


def filled(question: str, words: Mapping[str, Any]) -> str:
    """The question with every {place} of `words` filled in."""
    for name, word in words.items():
        question = question.replace(f"{{{name}}}", str(word))
    return question


def checked_variants(
    prompt_variants: Iterable[Mapping[str, Any]], words: Mapping[str, Any]
) -> tuple[PromptVariant, ...]:
    """The task's question put otherwise, as a yaml lists it. Raises UserError on another form or a name used twice."""
    found: list[PromptVariant] = []
    for place, probe in enumerate(prompt_variants):
        given = dict(probe) if isinstance(probe, Mapping) else {}
        name, asked, inverted = given.pop("name", None), given.pop("question", None), given.pop("inverted", False)
        plain = isinstance(name, str) and isinstance(asked, str) and isinstance(inverted, bool)
        if given or not plain or name in {one.name for one in found}:
            raise UserError(
                f"task.prompt_variants[{place}]={probe!r}: a prompt variant has a name of its own, a question and, where Yes then says "
                "that the outcome did not happen, inverted: true."
            )
        found.append(PromptVariant(name, f"\n\n{filled(asked, words)}", OPTIONS, inverted))
    return tuple(found)


def check_numbers(**given: tuple[int | None, int]) -> None:
    """Each is name=(value, least). Raises UserError unless it is a whole number so large; `limit` may be None."""
    for name, (value, least) in given.items():
        if name == "limit" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            key = name if name == "seed" else f"task.{name}"
            raise UserError(f"{key}={value!r}: a whole number of {least} or more is needed.")
