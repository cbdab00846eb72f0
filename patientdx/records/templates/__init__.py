"""Texts of stays. Each template is a set of sections made from plain values; its version goes up with every change."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from patientdx.core.errors import UserError
from patientdx.records import concepts
from patientdx.records.templates import compact, intervals, narrative, paper
from patientdx.records.templates.sections import Section, Written, checked, fitted, left_out
from patientdx.records.window import Course, Record, Times

__all__ = ["SPECIMEN", "TEMPLATES", "Template", "Written", "left_out", "template"]


@dataclass(frozen=True)
class Template:
    """How a record becomes text.

    `parts` makes each section, `join` the text of those that are not empty. `every_item`: it needs all items, under
    MIMIC-IV's labels. `courses`: it needs times and courses (see window.stream). `chosen`: sections in order, with
    budgets; None takes all of `parts` without a budget.
    """

    name: str
    version: int
    parts: Mapping[str, Callable[[Record, int], Section]]
    join: Callable[[Sequence[tuple[str, str]]], str]
    every_item: bool = False
    courses: bool = False
    chosen: Mapping[str, int | None] | None = None

    @property
    def id(self) -> str:
        """Name and version, as results state it."""
        return f"{self.name}/{self.version}"

    @property
    def sections(self) -> dict[str, int | None]:
        """Budget of each section that is written, in order; None: as many items as the template prints by itself."""
        return dict.fromkeys(self.parts) if self.chosen is None else dict(self.chosen)

    @property
    def sha256(self) -> str:
        """sha256 (hex) of the sections, of their text for a fixed made-up record, and of the data files."""
        parts = [self.id, list(self.sections.items()), self.write(SPECIMEN, 48), concepts.digest()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def write(self, record: Record, window_hours: int) -> str:
        """The text of a record whose window has so many hours."""
        return self.written(record, window_hours).text

    def written(self, record: Record, window_hours: int) -> Written:
        """The text, and how many items of each section were left out: those past its budget or the template's limit.

        Raises UserError when the template needs courses and the record has none.
        """
        if self.courses and len(record.courses) != len(record.readings):
            raise UserError(
                f"Template {self.id} tells the course of each reading, and the record has none: "
                "make the records with courses=True."
            )
        texts, dropped = [], {}
        for name, budget in self.sections.items():
            text, missing = fitted(self.parts[name](record, window_hours), budget)
            if text:
                texts.append((name, text))
            if missing:
                dropped[name] = missing
        return Written(self.join(texts), dropped)


def _specimen() -> Record:
    """A made-up record with every reading once: rising, falling, steady or measured once in turn."""
    readings, courses = [], []
    for number, (name, item) in enumerate(concepts.readings().items()):
        mean, step = (
            float(item.maximum) / 3,
            (float(item.maximum) / 12, -float(item.maximum) / 12, 0.0, 0.0)[number % 4],
        )
        readings.append((name, mean))
        count = 1 if number % 4 == 3 else 5
        spread = 0.0 if count == 1 else float(item.maximum) / 10
        hours = (1.5, 1.5 if count == 1 else 46.0)
        courses.append(Course(mean - step, mean + step, mean - spread, mean + spread, count, *hours))
    return Record(
        age=67,
        gender="M",
        race="OTHER",
        insurance="Medicare",
        readings=tuple(readings),
        drugs=(("Norepinephrine", 2.5), ("Propofol", None)),
        procedures=("Invasive ventilation",),
        outputs=("Foley",),
        urine=640.4,
        diagnoses=("Sepsis, unspecified organism", "Heart failure, unspecified"),
        courses=tuple(courses),
        drug_times=(Times(12, 2.6, 44.2), Times(1, 3.1, 3.1)),
        procedure_times=(Times(1, 0.5, 0.5),),
    )


SPECIMEN = _specimen()
SECTIONS = ("person", "diagnoses", "readings", "drugs", "procedures", "outputs")


def _template(
    module: ModuleType, order: Sequence[str] = SECTIONS, *, every_item: bool = False, courses: bool = False
) -> Template:
    """The template whose sections are functions of those names in a module."""
    parts = {name: getattr(module, name) for name in order}
    return Template(module.__name__.rpartition(".")[2], 1, parts, module.join, every_item, courses)


TEMPLATES = (
    _template(intervals, ("person", "readings", "drugs", "procedures", "outputs", "diagnoses")),
    _template(paper, every_item=True),
    _template(narrative, courses=True),
    _template(compact),
)


def template(name: str, sections: Mapping[str, int | None] | None = None) -> Template:
    """The template of that name, with the given sections in the given order, each with a budget of tokens or None.

    Without `sections` it has all sections with the template's own limits (intervals: 20 readings, 8 names; narrative
    and compact: 20 diagnoses). A budget replaces such a limit. Raises UserError for an unknown name or bad sections.
    """
    named = next((template for template in TEMPLATES if template.name == name), None)
    if named is None:
        raise UserError(f"task.template={name!r}: there are {', '.join(t.name for t in TEMPLATES)}.")
    return named if sections is None else dataclasses.replace(named, chosen=checked(sections))
