"""A stay in words. Each template is a function of plain values; its version goes up with every change."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from patientdx.refusal import Refusal
from patientdx.tasks.records import items
from patientdx.tasks.records.window import Record

MOST_READINGS, MOST_NAMES = 20, 8
SEX = {"M": "male", "F": "female"}


@dataclass(frozen=True)
class Template:
    """`write(record, window_hours) -> text`. `every_item`: it wants all items, under MIMIC-IV's labels."""

    name: str
    version: int
    write: Callable[[Record, int], str]
    every_item: bool

    @property
    def id(self) -> str:
        """Name and version, as results state it."""
        return f"{self.name}/{self.version}"

    @property
    def sha256(self) -> str:
        """sha256 (hex) of what the template makes of a fixed invented record, and of the item dictionary."""
        return hashlib.sha256(json.dumps([self.id, self.write(SPECIMEN, 48), items.digest()]).encode()).hexdigest()


def intervals(record: Record, window_hours: int) -> str:
    """One reading a line with its adult reference interval and unit, then drugs, procedures, urine."""
    sex = SEX.get(record.gender or "")
    lines = [f"Age {record.age}, {sex}." if sex else f"Age {record.age}."]
    if record.readings:
        lines.append(f"Readings, mean of the first {window_hours} hours:")
    for name, value in record.readings[:MOST_READINGS]:
        item = items.readings()[name]
        lines.append(f"{name} {value:.{item.decimals}f} ({item.low}-{item.high}) {item.unit}".rstrip())
    if record.drugs:
        lines.append("Drugs: " + _listed((name for name, _ in record.drugs), ", "))
    if record.procedures:
        lines.append("Procedures: " + _listed(record.procedures, ", "))
    if record.urine is not None:
        lines.append(f"Urine output {max(record.urine, 0):.0f} mL")
    if record.diagnoses:
        lines.append("Diagnoses: " + _listed(record.diagnoses, "; "))
    return "\n".join(lines)


def _listed(names: Iterable[str], separator: str) -> str:
    return separator.join(list(names)[:MOST_NAMES])


def paper(record: Record, window_hours: int) -> str:
    """Five blocks in the order of the paper's data, in our own words.

    Person and diagnoses, charted means, drugs with mean amounts, procedures, outputs. Three decimals,
    no units, no times, nothing left out.

    Source: the text encoding of the data set behind PatientDx (arXiv 2504.17360), as far as it is public.
    """
    sex = SEX.get(record.gender or "")
    race, insurance = record.race or "unknown", record.insurance or "unknown"
    person = f"A {sex + ' ' if sex else ''}patient, {record.age} years old, race {race}, insured by {insurance}"
    blocks = [person + (", diagnosed with " + "; ".join(record.diagnoses) if record.diagnoses else "")]
    if record.readings:
        means = "; ".join(f"{value:.3f} for {name}" for name, value in record.readings)
        blocks.append(f"Charted in {window_hours} hours, on average: {means}")
    if record.drugs:
        amounts = (name if mean is None else f"{mean:.3f} of {name}" for name, mean in record.drugs)
        blocks.append("Drugs, mean amount: " + "; ".join(amounts))
    if record.procedures:
        blocks.append("Procedures: " + "; ".join(record.procedures))
    if record.outputs:
        blocks.append("Outputs: " + "; ".join(record.outputs))
    return " ".join(block + "." for block in blocks)


SPECIMEN = Record(
    age=67,
    gender="M",
    race="OTHER",
    insurance="Medicare",
    readings=tuple((name, float(item.maximum) / 3) for name, item in items.readings().items()),
    drugs=(("Norepinephrine", 2.5), ("Propofol", None)),
    procedures=("Invasive ventilation",),
    outputs=("Foley",),
    urine=640.4,
    diagnoses=("Sepsis, unspecified organism", "Heart failure, unspecified"),
)
TEMPLATES = (
    Template("intervals", 1, intervals, every_item=False),
    Template("paper", 1, paper, every_item=True),
)


def template(name: str) -> Template:
    """The template of that name. Raises Refusal with the names there are."""
    found = next((template for template in TEMPLATES if template.name == name), None)
    if found is None:
        raise Refusal(f"task.template={name!r}: there are {', '.join(t.name for t in TEMPLATES)}.")
    return found
