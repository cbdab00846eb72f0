"""Clinical concepts as data: what is read of a stay, from which items, in which unit, what is possible, what matters.

The csv files of this folder are the only place where a concept is defined; each row names its source (mimic-code,
ricu, MIMIC-IV's d_items, or a textbook's table).

* concepts.csv: the readings. `low`-`high` is the adult reference interval (`female_*` where women have another one),
  `minimum`-`maximum` what can be a reading at all, `worse` the direction that harms, `weight` the clinical weight from
  0 to 100: what a budget cuts last. The rows' order is the order of printing.
* sources.csv: the items of a reading; harmonised value = value * scale + offset. An item may have several scales
  (inspired oxygen in percent and as a fraction): a value takes the scale that makes it possible.
* texts.csv: what is charted in words. interventions.csv: drugs and procedures by item or by category of d_items ("-"
  leaves one out); `unit` is that of its rate, `maximum` the highest possible rate. rates.csv: other units of a rate.
* fluids.csv: what counts as fluid in, fluid out and urine, and the largest volume (mL) of one row.
* comorbidities.csv: diagnosis codes of the Charlson index. stepdown_units.csv: care units that are no intensive care.
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

from patientdx.core.errors import UserError
from patientdx.records.concepts import shortened

FILES = (
    "concepts.csv", "sources.csv", "texts.csv", "interventions.csv", "rates.csv", "fluids.csv", "comorbidities.csv",
    "stepdown_units.csv",
)  # fmt: skip
LEFT_OUT = "-"
WORSE = ("low", "high", "both")
_PACKAGE = "patientdx.records.concept_table"


@dataclass(frozen=True)
class Concept:
    """One reading in its unit. `kind` is its heading, `short` its abbreviation, `worse` the direction that harms."""

    name: str
    short: str
    kind: str
    unit: str
    decimals: int
    low: float
    high: float
    female_low: float
    female_high: float
    minimum: float
    maximum: float
    worse: str
    weight: int
    source: str = ""

    def interval(self, gender: str | None = None) -> tuple[float, float]:
        """The reference interval of a patient of that gender (F or M; None: that of men)."""
        return (self.female_low, self.female_high) if gender == "F" else (self.low, self.high)

    def worst(self, minimum: float, maximum: float, gender: str | None = None) -> float:
        """The more harmful of two values; where both directions harm, the one farther out of the interval."""
        if self.worse == "both":
            low, high = self.interval(gender)
            return minimum if low - minimum > maximum - high else maximum
        return minimum if self.worse == "low" else maximum

    def printed(self, value: float) -> str:
        """The value with the concept's decimals."""
        text = f"{value:.{self.decimals}f}"
        return text.removeprefix("-") if not float(text) else text


@dataclass(frozen=True)
class Source:
    """One item of a reading, in icu/chartevents or hosp/labevents: reading = value * scale + offset."""

    name: str
    table: str
    itemid: int
    scale: float
    offset: float


@dataclass(frozen=True)
class Intervention:
    """A drug or procedure: its group, clinical weight, the unit of its rate ("" unknown) and the highest rate."""

    kind: str
    name: str
    group: str
    weight: int
    unit: str = ""
    maximum: float = float("inf")


def rows(file: str) -> list[dict[str, str]]:
    """The rows of one of FILES."""
    return list(csv.DictReader(io.StringIO((resources.files(_PACKAGE) / file).read_text(encoding="utf-8"))))


@cache
def concepts() -> Mapping[str, Concept]:
    """The readings of concepts.csv by name, in the order of printing."""
    return MappingProxyType(read_concepts(rows("concepts.csv"), "concepts.csv"))


def read_concepts(table: Iterable[Mapping[str, str | None]], file: str) -> dict[str, Concept]:
    """Concepts by name from rows with the columns of concepts.csv; only name, unit, low and high have no default.

    `file` is what messages call it. Raises UserError naming file, line and column where a row makes no sense.
    """
    read: dict[str, Concept] = {}
    for line, row in enumerate(table, start=2):
        concept = read_concept(row, f"{file}, line {line}")
        if concept.name in read:
            raise UserError(f"{file}, line {line}: the concept {concept.name!r} occurs before; each has one row.")
        read[concept.name] = concept
    if not read:
        raise UserError(f"{file} has no concept: it needs a row for each, with at least name, unit, low and high.")
    return read


def read_concept(row: Mapping[str, str | None], where: str) -> Concept:
    """One row of such a table; `where` is what messages call it. Raises UserError as `read_concepts`."""
    text = {name: (value or "").strip() for name, value in row.items() if name}
    if not text.get("name"):
        raise UserError(f"{where}: a concept needs a name.")

    def number(column: str, default: float | None = None) -> float:
        value = text.get(column, "")
        if not value and default is not None:
            return default
        try:
            return float(value)
        except ValueError:
            raise UserError(f"{where}, column {column}: {value!r} is no number.") from None

    low, high = number("low"), number("high")
    concept = Concept(
        name=text["name"], short=text.get("short") or text["name"], kind=text.get("kind") or "Readings",
        unit=text.get("unit", ""), decimals=int(number("decimals", 1)), low=low, high=high,
        female_low=number("female_low", low), female_high=number("female_high", high),
        minimum=number("minimum", float("-inf")), maximum=number("maximum", float("inf")),
        worse=text.get("worse") or "both", weight=int(number("weight", 50)), source=text.get("source", ""),
    )  # fmt: skip
    ordered = concept.minimum <= low <= high <= concept.maximum and concept.female_low <= concept.female_high
    if not ordered:
        raise UserError(f"{where}: minimum <= low <= high <= maximum is needed, of {concept.name!r}.")
    if concept.worse not in WORSE:
        raise UserError(f"{where}, column worse: {concept.worse!r} is none of {', '.join(WORSE)}.")
    return concept


@cache
def sources() -> tuple[Source, ...]:
    """The rows of sources.csv, in order: where a reading has several values at one time, the first item's counts."""
    return tuple(
        Source(row["name"], row["table"], int(row["itemid"]), float(row["scale"]), float(row["offset"]))
        for row in rows("sources.csv")
    )


def interventions(kind: str, dictionary: Iterable[tuple[int, str, str]]) -> dict[int, Intervention]:
    """By itemid, from rows (itemid, label, category) of d_items: what is named, what its category takes, nothing else.

    `kind` is drug or procedure. A label without a name in the file is shortened as `concepts.shortened` does.
    """
    rules = [row for row in rows("interventions.csv") if row["kind"] == kind]
    by_category = {row["category"]: row for row in rules if row["category"]}
    by_item = {int(row["itemid"]): row for row in rules if row["itemid"]}
    named: dict[int, Intervention] = {}
    for itemid, label, category in dictionary:
        rule = by_item.get(itemid) or by_category.get(category)
        if rule is None or rule["name"] == LEFT_OUT:
            continue
        name = rule["name"] or shortened(label)
        highest = float(rule["maximum"] or "inf")
        named[itemid] = Intervention(kind, name, rule["group"], int(rule["weight"]), rule["unit"], highest)
    return named


def fluids(direction: str, dictionary: Iterable[tuple[int, str, str]]) -> dict[int, tuple[int, float]]:
    """(sign, largest volume in mL of a row) by itemid. `direction`: in, out or urine; rows of d_items as above."""
    rules = [row for row in rows("fluids.csv") if row["direction"] == direction]
    by_category = {row["category"]: row for row in rules if row["category"]}
    by_item = {int(row["itemid"]): row for row in rules if row["itemid"]}
    chosen = {itemid: by_category[category] for itemid, _, category in dictionary if category in by_category}
    return {
        itemid: (int(rule["sign"]), float(rule["maximum"]))
        for itemid, rule in (chosen | by_item).items()
        if rule["sign"] != "0"
    }


@cache
def digest() -> str:
    """sha256 (hex) of the data files, which change the text and the features as much as code does."""
    files = (resources.files(_PACKAGE) / name for name in FILES)
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
