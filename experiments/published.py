"""Published numbers: `paper.yaml`, one block a table or figure, each cell with its source and how far to trust it.

And ours beside them: lines of a table, each with its published cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.box import SIMPLE_HEAD
from rich.table import Table

from patientdx.core.errors import UserError
from patientdx.metrics.bootstrap import Interval

PAPER = Path(__file__).with_name("paper.yaml")
MARKS = {"V": "stated by the authors", "S": "by a third-party summary, unchecked", "U": "found nowhere"}
ABSENT = "not recovered"


@dataclass(frozen=True)
class Cell:
    """One published number, or its absence; the fields are explained at the head of `paper.yaml`."""

    value: float | tuple[float, float] | None
    unit: str
    mark: str
    source: str | None
    conflict: str | None
    direction: int | None
    qualifier: str = ""

    def __post_init__(self) -> None:
        if self.mark not in MARKS:
            raise UserError(f"mark {self.mark} does not exist; it is one of {', '.join(MARKS)}")
        if (self.value is None) != (self.mark == "U") or (self.source is None) != (self.mark == "U"):
            raise UserError(f"a number needs a source and a mark other than U, and only a number does: {self}")

    @property
    def text(self) -> str:
        """The number as a reader meets it: `up to 7 % AUROC`, `9 to 17.4 % AUROC`, or that there is none."""
        if self.value is None:
            return ABSENT
        ends = self.value if isinstance(self.value, tuple) else (self.value,)
        number = " to ".join(f"{end:g}" for end in ends)
        return " ".join(part for part in (self.qualifier, number, self.unit) if part)


@dataclass(frozen=True)
class Block:
    """What one paper reports for one table or figure."""

    paper: str
    setting: str
    cells: dict[str, Cell]


def published(stem: str, path: Path = PAPER) -> Block:
    """The block of `stem`; UserError where there is none, or a cell says too much or too little."""
    blocks = yaml.safe_load(path.read_text(encoding="utf-8"))
    if stem not in blocks:
        raise UserError(f"{path.name} has no block {stem}; it has {', '.join(blocks)}")
    block = blocks[stem]
    cells = {}
    for name, fields in block["numbers"].items():
        value = tuple(fields["value"]) if isinstance(fields["value"], list) else fields["value"]
        try:
            cells[name] = Cell(**(fields | {"value": value}))
        except (TypeError, UserError) as fault:
            raise UserError(f"{path.name}, {stem}.{name}: {fault}") from None
    return Block(block["paper"], block["setting"], cells)


@dataclass(frozen=True)
class Line:
    """One line of a table: what it is, ours as text, the published cell; for a difference, also what it is from."""

    name: str
    ours: str
    cell: Cell
    difference: Interval | None = None
    reference: float | None = None

    @property
    def direction(self) -> str:
        """What our interval says of the published direction."""
        if self.difference is None or self.cell.direction is None:
            return ""
        low, high = sorted(self.cell.direction * end for end in (self.difference.low, self.difference.high))
        if low > 0:
            return "same"
        return "opposite" if high < 0 else "unclear"


def beside(lines: Sequence[Line], title: str | None = None) -> Table:
    """Ours beside published, with the mark of each published number."""
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left")
    for name in ("", "ours", "published", "mark", "direction"):
        shown.add_column(name, justify="right" if name in ("ours", "published") else "left", no_wrap=name == "ours")
    for line in lines:
        shown.add_row(line.name, line.ours, line.cell.text, line.cell.mark, line.direction)
    return shown


def sources(block: Block, lines: Sequence[Line]) -> Iterator[str]:
    """Where the published numbers of the lines are from, what speaks against them, and what the marks mean."""
    yield f"Published: {block.paper}; {block.setting.strip()}."
    told = {
        (line.cell.source, line.cell.conflict): line.name for line in reversed(lines) if line.cell.value is not None
    }
    for (source, conflict), name in reversed(told.items()):
        yield f"{name}: {source}." + (f" {conflict.strip()}" if conflict else "")
    if any(line.cell.value is None for line in lines):
        yield f"{ABSENT.capitalize()}: not published, or not in what of the paper could be read."
    yield "Marks: " + ", ".join(f"{mark} {meaning}" for mark, meaning in MARKS.items()) + "."


def area(row: Mapping[str, Any], metric: str = "auroc") -> str:
    """A row's value of a metric with its interval."""
    return f"{row[metric]:.3f} [{row[f'{metric}_ci_low']:.3f}, {row[f'{metric}_ci_high']:.3f}]"


def change(found: Interval) -> str:
    """A difference with its interval."""
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def relative(line: Line) -> str:
    """A difference as a share of what it is from."""
    return f"{100 * line.difference.value / line.reference:+.1f} %"
