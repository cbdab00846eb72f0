"""Files of questions: their rows, whatever their format, which of them are kept, and the columns of multiple choice."""

from __future__ import annotations

import csv
import gzip
import heapq
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, TextIO, TypeVar

from patientdx.refusal import Refusal

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".xlsx", ".gz")
# Words in a file's name, or in its folder's, that say which split it is.
SPLIT_WORDS = {
    "train": "train", "training": "train", "trainingset": "train", "dev": "pilot", "val": "pilot", "valid": "pilot",
    "validation": "pilot", "validationset": "pilot", "pilot": "pilot", "test": "test", "testset": "test",
}  # fmt: skip
QUESTION = ("question", "sent1")
CONTEXT = ("context", "contexts", "abstract")
OPTIONS = ("options", "choices", "endings")
ANSWER = ("answer_idx", "answer_index", "answerkey", "cop", "label", "gold", "correct", "final_decision", "answer")
# Columns of one option each, first to last.
SPREAD = (
    ("opa", "opb", "opc", "opd", "ope"),
    ("op1", "op2", "op3", "op4", "op5"),
    ("ending0", "ending1", "ending2", "ending3", "ending4"),
    ("option_a", "option_b", "option_c", "option_d", "option_e"),
    ("a", "b", "c", "d", "e"),
)
_COUNTED = "cop"  # counted from 1 by its authors and from 0 on the hub
One = TypeVar("One")


@dataclass(frozen=True)
class Item:
    """One question with its options, of which number `right` is the answer; `place` is its file and line."""

    place: str
    split: str
    group: str
    question: str
    context: str
    options: tuple[str, ...]
    right: int


def rows(path: Path, name: str, *, header: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of a file with its place in words, its keys in small letters; `name` is what the file is called.

    csv and tsv of multiple choice may do without a header: then the first column is the question and the last one the
    answer's letter; with `header` the first line is always one. An xlsx file has it, and of its sheets the first is
    read. Raises Refusal for a file of another kind, and for a line that cannot be read.
    """
    kind = _kind(path)
    if kind not in _READERS:
        raise Refusal(f"{name}: questions are read from {', '.join(SUFFIXES)} (of a text file).")
    more = {"header": header} if _READERS[kind] is _table else {}
    try:
        for place, row in _READERS[kind](path, name, **more):
            if not isinstance(row, Mapping):
                raise Refusal(f"{place}: a question is a mapping of columns to values, not {type(row).__name__}.")
            yield place, {str(key).strip().lower(): value for key, value in row.items()}
    except UnicodeDecodeError as error:
        raise Refusal(f"{name} is not UTF-8: {error.reason} at byte {error.start}. Convert it first.") from None
    except (EOFError, zlib.error) as error:
        raise Refusal(f"{name} cannot be unpacked: {error}. It may not have been copied whole.") from None
    except OSError as error:
        raise Refusal(f"{name} cannot be read: {error.strerror or error}.") from None


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
    return "" if packed and inner in (".parquet", ".xlsx", ".gz") else inner


def _opened(path: Path, newline: str | None = None) -> TextIO:
    reads = gzip.open if path.suffix.lower() == ".gz" else open
    return reads(path, "rt", encoding="utf-8-sig", newline=newline)


def _jsonl(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield f"{name} line {number}", json.loads(line)
                except json.JSONDecodeError as error:
                    raise Refusal(f"{name} line {number} is no JSON: {error.msg}.") from None


def _json(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    try:
        with _opened(path) as file:
            content = json.load(file)
    except json.JSONDecodeError as error:
        raise Refusal(f"{name} line {error.lineno} is no JSON: {error.msg}.") from None
    if isinstance(content, Mapping):
        yield from ((f"{name} item {key}", value) for key, value in content.items())
    elif isinstance(content, list):
        yield from ((f"{name} item {number}", value) for number, value in enumerate(content, 1))
    else:
        raise Refusal(f"{name} holds no list of questions and no mapping of ids to questions.")


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
                raise Refusal(f"{name} line {start} cannot be read: {error}.") from None
            if cells is None:
                return
            place = f"{name} line {start}"
            if names is None:
                names = [cell.strip().lower() for cell in cells]
                if header or set(names) & {*QUESTION, *ANSWER}:
                    continue
                names = ["question", *ascii_uppercase[: len(cells) - 2], "answer"]
            if not cells:
                continue
            if len(cells) != len(names):
                raise Refusal(f"{place} has {len(cells)} columns, but the first line has {len(names)}.")
            yield place, dict(zip(names, cells, strict=True))


def _parquet(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise Refusal(f"{name} is no parquet file: {error}.") from None
    yield from ((f"{name} row {number}", row) for number, row in enumerate(table.to_pylist(), 1))


def _sheet(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        lines = list(book.worksheets[0].iter_rows(values_only=True))
        book.close()
    except (zipfile.BadZipFile, KeyError, IndexError, ValueError, SyntaxError, zlib.error) as error:
        reason = str(error).strip("'\"") or type(error).__name__
        raise Refusal(f"{name} cannot be read as an xlsx file: {reason}.") from None
    names = lines[0] if lines else ()
    used = [i for i, cell in enumerate(names) if cell is not None]
    for number, cells in enumerate(lines[1:], 2):
        if any(cell is not None for cell in cells):
            yield f"{name} row {number}", {str(names[i]): cells[i] for i in used if i < len(cells)}


_READERS = {".jsonl": _jsonl, ".json": _json, ".csv": _table, ".tsv": _table, ".parquet": _parquet, ".xlsx": _sheet}


def items(
    found: Iterable[tuple[str, dict[str, Any]]],
    *,
    split: str,
    group: str,
    options: Sequence[str] | None = None,
    answers_from: int | None = None,
) -> list[Item]:
    """The rows as items. Where a row has no options of its own, they are `options`.

    answers_from: the number of the first option where answers are numbers; None: 0, but for a column `cop`, which is
    counted from 1 or from 0: the column itself must show which. Raises Refusal for a row that lacks a column, whose
    question or one of whose options is empty, or whose answer is none of its options.
    """
    read = []
    for place, row in found:
        asked, context = _first(row, QUESTION), _first(row, CONTEXT)
        texts = _options(row, place, options)
        key = next((name for name in ANSWER if _given(row.get(name))), None)
        lacking = [what for what, there in (("question", asked), ("options", texts), ("answer", key)) if not there]
        if lacking:
            raise Refusal(
                f"{place} has no {' and no '.join(lacking)}. Its columns are {', '.join(row) or 'none'}; known are "
                f"{', '.join(QUESTION)} for the question, {', '.join(OPTIONS)}, {', '.join(s[0] for s in SPREAD)} … "
                f"for the options, {', '.join(ANSWER)} for the answer."
            )
        for letter, text in zip(ascii_uppercase, texts, strict=False):
            if not text.strip():
                raise Refusal(f"{place}: option {letter} is empty.")
        if not 2 <= len(texts) <= len(ascii_uppercase):
            raise Refusal(f"{place} has {len(texts)} options; a question has 2 to {len(ascii_uppercase)}.")
        if isinstance(context, Sequence) and not isinstance(context, str):
            context = "\n".join(map(str, context))
        own = str(row["subject"]) if isinstance(row.get("subject"), str) and row["subject"] else group
        read.append((place, own, str(asked), str(context or ""), texts, key, row[key], _labels(row)))
    starts = _counted_from(read) if answers_from is None else {}
    return [
        Item(place, split, own, asked, context, texts, _right(answer, key, texts, labels, starts, answers_from, place))
        for place, own, asked, context, texts, key, answer, labels in read
    ]


def _given(value: Any) -> bool:
    return value is not None and value != "" and value != -1


def _first(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((row[name] for name in names if row.get(name)), None)


def _options(row: Mapping[str, Any], place: str, usual: Sequence[str] | None) -> tuple[str, ...]:
    held = _first(row, OPTIONS)
    if isinstance(held, Mapping):
        held = held["text"] if "text" in held else list(held.values())
    if held is None:
        names = next((names for names in SPREAD if names[0] in row and names[1] in row), ())
        held = [row[name] for name in names if name in row]
        while len(held) > 2 and held[-1] in (None, ""):  # fewer options than the file has columns for
            held.pop()
    if isinstance(held, str):
        raise Refusal(f"{place}: the options are one text. Give a list of texts, or a column for each.")
    return tuple("" if one is None else str(one) for one in held) or tuple(usual or ())


def _labels(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a row calls its own options, where it does: the keys of a mapping."""
    held = _first(row, OPTIONS)
    if not isinstance(held, Mapping):
        return ()
    return tuple(map(str, held.get("label", ()) if "text" in held else held))


def _counted_from(read: Sequence[tuple]) -> dict[str, int]:
    """The number of the first option in a column `cop`."""
    numbers = {int(answer): len(texts) for *_, texts, key, answer, _ in read if key == _COUNTED and _whole(answer)}
    if not numbers:
        return {}
    if 0 in numbers:
        return {_COUNTED: 0}
    if any(number >= count for number, count in numbers.items()):
        return {_COUNTED: 1}
    raise Refusal(
        f"{read[0][0]} and the rest answer by {min(numbers)} to {max(numbers)} in column {_COUNTED}, so the first "
        "option may be 0 or 1. Say which: task.answers_from=1."
    )


def _whole(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().isdigit()
    return isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)


def _right(answer: Any, key: str, texts: Sequence[str], labels, starts, answers_from: int | None, place: str) -> int:
    """The number of the right option, from a label, a letter, a number or the option's own text."""
    said, start = str(answer).strip(), starts.get(key, answers_from or 0)
    same = [i for i, text in enumerate(texts) if text.strip().casefold() == said.casefold()]
    # A column named answer may hold a text that is itself a number.
    counts = _whole(answer) and not (isinstance(answer, str) and key == "answer" and len(same) == 1)
    if said in labels:
        found = labels.index(said)
    elif counts:
        found = int(answer) - start
    elif len(said) == 1 and said.upper() in ascii_uppercase:
        found = ascii_uppercase.index(said.upper())
    else:
        found = same[0] if len(same) == 1 else -1
    if not 0 <= found < len(texts):
        last = ascii_uppercase[len(texts) - 1]
        raise Refusal(f"{place}: the answer is {answer!r}, which is none of its {len(texts)} options (A to {last}).")
    return found
