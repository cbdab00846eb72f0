"""Tables for a terminal: they fit its width, 80 characters where nothing else is known.

A table that is too wide is shown with fewer digits, then with columns and rows exchanged (where it has more columns
than rows), then with intervals below their values, and last in parts that repeat the columns that name a row.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from patientdx.core.tables import FEW, Cell, Column, Table, word

WIDTH = 80
_GAP = 2  # blanks between columns
_WORDS = 16  # characters that a column of words keeps before it is broken at its blanks


def show(*tables: Table, console: Console | None = None) -> None:
    """Print the tables, each below a blank line."""
    console = console or Console()
    for table in tables:
        console.print("", rendered(table, _width_of(console)))


def say(*sentences: str, console: Console | None = None) -> None:
    """Print sentences below a blank line, in lines as wide as tables are."""
    console = console or Console()
    if sentences:
        console.print()
    for sentence in sentences:
        console.print(sentence, highlight=False, markup=False, width=_width_of(console))


def _width_of(console: Console) -> int:
    return min(console.width, WIDTH) if console.is_terminal else WIDTH


def text(*tables: Table, width: int = WIDTH) -> str:
    """The tables as plain text of lines of at most `width` characters, a blank line between two."""
    printed = io.StringIO()
    console = Console(file=printed, width=width)
    for table in tables:
        console.print(rendered(table, width), "")
    return "\n".join(line.rstrip() for line in printed.getvalue().splitlines()) + "\n"


def rendered(table: Table, width: int = WIDTH) -> RenderableType:
    """The table with its title and notes for rich, in lines of at most `width` characters."""
    notes = [Text(note, style="dim italic") for note in table.notes]
    if notes and not table.rows:  # columns without a row say nothing
        return Group(Text(table.title), *notes)
    # Not as the title of rich's table, which is broken where the table is narrow, inside a word too.
    return Group(Text(table.title, style="table.title"), *map(_framed, _fitted(table, width)), *notes)


def _fitted(table: Table, width: int) -> list[Table]:
    """The first form of the table that fits; its parts where none does."""
    short = _with_cells(table, lambda cell: replace(cell, text=cell.short or cell.text))
    forms = [table, short]
    if len(table.columns) - table.keys > len(table.rows):
        forms += [_exchanged(table), _exchanged(short)]
    stacked = _with_cells(short, _stacked)
    for form in (*forms, stacked):
        if sum(map(_width, form.columns, _cells(form))) + _GAP * (len(form.columns) - 1) <= width:
            return [form]
    return list(_parts(stacked, width))


def _parts(table: Table, width: int) -> Iterator[Table]:
    """The columns that name a row with as many others at a time as fit beside them."""
    widths = [_width(*column) + _GAP for column in zip(table.columns, _cells(table), strict=True)]
    start = table.keys
    while start < len(table.columns):
        room = width + _GAP - sum(widths[: table.keys])
        end = start + 1
        while end < len(table.columns) and sum(widths[start : end + 1]) <= room:
            end += 1
        picked = [*range(table.keys), *range(start, end)]
        rows = tuple(tuple(row[index] for index in picked) for row in table.rows)
        yield replace(table, columns=tuple(table.columns[index] for index in picked), rows=rows)
        start = end


def _exchanged(table: Table) -> Table:
    """Rows as columns; their heading is what names them."""
    head = ", ".join(column.heading for column in table.columns[: table.keys])
    names = ["\n".join(cell.text for cell in row[: table.keys]) for row in table.rows]
    columns = (Column(head, "left"), *(Column(name) for name in names))
    rows = tuple(
        (word(column.heading), *(row[index] for row in table.rows))
        for index, column in enumerate(table.columns)
        if index >= table.keys
    )
    return replace(table, columns=columns, rows=rows, keys=1)


def _with_cells(table: Table, change) -> Table:
    return replace(table, rows=tuple(tuple(map(change, row)) for row in table.rows))


def _stacked(cell: Cell) -> Cell:
    """The value, with the mark that it may have, above its interval."""
    mark = FEW if cell.text.endswith(FEW) else ""
    value, bracket, ends = cell.text.removesuffix(mark).partition(" [")
    if not bracket or cell.low is None:
        return cell
    low, _, high = ends.rstrip("]").partition(", ")
    return replace(cell, text=f"{value}{mark}\n{low}{' to ' if low.startswith('-') else '–'}{high}")


def _cells(table: Table) -> list[list[Cell]]:
    """The cells of each column."""
    return [[row[index] for row in table.rows] for index in range(len(table.columns))]


def _width(column: Column, cells: Sequence[Cell]) -> int:
    """Characters that a column needs: columns of words and headings are broken at blanks."""
    lines = [line for cell in cells for line in cell.text.splitlines()]
    longest = max(map(len, lines), default=0)
    words = [part for line in lines for part in line.split()]
    if column.align == "left":
        longest = min(longest, max([_WORDS, *map(len, words)]))
    return max([longest, *map(len, column.heading.split())])


def _framed(table: Table) -> RichTable:
    frame = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for column, cells in zip(table.columns, _cells(table), strict=True):
        words = column.align == "left"
        heading = column.heading if words else _broken(column.heading, _width(column, cells))
        frame.add_column(heading, justify=column.align, no_wrap=not words, overflow="fold")
    for row in table.rows:
        frame.add_row(*(Text(cell.text, style="bold" if cell.bold else "") for cell in row))
    return frame


def _broken(heading: str, width: int) -> str:
    """The heading in lines of at most that many characters, broken at blanks."""
    lines: list[str] = []
    for part in heading.split(" "):
        if lines and len(lines[-1]) + 1 + len(part) <= width:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return "\n".join(lines)
