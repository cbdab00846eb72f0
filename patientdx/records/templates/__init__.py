"""Texts of stays. Each template is a set of sections made from plain values; its version goes up with every change.

A name alone (intervals) is the newest version, intervals/1 that version: earlier ones stay, with the records that they
were made of, so that their results can be made again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from patientdx.core.errors import UserError
from patientdx.records import concept_table, concepts
from patientdx.records.record import Background, Course, Infusion, Period, Record, Times, Word
from patientdx.records.templates import (
    brief_2,
    compact,
    compact_2,
    intervals,
    intervals_2,
    narrative,
    narrative_2,
    paper,
)
from patientdx.records.templates.sections import Section, Written, checked, fitted, left_out

__all__ = ["SPECIMEN", "TEMPLATES", "Template", "Written", "left_out", "template"]


@dataclass(frozen=True)
class Template:
    """How a record becomes text.

    `parts` makes each section, `join` the text of those that are not empty. `every_item`: it needs all items, under
    MIMIC-IV's labels. `courses`: it needs times and courses (see window.stream). `revision`: that of the records which
    it prints, and of the features beside it; with `every_item` the records are those of window.stream(pipeline=True)
    from revision 2 on. `chosen`: sections in order, with budgets; None takes all of `parts` without a budget.
    """

    name: str
    version: int
    parts: Mapping[str, Callable[[Record, int], Section]]
    join: Callable[[Sequence[tuple[str, str]]], str]
    every_item: bool = False
    courses: bool = False
    revision: int = 1
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
        specimen = SPECIMEN if self.revision == 1 else SPECIMEN_2
        parts = [self.id, list(self.sections.items()), self.write(specimen, 48), concepts.digest()]
        parts += [] if self.revision == 1 else [concept_table.digest()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def write(self, record: Record, window_hours: int) -> str:
        """The text of a record whose window has so many hours."""
        return self.written(record, window_hours).text

    def written(self, record: Record, window_hours: int) -> Written:
        """The text, and how many items of each section were left out: those past its budget or the template's limit.

        Raises UserError when the template needs courses or doses and the record has none.
        """
        if self.courses and len(record.courses) != len(record.readings):
            raise UserError(
                f"Template {self.id} tells the course of each reading, and the record has none: "
                "make the records with courses=True."
            )
        if self.revision > 1 and not self.every_item and len(record.infusions) != len(record.drugs):
            raise UserError(
                f"Template {self.id} prints doses, and the record has none: make the records with revision=2."
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


def _specimen_2() -> Record:
    """The same of revision 2: drugs with and without a rate, one running at admission, words, fluids, a background."""
    readings, courses = [], []
    for number, (name, concept) in enumerate(concept_table.concepts().items()):
        low, high = concept.interval("F")
        step = (high - low, low - high, 0.0, 0.0)[number % 4]
        count = 1 if number % 4 == 3 else 5
        spread = 0.0 if count == 1 else 1.5 * (high - low)
        readings.append((name, high))
        hours = (1.5, 1.5 if count == 1 else 46.0)
        courses.append(Course(high - step, high + step, high - spread, high + spread, count, *hours))
    return dataclasses.replace(
        SPECIMEN, age=90, gender="F", readings=tuple(readings), courses=tuple(courses),
        infusions=(
            Infusion("vasopressor", 100, "mcg/kg/min", 0.05, 0.2, 0.31, True, False, 30.4),
            Infusion("sedative", 90, "mcg/kg/min", None, None, None, False, True, 0.2),
        ),
        periods=(Period("ventilation", 100, True, True, 48.0),),
        words=(Word("Oxygen device", "Endotracheal tube", 40.2),),
        earlier=(("Lactate", 2.25), ("Creatinine", 1.24)), fluid_in=2500.0, fluid_out=1200.0,
        background=Background("EW EMER.", "EMERGENCY ROOM", "Coronary Care Unit (CCU)", 12.4, False, ("diabetes",)),
    )  # fmt: skip


SPECIMEN, SECTIONS = _specimen(), ("person", "diagnoses", "readings", "drugs", "procedures", "outputs")
SPECIMEN_2 = _specimen_2()
SECTIONS_2 = (
    "person", "admission", "comorbidities", "readings", "status", "drugs", "procedures", "outputs", "earlier",
    "diagnoses",
)  # fmt: skip


BRIEF = ("person", "readings", "drugs", "procedures", "outputs", "diagnoses")


def _template(
    module: ModuleType,
    order: Sequence[str] = SECTIONS,
    *,
    version: int = 1,
    every_item: bool = False,
    courses: bool = False,
) -> Template:
    """The template whose sections are functions of those names in a module."""
    parts = {name: getattr(module, name) for name in order}
    name = module.__name__.rpartition(".")[2].partition("_")[0]
    return Template(name, version, parts, module.join, every_item, courses, revision=version)


TEMPLATES = (
    _template(intervals, BRIEF),
    _template(paper, every_item=True),
    _template(narrative, courses=True),
    _template(compact),
    _template(intervals_2, SECTIONS_2, version=2, courses=True),
    _template(paper, version=2, every_item=True),
    _template(narrative_2, SECTIONS_2, version=2, courses=True),
    _template(compact_2, SECTIONS_2, version=2, courses=True),
    _template(brief_2, BRIEF, version=2, courses=True),
)


def template(name: str, sections: Mapping[str, int | None] | None = None) -> Template:
    """The template of that name or id, with the given sections in the given order and their budgets of tokens.

    Without `sections` it has all sections with the template's own limits (intervals/1: 20 readings, 8 names;
    narrative/1 and compact/1: 20 diagnoses; revision 2: the MOST_ numbers of its module). A budget replaces such a
    limit. Raises UserError for an unknown name or bad sections.
    """
    named = next((template for template in reversed(TEMPLATES) if name in (template.name, template.id)), None)
    if named is None:
        raise UserError(f"task.template={name!r}: there are {', '.join(t.id for t in TEMPLATES)}.")
    return named if sections is None else dataclasses.replace(named, chosen=checked(sections, known=named.parts))
