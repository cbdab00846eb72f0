"""Rows of data files in any known format, and which of them are kept."""

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
from patientdx.core.regular_files import is_regular
from patientdx.core.tables import repeated
from patientdx.tasks.item_columns import ANSWER, KNOWN, QUESTION

PLAIN = (".jsonl", ".json", ".csv", ".tsv")  # text, which may be compressed
SUFFIXES = (*PLAIN, ".parquet", ".xlsx", ".gz")
# Words in the name of a file or of its folder that name its split.
SPLIT_WORDS = {
    "train": "train", "training": "train", "trainingset": "train", "dev": "pilot", "val": "pilot", "valid": "pilot",
    "validation": "pilot", "validationset": "pilot", "pilot": "pilot", "test": "test", "testset": "test",
}  # fmt: skip
_LONGEST_NAME = 40  # characters of a column's name in a message
_LOCATION = re.compile(r"(?<=\w) (?=(?:line|row|item) )")
Value = TypeVar("Value")


def rows(path: Path, name: str, *, header: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of a file as (location in words, row with keys in lower case); `name` is the file's name in messages.

    csv and tsv files of multiple choice may have no header: then the first column is the question and the last one the
    answer's letter; with `header` the first line is always a header. Of an xlsx file the first sheet is read, with a
    header. Raises UserError for a file of another kind, and for a line that cannot be read.
    """
    is_regular(path)
    kind = _kind(path)
    if kind not in _READERS:
        raise UserError(f"{name}: rows are read from {', '.join(SUFFIXES)} (of a text file).")
    more = {"header": header} if _READERS[kind] is _table else {}
    try:
        for location, row in _READERS[kind](path, name, **more):
            if not isinstance(row, Mapping):
                raise UserError(f"{location}: a row is a mapping of columns to values, not {type(row).__name__}.")
            yield location, {str(key).strip().lower(): value for key, value in row.items()}
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8: {error.reason} at byte {error.start}. Convert it first.") from None
    except (EOFError, zlib.error) as error:
        raise UserError(f"{name} cannot be unpacked: {error}. It may not have been copied whole.") from None
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror or error}.") from None


def file_of(location: str) -> str:
    """The file's name in a location that `rows` gave."""
    return _LOCATION.split(location, maxsplit=1)[0]


def limited(
    values: Iterable[Value], order: Callable[[Value], tuple[str, float]], most: Mapping[str, int | None]
) -> list[Value]:
    """The first `most[split]` values of each split (None: all) in an order, returned in the order of `values`.

    order: a value's split and its position in the order. Values of a split that `most` does not name are dropped. No
    more values are held in memory than are kept.
    """
    kept: dict[str, list[tuple[float, int, Value]]] = {split: [] for split in most}
    for number, item in enumerate(values):
        split, position = order(item)
        if split not in kept:
            continue
        heap, entry = kept[split], (-position, -number, item)  # the last value of the kept ones is on top
        limit = most[split]
        if limit is None or len(heap) < limit:
            heapq.heappush(heap, entry)
        elif heap:
            heapq.heappushpop(heap, entry)
    numbered = sorted((-number, item) for heap in kept.values() for _, number, item in heap)
    return [item for _, item in numbered]


def _kind(path: Path) -> str:
    """The suffix that decides how a file is read; of a .gz file the suffix before it."""
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
        if error.msg == "Extra data":  # one JSON value per line, as in MedMCQA's official train.json and dev.json
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
            location = f"{name} line {start}"
            if names is None:
                names = [cell.strip().lower() for cell in cells]
                if header or set(names) & {*QUESTION, *ANSWER}:
                    continue
                _check_bare(cells, location)
                names = ["question", *ascii_uppercase[: len(cells) - 2], "answer"]
            if again := repeated(names):
                raise UserError(f"{name} names the column {again[0]} more than once in its first line: leave one.")
            if len(cells) != len(names):
                raise UserError(f"{location} has {len(cells)} columns, but the first line has {len(names)}.")
            yield location, dict(zip(names, cells, strict=True))


def _check_bare(cells: Sequence[str], location: str) -> None:
    """UserError unless a first line that names no known column can be a question, its options and its answer."""
    *others, last = (cell.strip() for cell in cells)
    if (len(last) == 1 and last.upper() in ascii_uppercase) or last.isdecimal():
        return
    if last.casefold() in (cell.casefold() for cell in others[1:]):  # the text of an option
        return
    # A column's name is short; what is longer may be the text of a record.
    names = ", ".join(cell if len(cell) <= _LONGEST_NAME else "…" for cell in (*others, last))
    raise UserError(
        f"{location} names no known column: it has {names}. {KNOWN} A file without such a line has the question in its "
        "first column and the answer's letter or number in its last one."
    )


def _parquet(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        again = repeated(pq.read_schema(path).names)
        table = None if again else pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"{name} is no parquet file: {error}.") from None
    if table is None:
        raise UserError(f"{name} has the column {again[0]} more than once: leave one.")
    yield from ((f"{name} row {number}", row) for number, row in enumerate(table.to_pylist(), 1))


def _spreadsheet(path: Path, name: str) -> Iterator[tuple[str, Any]]:
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
    if again := repeated([str(names[i]).strip().lower() for i in used]):
        raise UserError(f"{name} names the column {again[0]} more than once in its first row: leave one.")
    for number, cells in enumerate(lines[1:], 2):
        if any(cell is not None for cell in cells):
            yield f"{name} row {number}", {str(names[i]): cells[i] for i in used if i < len(cells)}


_READERS = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _table,
    ".tsv": _table,
    ".parquet": _parquet,
    ".xlsx": _spreadsheet,
}
