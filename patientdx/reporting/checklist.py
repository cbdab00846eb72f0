"""The reporting checklists TRIPOD+AI and TRIPOD-LLM, filled from a result folder.

checklists.csv holds the items by their published numbers, in words of our own, and where in a result folder something
answers each: `file` or `file:key.key`, with * for any key. TRIPOD+AI: Collins et al., BMJ 2024; TRIPOD-LLM: Gallifant
et al., Nat. Med. 2025. An item is answered by every location that this run has. What only the authors know (ethics,
funding, interpretation) has none and is "not reported", as is what the run left out: the published form with its
wording stays theirs to fill, and this says where to look.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from patientdx.core.tables import Table, make_table, word
from patientdx.reporting.runs import Run

NOT_REPORTED = "not reported"
_READERS = {".json": json.loads, ".yaml": yaml.safe_load}


class Item(NamedTuple):
    """One item of a checklist: its number, what it is about, and the locations that can answer it."""

    checklist: str
    number: str
    about: str
    locations: tuple[str, ...]


class Answer(NamedTuple):
    """An item with the locations that this run has."""

    item: Item
    locations: tuple[str, ...]


@cache
def items() -> tuple[Item, ...]:
    """The rows of checklists.csv, in order."""
    text = (resources.files("patientdx.reporting") / "checklists.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(io.StringIO(text))
    return tuple(
        Item(row["checklist"], row["item"], row["about"], tuple(filter(None, row["where"].split("; ")))) for row in rows
    )


def answers(run: Run) -> list[Answer]:
    """Every item with the locations that the run has. UserError for a folder that is not as its run left it."""
    run.metrics  # noqa: B018 - a damaged folder answers nothing
    contents = {
        name: _content(run.folder / name)
        for name in {location.split(":")[0] for item in items() for location in item.locations}
    }
    return [
        Answer(item, tuple(location for location in item.locations if _is_there(contents, location)))
        for item in items()
    ]


def tables(run: Run) -> list[Table]:
    """A table a checklist: number, subject and locations of each item, with a note of how many are answered."""
    made, filled = [], answers(run)
    for name in dict.fromkeys(item.checklist for item in items()):
        part = [answer for answer in filled if answer.item.checklist == name]
        rows = [
            [word(answer.item.number), word(answer.item.about), word("; ".join(answer.locations) or NOT_REPORTED)]
            for answer in part
        ]
        count = sum(bool(answer.locations) for answer in part)
        notes = [f"{count} of {len(part)} items answered from the folder; the others are the authors' to report",
                 "numbers as published, words ours: hand in the published form"]  # fmt: skip
        made.append(make_table(_slug(name), name, ["item", "about", "where"], rows, notes=notes, keys=2))
    return made


def _slug(name: str) -> str:
    return name.lower().replace("+", "_").replace("-", "_")


def _content(path: Path) -> Any:
    """What is in a file, as far as locations look into it; None where it is missing."""
    if not path.exists():
        return None
    reader = _READERS.get(path.suffix)
    return True if reader is None else reader(path.read_text(encoding="utf-8"))


def _is_there(contents: Mapping[str, Any], location: str) -> bool:
    """Whether the file is there and holds something under the key; false and 0 are something."""
    file, _, key = location.partition(":")
    return any(value not in (None, "", [], {}) for value in _values(contents[file], key.split(".") if key else []))


def _values(content: Any, keys: Sequence[str]) -> Iterator[Any]:
    """What lies under the keys; * goes through every key of a mapping."""
    if not keys:
        yield content
    elif isinstance(content, Mapping):
        of_key = content.values() if keys[0] == "*" else [content[keys[0]]] if keys[0] in content else []
        for value in of_key:
            yield from _values(value, keys[1:])
