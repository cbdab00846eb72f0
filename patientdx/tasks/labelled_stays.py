"""A yes/no question about stays of any hospital: labels in one file, records in others, read by a file of concepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from patientdx.core.cache import draw_secret
from patientdx.core.checksums import file_hash
from patientdx.core.errors import UserError
from patientdx.core.paths import expanded
from patientdx.records.concept_table import Concept
from patientdx.records.connection import connected
from patientdx.records.groups import UNKNOWN, groups
from patientdx.records.labelled import text as writing
from patientdx.records.labelled.concept_file import YAIB, ConceptFile, concept_file
from patientdx.records.labelled.events import LAYOUTS, Events, Names, open_events, yaib_file
from patientdx.records.labelled.readings import Readings, read
from patientdx.records.parameters import check_choice, check_numbers
from patientdx.records.severity import of_features
from patientdx.records.splits import ALL_SPLITS, EXTERNAL, FRACTIONS, checked_fractions, position
from patientdx.tasks.clinical import checked_variants
from patientdx.tasks.data_files import located
from patientdx.tasks.elsewhere import elsewhere, with_elsewhere
from patientdx.tasks.example import TaskData, fingerprint
from patientdx.tasks.item_files import limited
from patientdx.tasks.labelled_rows import asked_question, check_columns
from patientdx.tasks.leaks import check_leaks
from patientdx.tasks.stay_labels import LabelledStay, Named, StayLabels, cells_by, label_files

VERSION = 2  # raise it when the same files give other prompts or other splits
NAME = "labelled_stays"
_SOURCE = "It has a label (0 or 1), a patient and a prediction time for each stay, as MEDS' label files have."
_NOT_STATIC = ("label_column", "patient_column", "time_column", "discharge_column", "split_column")
_YAIB_STATIC = ("age", "sex", "height", "weight")


@dataclass(frozen=True, kw_only=True)
class LabelledStaysTask:
    """The keys of the task, as conf/task/labelled_stays.yaml explains them."""

    cache: Path
    layout: str
    path: str | None = None
    records: str | None = None
    concepts: str | None = None
    question: str | None = None
    window_hours: int | None = None
    label_column: str | None = None
    patient_column: str | None = None
    time_column: str | None = None
    discharge_column: str | None = None
    split_column: str | None = "split"
    static: Sequence[str] | None = None
    record_columns: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, int] | None = None
    fractions: Mapping[str, float] = field(default_factory=lambda: dict(FRACTIONS))
    seed: int = 0
    limit: int | None = None
    text_tokens: int = 900
    prompt_variants: Sequence[Mapping[str, Any]] = ()
    open_data: bool = False
    memory_limit: str = "2GB"
    threads: int | None = None
    external: Mapping[str, Any] | None = None

    def load(self) -> TaskData:
        """One example per label, with `external` also those of another hospital, in the split external.

        Raises UserError for parameters, files or rows that are not valid.
        """
        inside = self._load()
        return inside if self.external is None else with_elsewhere(inside, elsewhere(self)._load(split=EXTERNAL))

    def _load(self, *, split: str | None = None) -> TaskData:
        """The examples of one hospital; split: that of all of them, None: as the labels say, or drawn."""
        question = asked_question(self.question)
        check_choice("layout", self.layout, LAYOUTS)
        check_numbers(limit=(self.limit, 1), seed=(self.seed, 0), text_tokens=(self.text_tokens, 100))
        if self.window_hours is not None:
            check_numbers(window_hours=(self.window_hours, 1))
        checked_fractions(self.fractions)
        check_columns(self._static(), {key: getattr(self, key) for key in _NOT_STATIC}, "static")
        variants = checked_variants(self.prompt_variants, {})
        labels, records, concepts = self._files()
        cache = expanded(self.cache)
        with connected(memory_limit=self.memory_limit, threads=self.threads, spill=cache / "spill") as con:
            events = open_events(con, records, self.layout, self._names())
            stays = self._labels(events, labels, records, split)
            readings = read(con, events, concepts, [stay.stay for stay in stays])
        known = [stay for stay, present in zip(stays, readings.present, strict=True) if present]
        kept, readings = self._kept(stays, readings)
        statics = [{name: stay.row.cells[name.lower()] for name in self._static()} for stay in kept]
        texts, dropped = self._texts(readings, statics, concepts.concepts)
        examples = tuple(stay.row.example(text, question) for stay, text in zip(kept, texts, strict=True))
        is_checked = [stay.stay.is_checked for stay in kept]
        table = writing.features(readings, tuple(concepts.concepts), statics, is_checked)
        check_leaks(table, [stay.row for stay in kept], "task.static and of the concepts")
        settings = self._settings(question, concepts)
        files = dict(events.files) | {f"labels/{name}": file for file, name in labels}
        files |= {"sta.parquet": records / "sta.parquet"} if self.layout == "yaib" else {}
        return TaskData(
            name=NAME,
            kind="binary",
            examples=examples,
            open_data=self.open_data,
            fingerprint=fingerprint(examples, settings),
            provenance={
                "source": {name: file_hash(file, cache) for name, file in files.items()},
                "counts": dict(readings.counts),
                "sections_cut": dropped,
                "settings": settings,
            },
            cohort=_cohort({"labels": stays, "with records": known, "kept": kept}),
            prompt_variants=variants,
            features=table,
            severity=of_features(table, {name: concept.unit for name, concept in concepts.concepts.items()}),
            groups=_groups(statics, is_checked),
            times=_times(kept) if events.dated else (),
        )

    def _files(self) -> tuple[list[tuple[Path, str]], Path, ConceptFile]:
        """The files of labels, the records, and the concepts."""
        root = located(NAME, self.path, _SOURCE)
        if self.layout == "yaib":
            if self.records not in (None, self.path):
                raise UserError("task.records: YAIB's export is one folder, named as task.path. Leave it out.")
            concepts = expanded(self.concepts) if self.concepts is not None else Path(str(YAIB))
            return [(yaib_file(root, "outc.parquet"), "outc.parquet")], root, concept_file(concepts)
        for key in ("records", "concepts"):
            if getattr(self, key) is None:
                words = {"records": "the events of the stays", "concepts": "the csv file that says what codes mean"}[
                    key
                ]
                raise UserError(f"task.{key} is missing: it names {words}. See docs/own_data.md.")
        return label_files(root), expanded(str(self.records)), concept_file(expanded(str(self.concepts)))

    def _names(self) -> Names:
        known = asdict(Names())
        if unknown := sorted(set(self.record_columns) - set(known)):
            raise UserError(f"task.record_columns has no {', '.join(unknown)}: it takes {', '.join(known)}.")
        return Names(**{name: column for name, column in self.record_columns.items() if column is not None})

    def _static(self) -> tuple[str, ...]:
        if self.static is not None:
            return tuple(self.static)
        return _YAIB_STATIC if self.layout == "yaib" else ()

    def _labels(
        self, events: Events, files: list[tuple[Path, str]], records: Path, split: str | None
    ) -> list[LabelledStay]:
        named = Named(
            self.label_column, self.patient_column, self.time_column, self.discharge_column, self.split_column,
            () if self.layout == "yaib" else self._static(),
        )  # fmt: skip
        splits = events.splits if split is None else {}
        reader = StayLabels(
            named, events, self.window_hours, self.labels, self.fractions, self.seed, self._secret, splits
        )
        statics = {}
        if self.layout == "yaib":
            file = yaib_file(records, "sta.parquet")
            statics = dict(cells_by(file, events.id.lower(), self._static()))
        return reader.read(files, statics, split)

    def _kept(self, stays: Sequence[LabelledStay], readings: Readings) -> tuple[list[LabelledStay], Readings]:
        """The stays that have records, at most `limit` of each split, split after split; and their readings."""
        numbers = [number for number, present in enumerate(readings.present) if present]
        secret = self._secret
        order = limited(
            numbers,
            lambda number: (
                stays[number].row.split,
                position("order", self.seed, stays[number].row.uid, secret=secret),
            ),
            dict.fromkeys(ALL_SPLITS, self.limit),
        )
        order.sort(key=lambda number: stays[number].row.order(self.seed, secret))
        courses = tuple(readings.courses[number] for number in order)
        return [stays[number] for number in order], Readings(courses, (True,) * len(order), readings.counts)

    def _texts(
        self, readings: Readings, statics: Sequence[Mapping[str, object]], concepts: Mapping[str, Concept]
    ) -> tuple[list[str], dict[str, int]]:
        """The texts, and how many readings their budgets left out of how many of them."""
        written = [
            writing.text(static, courses, concepts, self.text_tokens)
            for static, courses in zip(statics, readings.courses, strict=True)
        ]
        dropped = [count for _, count in written if count]
        return [text for text, _ in written], {"records": len(dropped), "items": sum(dropped)}

    @property
    def _secret(self) -> bytes:
        return draw_secret(self.cache, open_data=self.open_data)

    def _settings(self, question: str, concepts: ConceptFile) -> dict[str, Any]:
        return {
            "task": NAME, "version": [VERSION, writing.VERSION], "layout": self.layout, "question": question,
            "window_hours": self.window_hours, "concepts": concepts.sha256, "static": list(self._static()),
            "text_tokens": self.text_tokens, "fractions": dict(self.fractions), "seed": self.seed, "limit": self.limit,
            "open_data": self.open_data,
        }  # fmt: skip


def _cohort(steps: Mapping[str, Sequence[LabelledStay]]) -> list[dict[str, Any]]:
    return [
        {"step": step, "stays": len(stays), "patients": len({stay.row.subject for stay in stays}),
         "events": sum(stay.row.label for stay in stays)}
        for step, stays in steps.items()
    ]  # fmt: skip


def _groups(statics: Sequence[Mapping[str, object]], is_checked: Sequence[bool]) -> dict[str, tuple[str, ...]]:
    """Age bands and sex, where the statics have them: the age of every stay that `is_checked`."""
    lower = [{name.lower(): value for name, value in row.items()} for row in statics]
    if not lower or not {"age", "sex", "gender"} & set(lower[0]):
        return {}
    people = []
    for row in lower:
        sex = str(row.get("sex") or row.get("gender") or "")[:1].upper()
        try:
            age = int(float(str(row.get("age"))))
        except ValueError:
            age = -1
        people.append((age, sex or None, None, None))
    made, lacks_age = groups(people), [age < 0 for age, *_ in people]
    made["age"] = tuple(UNKNOWN if lacks else band for band, lacks in zip(made["age"], lacks_age, strict=True))
    if "age" not in lower[0] or any(lacks and checked for lacks, checked in zip(lacks_age, is_checked, strict=True)):
        made.pop("age")
    return {name: made[name] for name in ("age", "sex") if name in made}


def _times(kept: Sequence[LabelledStay]) -> tuple[datetime, ...]:
    return tuple(datetime.fromtimestamp(stay.stay.stop * 3600, UTC).replace(tzinfo=None) for stay in kept)
