"""Rows of multiple choice as items: which columns hold the question, its options and which of them is right."""

from __future__ import annotations

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
# Of an option that is a mapping: its label and its text.
NAMED = (("key", "value"), ("label", "text"))
_COUNTED = "cop"  # counted from 1 by its authors and from 0 on the hub
KNOWN = (
    f"Known are {', '.join(QUESTION)} for the question, {', '.join(OPTIONS)}, {', '.join(s[0] for s in SPREAD)} … "
    f"for the options, {', '.join(ANSWER)} for the answer."
)


@dataclass(frozen=True)
class Item:
    """One question with its options, of which number `right` is the answer; `place` is its file and line.

    `same`: the place of the first question of its group that is equal to it.
    """

    place: str
    split: str
    group: str
    question: str
    context: str
    options: tuple[str, ...]
    right: int
    same: str = ""


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
    counted from 1 or from 0: the column itself must show which. Raises UserError for a row that lacks a column, whose
    question or one of whose options is empty, or whose answer is none of its options.
    """
    read = []
    for place, row in found:
        asked, context = _plain(_first(row, QUESTION), place, "the question"), _context(row, place)
        texts, labels = _options(row, place, options)
        key = next((name for name in ANSWER if _given(row.get(name))), None)
        lacking = [what for what, there in (("question", asked), ("options", texts), ("answer", key)) if not there]
        if lacking:
            raise UserError(
                f"{place} has no {' and no '.join(lacking)}. Its columns are {', '.join(row) or 'none'}. {KNOWN}"
            )
        for letter, text in zip(ascii_uppercase, texts, strict=False):
            if not text.strip():
                raise UserError(f"{place}: option {letter} is empty.")
        if not 2 <= len(texts) <= len(ascii_uppercase):
            raise UserError(f"{place} has {len(texts)} options; a question has 2 to {len(ascii_uppercase)}.")
        own = str(row["subject"]) if isinstance(row.get("subject"), str) and row["subject"] else group
        read.append((place, own, asked, context, texts, key, row[key], labels))
    starts = _counted_from(read) if answers_from is None else {}
    return [
        Item(place, split, own, asked, context, texts, _right(answer, key, texts, labels, starts, answers_from, place))
        for place, own, asked, context, texts, key, answer, labels in read
    ]


def _given(value: Any) -> bool:
    return value is not None and value == value and value != "" and value != -1


def _first(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((row[name] for name in names if row.get(name)), None)


def _context(row: Mapping[str, Any], place: str) -> str:
    """The text that is asked about, "" where there is none; its parts, where it has several, a line each."""
    held = _first(row, CONTEXT)
    if isinstance(held, Mapping) and "contexts" in held:  # as the hub has PubMedQA
        held = held["contexts"]
    parts = held if isinstance(held, list | tuple) else [held]
    return "\n".join(_plain(part, place, "the context") for part in parts)


def _options(row: Mapping[str, Any], place: str, usual: Sequence[str] | None) -> tuple[tuple[str, ...], Sequence[str]]:
    """The options' texts, and what the row calls them, where it does."""
    held, labels = _first(row, OPTIONS), ()
    if isinstance(held, Mapping):
        if "text" in held:
            labels, held = held.get("label") or (), held["text"]
        else:
            labels, held = list(held), _trimmed(held.values(), (None,))
    elif isinstance(held, list | tuple) and any(isinstance(one, Mapping) for one in held):
        labels, held = zip(*(_named(one, place, number) for number, one in enumerate(held, 1)), strict=True)
    if held is None:
        names = next((names for names in SPREAD if names[0] in row and names[1] in row), ())
        labels, held = (), _trimmed((row[name] for name in names if name in row), (None, ""))
    if not isinstance(held, list | tuple) or not isinstance(labels, list | tuple):
        wrong = labels if isinstance(held, list | tuple) else held
        what = "one text" if isinstance(wrong, str) else f"of type {type(wrong).__name__}"
        raise UserError(f"{place}: the options are {what}. Give a list of texts, or a column for each.")
    texts = [_plain(one, place, f"option {number}") for number, one in enumerate(held, 1)]
    return tuple(texts) or tuple(usual or ()), [_plain(one, place, "an option's label") for one in labels]


def _trimmed(values: Iterable[Any], empty: Sequence[Any]) -> list[Any]:
    """Without what is empty at the end: a question may have fewer options than the file has places for."""
    found = list(values)
    while len(found) > 2 and found[-1] in empty:
        found.pop()
    return found


def _named(option: Any, place: str, number: int) -> tuple[Any, Any]:
    """Label and text of an option that is a mapping."""
    for label, text in NAMED:
        if isinstance(option, Mapping) and label in option and text in option:
            return option[label], option[text]
    has = f"has {', '.join(map(str, option)) or 'nothing'}" if isinstance(option, Mapping) else "is none"
    raise UserError(
        f"{place}: options that are mappings have {' or '.join(map(' and '.join, NAMED))}, but option {number} {has}."
    )


def _plain(value: Any, place: str, what: str) -> str:
    """A text or a number as text, "" where there is none; anything else would be in the prompt as Python writes it."""
    if value is None or value != value:  # NaN is how a table says that nothing is there
        return ""
    if not isinstance(value, str | int | float):
        raise UserError(f"{place}: {what} is of type {type(value).__name__}. A text or a number is needed.")
    return str(value)


def _counted_from(read: Sequence[tuple]) -> dict[str, int]:
    """The number of the first option in a column `cop`."""
    numbers = {int(answer): len(texts) for *_, texts, key, answer, _ in read if key == _COUNTED and _whole(answer)}
    if not numbers:
        return {}
    if 0 in numbers:
        return {_COUNTED: 0}
    if any(number >= count for number, count in numbers.items()):
        return {_COUNTED: 1}
    raise UserError(
        f"{read[0][0]} and the rest answer by {min(numbers)} to {max(numbers)} in column {_COUNTED}, so the first "
        "option may be 0 or 1. Say which: task.answers_from=1."
    )


def _whole(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().isdecimal() and len(value) < 10  # Python turns no text of any length into a number
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


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
        raise UserError(f"{place}: the answer is {answer!r}, which is none of its {len(texts)} options (A to {last}).")
    return found
