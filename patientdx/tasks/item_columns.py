"""Rows of multiple-choice files as items: which columns hold the question, its options and the right answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from patientdx.core.errors import UserError

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
# Keys of an option that is a mapping: its label and its text.
NAMED = (("key", "value"), ("label", "text"))
_COUNTED = "cop"  # counted from 1 by its authors and from 0 on the hub
KNOWN = (
    f"Known are {', '.join(QUESTION)} for the question, {', '.join(OPTIONS)}, {', '.join(s[0] for s in SPREAD)} … "
    f"for the options, {', '.join(ANSWER)} for the answer."
)


@dataclass(frozen=True)
class Item:
    """One question with its options.

    `right`: index of the right option. `location`: its file and line. `same`: location of the first question of its
    group that is equal to it.
    """

    location: str
    split: str
    group: str
    question: str
    context: str
    options: tuple[str, ...]
    right: int
    same: str = ""


def items(
    rows: Iterable[tuple[str, dict[str, Any]]],
    *,
    split: str,
    group: str,
    options: Sequence[str] | None = None,
    answers_from: int | None = None,
) -> list[Item]:
    """The rows as items. `options` are those of a row that has none.

    answers_from: the number of the first option where answers are numbers; None: 0, except for a column `cop`, which is
    counted from 1 or from 0: the column itself must show which. Raises UserError for a row that lacks a column, whose
    question or one of whose options is empty, or whose answer is none of its options.
    """
    read = []
    for number, (with_key, row) in enumerate(rows, 1):
        location = without_key(with_key, number)
        question, context = _plain(_first(row, QUESTION), location, "the question"), _context(row, location)
        texts, labels = _options(row, location, options)
        key = next((name for name in ANSWER if _filled(row.get(name))), None)
        lacking = [what for what, there in (("question", question), ("options", texts), ("answer", key)) if not there]
        if key is None or lacking:
            raise UserError(
                f"{location} has no {' and no '.join(lacking)}. Its columns are {', '.join(row) or 'none'}. {KNOWN}"
            )
        for letter, text in zip(ascii_uppercase, texts, strict=False):
            if not text.strip():
                raise UserError(f"{location}: option {letter} is empty.")
        if not 2 <= len(texts) <= len(ascii_uppercase):
            raise UserError(f"{location} has {len(texts)} options; a question has 2 to {len(ascii_uppercase)}.")
        subject = str(row["subject"]) if isinstance(row.get("subject"), str) and row["subject"] else group
        read.append((with_key, location, subject, question, context, texts, key, row[key], labels))
    starts = _counted_from(read) if answers_from is None else {}
    return [
        Item(
            with_key,
            split,
            subject,
            question,
            context,
            texts,
            _right(answer, key, texts, labels, starts, answers_from, location),
        )
        for with_key, location, subject, question, context, texts, key, answer, labels in read
    ]


def without_key(location: str, number: int) -> str:
    """The location for a message, with the row's number in its file in place of a key, which may be a patient's id."""
    return re.sub(r"(?<=\w) item .*", f" item {number}", location, flags=re.DOTALL)


def _filled(value: Any) -> bool:
    return value is not None and value == value and value != "" and value != -1


def _first(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((row[name] for name in names if row.get(name)), None)


def _context(row: Mapping[str, Any], location: str) -> str:
    """The text that the question is about, "" if there is none; a line for each of its parts."""
    held = _first(row, CONTEXT)
    if isinstance(held, Mapping) and "contexts" in held:  # PubMedQA on the hub
        held = held["contexts"]
    parts = held if isinstance(held, list | tuple) else [held]
    return "\n".join(_plain(part, location, "the context") for part in parts)


def _options(
    row: Mapping[str, Any], location: str, usual: Sequence[str] | None
) -> tuple[tuple[str, ...], Sequence[str]]:
    """The options' texts, and their labels where the row has some."""
    held, labels = _first(row, OPTIONS), ()
    if isinstance(held, Mapping):
        if "text" in held:
            labels, held = held.get("label") or (), held["text"]
        else:
            labels, held = list(held), _trimmed(held.values(), (None,))
    elif isinstance(held, list | tuple) and any(isinstance(option, Mapping) for option in held):
        labels, held = zip(*(_named(option, location, number) for number, option in enumerate(held, 1)), strict=True)
    if held is None:
        names = next((names for names in SPREAD if names[0] in row and names[1] in row), ())
        labels, held = (), _trimmed((row[name] for name in names if name in row), (None, ""))
    if not isinstance(held, list | tuple) or not isinstance(labels, list | tuple):
        wrong = labels if isinstance(held, list | tuple) else held
        what = "one text" if isinstance(wrong, str) else f"of type {type(wrong).__name__}"
        raise UserError(f"{location}: the options are {what}. Give a list of texts, or a column for each.")
    texts = [_plain(option, location, f"option {number}") for number, option in enumerate(held, 1)]
    return tuple(texts) or tuple(usual or ()), [_plain(option, location, "an option's label") for option in labels]


def _trimmed(values: Iterable[Any], empty: Sequence[Any]) -> list[Any]:
    """Without empty values at the end: a question may have fewer options than the file has columns for them."""
    kept = list(values)
    while len(kept) > 2 and kept[-1] in empty:
        kept.pop()
    return kept


def _named(option: Any, location: str, number: int) -> tuple[Any, Any]:
    """Label and text of an option that is a mapping."""
    for label, text in NAMED:
        if isinstance(option, Mapping) and label in option and text in option:
            return option[label], option[text]
    has = f"has {', '.join(map(str, option)) or 'nothing'}" if isinstance(option, Mapping) else "is none"
    raise UserError(
        f"{location}: options that are mappings have {' or '.join(map(' and '.join, NAMED))}, but option {number} "
        f"{has}."
    )


def _plain(value: Any, location: str, what: str) -> str:
    """A text or a number as text, "" for a missing value. UserError for other types."""
    if value is None or value != value:  # NaN marks a missing value of a table
        return ""
    if not isinstance(value, str | int | float):
        raise UserError(f"{location}: {what} is of type {type(value).__name__}. A text or a number is needed.")
    return str(value)


def _counted_from(read: Sequence[tuple]) -> dict[str, int]:
    """The number of the first option in a column `cop`."""
    numbers = {int(answer): len(texts) for *_, texts, key, answer, _ in read if key == _COUNTED and _is_whole(answer)}
    if not numbers:
        return {}
    if 0 in numbers:
        return {_COUNTED: 0}
    if any(number >= count for number, count in numbers.items()):
        return {_COUNTED: 1}
    raise UserError(
        f"{read[0][1]} and the rest answer by {min(numbers)} to {max(numbers)} in column {_COUNTED}, so the first "
        "option may be 0 or 1. Say which: task.answers_from=1."
    )


def _is_whole(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().isdecimal() and len(value) < 10  # int() refuses texts of more than some thousand digits
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


def _right(
    answer: Any,
    key: str,
    texts: Sequence[str],
    labels: Sequence[str],
    starts: Mapping[str, int],
    answers_from: int | None,
    location: str,
) -> int:
    """The index of the right option, from a label, a letter, a number or the option's own text."""
    written, start = str(answer).strip(), starts.get(key, answers_from or 0)
    same = [i for i, text in enumerate(texts) if text.strip().casefold() == written.casefold()]
    # A column named answer may hold a text that is itself a number.
    counts = _is_whole(answer) and not (isinstance(answer, str) and key == "answer" and len(same) == 1)
    if written in labels:
        right = labels.index(written)
    elif counts:
        right = int(answer) - start
    elif len(written) == 1 and written.upper() in ascii_uppercase:
        right = ascii_uppercase.index(written.upper())
    else:
        right = same[0] if len(same) == 1 else -1
    if not 0 <= right < len(texts):
        last = ascii_uppercase[len(texts) - 1]
        raise UserError(
            f"{location}: the answer is {answer!r}, which is none of its {len(texts)} options (A to {last})."
        )
    return right
