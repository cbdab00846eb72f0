"""Files of questions: their rows, whatever their format, and which of them are kept."""

from __future__ import annotations

import csv
import gzip
import heapq
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any, TextIO, TypeVar

from patientdx.core.errors import UserError
from patientdx.tasks.item_columns import ANSWER, KNOWN, QUESTION

PLAIN = (".jsonl", ".json", ".csv", ".tsv")  # text, which may be packed
SUFFIXES = (*PLAIN, ".parquet", ".xlsx", ".gz")
# Words in a file's name, or in its folder's, that say which split it is.
SPLIT_WORDS = {
    "train": "train", "training": "train", "trainingset": "train", "dev": "pilot", "val": "pilot", "valid": "pilot",
    "validation": "pilot", "validationset": "pilot", "pilot": "pilot", "test": "test", "testset": "test",
}  # fmt: skip
_LONGEST_NAME = 40  # letters of a column's name
_PLACE = re.compile(r"(?<=\w) (?=(?:line|row|item) )")
One = TypeVar("One")


def rows(path: Path, name: str, *, header: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of a file with its place in words, its keys in small letters; `name` is what the file is called.

    csv and tsv of multiple choice may do without a header: then the first column is the question and the last one the
    answer's letter; with `header` the first line is always one. An xlsx file has it, and of its sheets the first is
    read. Raises UserError for a file of another kind, and for a line that cannot be read.
    """
    kind = _kind(path)
    if kind not in _READERS:
        raise UserError(f"{name}: questions are read from {', '.join(SUFFIXES)} (of a text file).")
    more = {"header": header} if _READERS[kind] is _table else {}
    try:
        for place, row in _READERS[kind](path, name, **more):
            if not isinstance(row, Mapping):
                raise UserError(f"{place}: a question is a mapping of columns to values, not {type(row).__name__}.")
            yield place, {str(key).strip().lower(): value for key, value in row.items()}
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8: {error.reason} at byte {error.start}. Convert it first.") from None
    except (EOFError, zlib.error) as error:
        raise UserError(f"{name} cannot be unpacked: {error}. It may not have been copied whole.") from None
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror or error}.") from None


def file_of(place: str) -> str:
    """The file's name in a place that `rows` gave."""
    return _PLACE.split(place, maxsplit=1)[0]


def first(found: Iterable[One], place: Callable[[One], tuple[str, float]], most: Mapping[str, int | None]) -> list[One]:
    """Of each split the `most[split]` items that come first in an order, None being all; again as they were found.

    `place`: an item's split and its position in that order. Of a split that `most` does not name none is kept. No more
    are held in memory than are kept.
    """
    kept: dict[str, list[tuple[float, int, One]]] = {split: [] for split in most}
    for number, one in enumerate(found):
        split, position = place(one)
        if split not in kept:
            continue
        own, entry = kept[split], (-position, -number, one)  # the last of those kept is on top
        if most[split] is None or len(own) < most[split]:
            heapq.heappush(own, entry)
        elif own:
            heapq.heappushpop(own, entry)
    numbered = sorted((-number, one) for own in kept.values() for _, number, one in own)
    return [one for _, one in numbered]


def _kind(path: Path) -> str:
    """The suffix that says how a file is read: that under .gz."""
    packed = path.suffix.lower() == ".gz"
    inner = Path(path.stem).suffix.lower() if packed else path.suffix.lower()
    return "" if packed and inner not in PLAIN else inner


def _opened(path: Path, newline: str | None = None) -> TextIO:
    reads = gzip.open if path.suffix.lower() == ".gz" else open
    return reads(path, "rt", encoding="utf-8-sig", newline=newline)


def _jsonl(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    with _opened(path) as file:
        yield from _lines(file, name)


def _lines(file: TextIO, name: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield f"{name} line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{name} line {number} is no JSON: {error.msg}.") from None
            except (ValueError, RecursionError) as error:
                raise UserError(f"{name} line {number} cannot be read: {error}.") from None


def _json(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    with _opened(path) as file:
        text = file.read()
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # a JSON value for each line, as MedMCQA's official train.json and dev.json are
            yield from _lines(io.StringIO(text), name)
            return
        raise UserError(f"{name} line {error.lineno} is no JSON: {error.msg}.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} cannot be read: {error}.") from None
    if isinstance(content, Mapping):
        yield from ((f"{name} item {key}", value) for key, value in content.items())
    elif isinstance(content, list):
        yield from ((f"{name} item {number}", value) for number, value in enumerate(content, 1))
    else:
        raise UserError(f"{name} holds no list of questions and no mapping of ids to questions.")


def _table(path: Path, name: str, *, header: bool) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(2**31 - 1)  # the usual 131072 characters are too few for a long note
    with _opened(path, newline="") as file:
        reader = csv.reader(file, delimiter="\t" if _kind(path) == ".tsv" else ",")
        names: list[str] | None = None
        while True:
            start = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise UserError(f"{name} line {start} cannot be read: {error}.") from None
            if cells is None:
                return
            if not cells:
                continue
            place = f"{name} line {start}"
            if names is None:
                names = [cell.strip().lower() for cell in cells]
                if header or set(names) & {*QUESTION, *ANSWER}:
                    continue
                _check_bare(cells, place)
                names = ["question", *ascii_uppercase[: len(cells) - 2], "answer"]
            if len(cells) != len(names):
                raise UserError(f"{place} has {len(cells)} columns, but the first line has {len(names)}.")
            yield place, dict(zip(names, cells, strict=True))


def _check_bare(cells: Sequence[str], place: str) -> None:
    """UserError unless a first line that names no known column can be a question, its options and its answer."""
    *others, last = (cell.strip() for cell in cells)
    if (len(last) == 1 and last.upper() in ascii_uppercase) or last.isdecimal():
        return
    if last.casefold() in (cell.casefold() for cell in others[1:]):  # the text of an option
        return
    # A column's name is short; what is longer may be the text of a record.
    names = ", ".join(cell if len(cell) <= _LONGEST_NAME else "…" for cell in (*others, last))
    raise UserError(
        f"{place} names no known column: it has {names}. {KNOWN} A file without such a line has the question in its "
        "first column and the answer's letter or number in its last one."
    )


def _parquet(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"{name} is no parquet file: {error}.") from None
    yield from ((f"{name} row {number}", row) for number, row in enumerate(table.to_pylist(), 1))


def _sheet(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        lines = list(book.worksheets[0].iter_rows(values_only=True))
        book.close()
    except (zipfile.BadZipFile, KeyError, IndexError, ValueError, SyntaxError, zlib.error) as error:
        reason = str(error).strip("'\"") or type(error).__name__
        raise UserError(f"{name} cannot be read as an xlsx file: {reason}.") from None
    names = lines[0] if lines else ()
    used = [i for i, cell in enumerate(names) if cell is not None]
    for number, cells in enumerate(lines[1:], 2):
        if any(cell is not None for cell in cells):
            yield f"{name} row {number}", {str(names[i]): cells[i] for i in used if i < len(cells)}


_READERS = {".jsonl": _jsonl, ".json": _json, ".csv": _table, ".tsv": _table, ".parquet": _parquet, ".xlsx": _sheet}
