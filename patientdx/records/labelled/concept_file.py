"""A user's file of concepts: which code means which reading, in which unit, and what is usual."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.core.regular_files import is_regular
from patientdx.core.tables import repeated
from patientdx.records.concept_table import Concept, read_concept

REQUIRED = ("code", "name", "unit", "low", "high")
YAIB = resources.files("patientdx.records.labelled") / "yaib.csv"


@dataclass(frozen=True)
class Code:
    """One code of the records: value of the concept `name` = value * scale + offset. `line` is that of the file."""

    code: str
    name: str
    scale: float
    offset: float
    line: int


@dataclass(frozen=True)
class ConceptFile:
    """The concepts by name, in the order of the file; the codes that are read; name and sha256 (hex) of the file."""

    concepts: Mapping[str, Concept]
    codes: tuple[Code, ...]
    file: str
    sha256: str


def concept_file(path: Path) -> ConceptFile:
    """The concepts of a csv file with a row for each code; its columns beside REQUIRED are those of concepts.csv.

    Several codes may be of one concept: the first row describes it, scale and offset turn other units into
    its own. Raises UserError naming file, line and column where a row makes no sense.
    """
    name = path.name
    is_regular(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = [column.strip().lower() for column in reader.fieldnames or ()]
            _check_header(columns, name)
            reader.fieldnames = columns
            rows = [(reader.line_num, row) for row in reader]
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8: {error.reason} at byte {error.start}. Convert it first.") from None
    except (OSError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    concepts: dict[str, Concept] = {}
    codes: dict[str, Code] = {}
    for line, row in rows:
        code = _code(row, line, f"{name}, line {line}")
        if code.code in codes:
            raise UserError(
                f"{name}, line {line}, column code: {code.code} is in line {codes[code.code].line} already."
            )
        codes[code.code] = code
        _add(concepts, row, f"{name}, line {line}")
    if not concepts:
        raise UserError(f"{name} has no concept: it needs a row for each code, with {', '.join(REQUIRED)}.")
    return ConceptFile(concepts, tuple(codes.values()), name, sha256(path))


def _check_header(columns: list[str], name: str) -> None:
    if absent := [column for column in REQUIRED if column not in columns]:
        raise UserError(
            f"{name}: the first line names no column {', '.join(absent)}. A file of concepts has {', '.join(REQUIRED)} "
            "and, where you like, scale, offset, weight, minimum, maximum, decimals."
        )
    if again := repeated(columns):
        raise UserError(f"{name} names the column {again[0]} more than once: leave one.")


def _code(row: Mapping[str, str | None], line: int, where: str) -> Code:
    code, name = ((row.get(column) or "").strip() for column in ("code", "name"))
    if not code or not name:
        raise UserError(f"{where}, column {'name' if code else 'code'}: it is empty. Each row has a code and a name.")
    numbers = []
    for column, usual in (("scale", 1.0), ("offset", 0.0)):
        text = (row.get(column) or "").strip()
        try:
            numbers.append(float(text) if text else usual)
        except ValueError:
            raise UserError(f"{where}, column {column}: {text!r} is no number.") from None
    if numbers[0] == 0:
        raise UserError(f"{where}, column scale: 0 makes every value the same. Leave it empty for 1.")
    return Code(code, name, numbers[0], numbers[1], line)


def _add(concepts: dict[str, Concept], row: Mapping[str, str | None], where: str) -> None:
    """Add the concept of a row where it is new; UserError where it has another unit than before."""
    name, unit = ((row.get(column) or "").strip() for column in ("name", "unit"))
    known = concepts.get(name)
    if known is None:
        concepts[name] = read_concept(row, where)
    elif unit not in ("", known.unit):
        raise UserError(
            f"{where}, column unit: {name} is in {known.unit} above, and in {unit} here. A concept has one unit; let "
            "scale and offset convert the values of this code, and leave its unit empty."
        )
