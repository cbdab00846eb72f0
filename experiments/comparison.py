"""Ours beside published: systems of a study, differences between them, and the table and notes of both.

A study says which systems stand in its table and which pairs are compared (`Section`); everything else is here.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.published import ABSENT, MARKS, Block, Cell, published
from experiments.reading import Content, command, folder, script
from experiments.study import TEST, Row, Run, Study, difference, last_sweep
from patientdx.core import tables
from patientdx.core.tables import Column, Table, make_table, word
from patientdx.metrics.bootstrap import Interval
from patientdx.metrics.ranking import auprc, auroc

METRICS = {"auroc": auroc, "auprc": auprc}
_COLUMNS = (
    Column("", "left"), Column("ours"), Column("published"), Column("mark", "left"), Column("direction", "left"),
)  # fmt: skip


@dataclass(frozen=True)
class System:
    """One system of a study on the reported split: its row, the run that scored it, and its role in that run.

    name: as its own line calls it. short: as a line of a difference calls it. cell: key of its published number.
    """

    name: str
    short: str
    row: Row
    run: Run
    role: str
    cell: str


@dataclass(frozen=True)
class Pair:
    """A difference of two systems, the first minus the second. cell: key of the published difference."""

    first: System
    second: System
    cell: str
    mark: str = ""


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


Entry = System | Pair | Line


@dataclass(frozen=True)
class Section:
    """One table of a study and the notes under it.

    entries: a system is shown by its score, a pair by its difference, on `split` and by `metric`; a line as it is.
    relative: how the note of the differences in percent begins; None: no such note.
    """

    entries: Sequence[Entry]
    title: str = ""
    notes: Sequence[str] = ()
    relative: str | None = "Relative to the second"
    metric: str = "auroc"
    split: str = TEST

    def lines(self, block: Block) -> list[Line]:
        """A line for each entry."""
        return [self._line(entry, block) for entry in self.entries]

    def _line(self, entry: Entry, block: Block) -> Line:
        if isinstance(entry, Line):
            return entry
        if isinstance(entry, System):
            return Line(entry.name, score_text(entry.row, self.metric), block.cells[entry.cell])
        first, second = entry.first, entry.second
        interval = difference(METRICS[self.metric], (first.run, first.role), (second.run, second.role), self.split)
        name = f"{first.short} − {second.short}{entry.mark}"
        return Line(name, change_text(interval), block.cells[entry.cell], interval, second.row[self.metric])


def comparison(
    stem: str,
    doc: str,
    sections: Callable[[Study, Block, Namespace], Iterator[Section]],
    *options: tuple,
    by: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Callable[[Sequence[str] | None], int]:
    """The `main` of a study that stands beside published numbers: its sections, then what holds for all of them.

    by: see `last_sweep`. notes: further notes behind the tables. options: see `script`.
    """

    def contents(args: Namespace) -> Iterator[Content]:
        study, block = last_sweep(folder(args), command(args), by=by), published(stem)
        all_lines: list[Line] = []
        for section in sections(study, block, args):
            lines = section.lines(block)
            all_lines += lines
            yield comparison_table(lines, section.title)
            yield from section.notes
            if section.relative is not None:
                yield relative_note(lines, section.relative)
        yield from (DIRECTION_NOTE, *notes)
        yield from source_notes(block, all_lines)

    return script(stem, doc, contents, *options)


def parent(study: Study, role: str, cell: str, *, split: str = TEST, named: bool = False) -> System:
    """A parent of the study; `named` adds which model it is. Raises UserError where the study did not score it."""
    row = study.row(role, split)
    run = next(run for run in study.runs if row in run.rows)
    return System(f"{role} ({row[role]})" if named else role, role, row, run, role, cell)


def best_merge(study: Study, method: str, cell: str, title: str | None = None, **splits: str) -> System:
    """The merge of a method at the λ that is best on pilot. Raises UserError as `Study.best` does.

    splits: `chosen_on` and `reported_on`, where they are not pilot and test.
    """
    row = study.best(method, **splits)
    title = title or method
    run = study.run_of(method, row["lambda"])
    return System(f"{title} λ={row['lambda']:g}", title, row, run, "merged", cell)


def comparison_table(lines: Sequence[Line], title: str = "") -> Table:
    """Ours beside published, with the mark of each published number."""
    rows = [tuple(map(word, (one.name, one.ours, one.cell.text, one.cell.mark, one.direction))) for one in lines]
    return make_table("comparison", title, _COLUMNS, rows)


def score_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A table of texts: a column of words is aligned left, one of numbers right."""
    typed = [Column(name, "right" if index else "left") for index, name in enumerate(columns)]
    return make_table("scores", title, typed, [tuple(map(word, row)) for row in rows])


def relative_note(lines: Sequence[Line], start: str) -> str:
    """The differences among the lines in percent of what they are from."""
    return f"{start}: {', '.join(f'{line.name} {_relative(line)}' for line in lines if line.difference is not None)}."


BETTER_PARENT = "* the parent that is better on {split}: the harder comparison. A best λ of 0 or 1 is a parent itself."
DIRECTION_NOTE = "Direction: whether our interval is on the side that was published; unclear where it holds 0."


def source_notes(block: Block, lines: Sequence[Line]) -> Iterator[str]:
    """Where the published numbers of the lines are from, what speaks against them, and what the marks mean."""
    yield f"Published: {block.paper}; {block.setting.strip()}."
    names = {
        (line.cell.source, line.cell.conflict): line.name
        for line in reversed(lines)
        if line.cell.source or line.cell.conflict
    }
    for (source, conflict), name in reversed(names.items()):
        yield f"{name}: " + " ".join(part for part in (source and f"{source}.", conflict and conflict.strip()) if part)
    if any(line.cell.value is None for line in lines):
        yield f"{ABSENT.capitalize()}: not published, or not in what of the paper could be read."
    yield "Marks: " + ", ".join(f"{mark} {meaning}" for mark, meaning in MARKS.items()) + "."


def score_text(row: Mapping[str, Any], metric: str = "auroc", digits: int = 3) -> str:
    """A row's value of a metric with its interval."""
    return tables.format_interval(row[metric], row[f"{metric}_ci_low"], row[f"{metric}_ci_high"], digits)


def change_text(interval: Interval) -> str:
    """A difference with its interval."""
    return tables.format_interval(interval.value, interval.low, interval.high, 3, sign=True)


def _relative(line: Line) -> str:
    return f"{100 * line.difference.value / line.reference:+.1f} %"
