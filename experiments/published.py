"""Published numbers: `paper.yaml`, one block a table or figure, each cell with its source and how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from patientdx.core.errors import UserError

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
