"""The item dictionary: which chart items are read, in which unit, and what is normal and what is possible.

Reference intervals in items.csv are the customary adult ones of a textbook or a hospital laboratory, in the
unit printed; for the coma scale (14-15) and inspired oxygen (21-40) they are the bedside limits of "not
impaired" and "little support". A value outside minimum..maximum cannot be a reading and is dropped. The rows'
order is the order of printing. Items that share a name are averaged together; items that differ in `part` are
added. `kind` is the heading a reading stands under.

labels.csv says which drugs and procedures are named and how, cleaning.csv how a dictionary's labels and titles are
shortened (its rows are applied in turn), abbreviations.csv what the compact template calls things.
"""

import csv
import hashlib
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

FILES = ("items.csv", "labels.csv", "cleaning.csv", "abbreviations.csv")
_CATEGORY, _LEFT_OUT = "category", "-"


@dataclass(frozen=True)
class Item:
    """One itemid: harmonised value = value * scale + offset, in `unit`."""

    itemid: int
    name: str
    unit: str
    low: str
    high: str
    minimum: float
    maximum: float
    decimals: int
    part: int
    parts: int
    scale: float
    offset: float
    kind: str


def _rows(file: str) -> list[dict[str, str]]:
    text = (resources.files("patientdx.records") / file).read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


@cache
def items() -> tuple[Item, ...]:
    """All rows of items.csv, in the order of printing."""
    types: dict[str, Callable[[str], Any]] = dict.fromkeys(("minimum", "maximum", "scale", "offset"), float)
    types |= dict.fromkeys(("itemid", "decimals", "part", "parts"), int)
    return tuple(Item(**{name: types.get(name, str)(text) for name, text in row.items()}) for row in _rows("items.csv"))


@cache
def readings() -> dict[str, Item]:
    """The first item of each name, in order: its interval, unit and decimals stand for all."""
    first: dict[str, Item] = {}
    for item in items():
        first.setdefault(item.name, item)
    return first


def urine() -> dict[int, int]:
    """Itemids of urine output, with 1, or -1 for what was instilled."""
    return {int(row["itemid"]): int(row["name"]) for row in _rows("labels.csv") if row["kind"] == "urine"}


def short_names(kind: str, dictionary: Iterable[tuple[int, str, str]]) -> dict[int, str]:
    """Short names of the drugs or procedures to print, from rows (itemid, label, category) of d_items.

    labels.csv names single items, takes whole categories, and leaves out the items marked with a dash.
    """
    rules = [row for row in _rows("labels.csv") if row["kind"] == kind]
    categories = {row[_CATEGORY] for row in rules if row[_CATEGORY]}
    single = {int(row["itemid"]): row["name"] for row in rules if row["itemid"]}
    names = {
        itemid: single.get(itemid) or shortened(label)
        for itemid, label, category in dictionary
        if itemid in single or category in categories
    }
    return {itemid: name for itemid, name in names.items() if name != _LEFT_OUT}


def shortened(label: str) -> str:
    """A dictionary label without brand names in parentheses and without what follows a dash."""
    return cleaned("label", label)


def cleaned(kind: str, name: str) -> str:
    """`name` after the rows of cleaning.csv of that kind (label or title); as it was if nothing is left of it."""
    short = name
    for pattern, replacement in _patterns(kind):
        short = pattern.sub(replacement, short)
    return short or name


@cache
def _patterns(kind: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    rows = (row for row in _rows("cleaning.csv") if row["kind"] == kind)
    return tuple((re.compile(row["pattern"]), row["replacement"]) for row in rows)


@cache
def abbreviations() -> dict[str, str]:
    """What abbreviations.csv calls a reading, a drug or a procedure."""
    return {row["name"]: row["short"] for row in _rows("abbreviations.csv")}


@cache
def digest() -> str:
    """sha256 (hex) of the data files, which change the text as much as a template does."""
    files = (resources.files("patientdx.records") / name for name in FILES)
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
