"""Sections of a text, each within a budget, so that a long one cannot push out the next.

Budgets count by a rule that needs no tokenizer, so that the text does not depend on the model that reads it: each
digit and each other sign counts one, a word counts one for each started four letters, white space counts nothing.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from patientdx.core.errors import UserError

NAMES = (
    "person", "admission", "comorbidities", "diagnoses", "readings", "status", "drugs", "procedures", "outputs",
    "earlier",
)  # fmt: skip
_LETTERS = 4
_COUNTED = re.compile(r"[^\W\d_]+|\S")  # a word, or one sign of any other kind


@dataclass(frozen=True)
class Section:
    """`before`, then `items` with `separator` between them, then `after`. Nothing at all without items.

    `most` is how many items the template prints where no budget is given; None: all. With `weights`, one for each
    item, those of the least weight are left out, without them the last ones; the rest stays in its order. `rest` says
    how many ({n}) were left out, behind the last item; "": nothing is said.
    """

    items: Sequence[str]
    before: str = ""
    separator: str = ""
    after: str = ""
    most: int | None = None
    weights: Sequence[int] = ()
    rest: str = ""


class Written(NamedTuple):
    """A text, and how many items of each section were left out of it (sections with none left out are absent)."""

    text: str
    dropped: dict[str, int]


def count(text: str) -> int:
    """Tokens of a text by the fixed rule above."""
    return sum(-(-len(piece) // _LETTERS) for piece in _COUNTED.findall(text))


def fitted(section: Section, budget: int | None) -> tuple[str, int]:
    """The text of a section within its budget, and the number of items left out.

    Whole items are dropped: the last ones, or those of the least weight. A section whose first item, or weightiest,
    does not fit is left out altogether.
    """
    order = list(range(len(section.items)))
    if section.weights:
        order.sort(key=lambda number: -section.weights[number])
    many = _how_many([section.items[number] for number in order], section, budget)
    dropped = len(order) - many
    if not many:
        return "", dropped
    items = [section.items[number] for number in sorted(order[:many])]
    rest = section.rest.format(n=dropped) if dropped else ""
    return section.before + section.separator.join(items) + rest + section.after, dropped


def _how_many(items: Sequence[str], section: Section, budget: int | None) -> int:
    """How many of the items, in this order, the section prints."""
    if budget is None:
        return len(items) if section.most is None else min(section.most, len(items))
    # Counted piece by piece: a word that two pieces share counts no less that way, so the whole text fits too.
    left = budget - count(section.before) - count(section.after)
    between, rest = count(section.separator), count(section.rest.format(n=len(items)))
    spent = 0
    for number, item in enumerate(items):
        spent += count(item) + (between if number else 0)
        if spent + (rest if number + 1 < len(items) else 0) > left:
            return number
    return len(items)


def checked(
    sections: Mapping[str, int | None], name: str = "task.sections", known: Iterable[str] = NAMES
) -> dict[str, int | None]:
    """The sections in order, with budgets. Raises UserError on an unknown section, a wrong budget, or none at all."""
    if not isinstance(sections, Mapping) or not sections:
        raise UserError(
            f"{name}={sections!r}: name at least one section with its budget of tokens or null, "
            "as in {person: null, drugs: 80}."
        )
    known = tuple(known)
    unknown = [section for section in sections if section not in known]
    if unknown:
        raise UserError(f"{name} has no {', '.join(map(str, unknown))}: there are {', '.join(known)}.")
    for section, budget in sections.items():
        if budget is not None and (not isinstance(budget, int) or isinstance(budget, bool) or budget < 1):
            raise UserError(
                f"{name}.{section}={budget!r}: a budget is a whole number of tokens, 1 or more, or null for none; "
                "leave the section out to switch it off."
            )
    return dict(sections)


def left_out(texts: Iterable[Written]) -> dict[str, dict[str, int]]:
    """For each section that was ever cut: in how many records, and how many items in all."""
    sums: dict[str, dict[str, int]] = {}
    for written in texts:
        for section, items in written.dropped.items():
            of = sums.setdefault(section, {"records": 0, "items": 0})
            of["records"] += 1
            of["items"] += items
    return {section: sums[section] for section in NAMES if section in sums}
