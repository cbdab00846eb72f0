"""Tables of a report as LaTeX, Markdown and csv."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from patientdx.core.errors import UserError
from patientdx.core.tables import Cell, Table, csv_text

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "λ": r"$\lambda$", "−": r"$-$", "–": "--", "—": "---", "≤": r"$\leq$", "≥": r"$\geq$",
    "°": r"$^\circ$", "·": r"$\cdot$", "×": r"$\times$", "Δ": r"$\Delta$", "ε": r"$\varepsilon$", "…": r"\dots{}",
    "†": r"$^\dagger$", "→": r"$\to$", '"': "''", "’": "'",
}  # fmt: skip
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~])")


def latex(table: Table) -> str:
    r"""A table environment for the booktabs package: title, question and notes as its caption, bold where a cell is.

    Its label is `tab:` with the table's name and subject. Numbers stand as on the page; a minus is a minus. Characters
    that LaTeX would interpret are escaped.
    """
    columns = "".join("l" if column.align == "left" else "r" for column in table.columns)
    caption = (
        ". ".join(part.rstrip(".") for part in (table.title, table.subject, *map(_sentence, table.notes)) if part) + "."
    )
    lines = [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{latex_text(caption)}}}",
        f"  \\label{{tab:{'-'.join(re.findall(r'[a-z0-9]+', f'{table.name} {table.subject}'.lower()))}}}",
        f"  \\begin{{tabular}}{{{columns}}}",
        "    \\toprule",
        "    " + " & ".join(latex_text(column.heading) for column in table.columns) + " \\\\",
        "    \\midrule",
        *("    " + " & ".join(map(_latex_cell, row)) + " \\\\" for row in table.rows),
        "    \\bottomrule",
        "  \\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def of_split(table: Table, split: str) -> Table:
    """The table with the rows of one split, without the column and the notes of the others.

    Raises UserError where the table has no such column or rows.
    """
    names = [column.name for column in table.columns]
    if "split" not in names:
        raise UserError(f"the table {table.name} has no column split (--split): its rows are all of one.")
    position = names.index("split")
    splits = dict.fromkeys(row[position].text for row in table.rows)
    if split not in splits:
        raise UserError(f"--split {split}: the table {table.name} has {', '.join(splits)}.")
    keep = [index for index in range(len(names)) if index != position]
    rows = tuple(tuple(row[index] for index in keep) for row in table.rows if row[position].text == split)
    notes = tuple(
        note for note in table.notes if not note.startswith(tuple(f"{name}:" for name in splits if name != split))
    )
    columns = tuple(table.columns[index] for index in keep)
    return replace(table, title=f"{table.title}, {split}", columns=columns, rows=rows, notes=notes)


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:]


def latex_text(text: str) -> str:
    """The text with every character escaped that LaTeX would interpret."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _latex_cell(cell: Cell) -> str:
    text = latex_text(cell.text)
    if not isinstance(cell.value, str) and cell.value is not None:
        text = text.replace("-", "$-$").replace("\\textless{}", "$<$")
    return f"\\textbf{{{text}}}" if cell.bold else text


def markdown(table: Table) -> str:
    """A table of GitHub's Markdown under its title, with the notes below it."""
    sides = ["---" if column.align == "left" else "---:" for column in table.columns]
    lines = [
        f"### {markdown_text(table.title)}" + (f": {markdown_text(table.subject)}" if table.subject else ""),
        "",
        _line(markdown_text(column.heading) for column in table.columns),
        _line(sides),
        *(_line(map(_markdown_cell, row)) for row in table.rows),
        "",
        *(f"- {markdown_text(note)}" for note in table.notes),
        *([""] if table.notes else []),
    ]
    return "\n".join(lines)


def markdown_text(text: str) -> str:
    """The text on one line, with every character escaped that Markdown would interpret."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _line(cells) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_cell(cell: Cell) -> str:
    text = markdown_text(cell.text)
    return f"**{text}**" if cell.bold else text


def csv(tables: Sequence[Table]) -> str:
    """Tables of one name below one another, every digit; an interval takes three columns, bold a column of its own.

    The subject of a table, where it has one, is in the column `subject`.
    """
    rows = []
    for table in tables:
        any_bold = any(cell.bold for line in table.rows for cell in line)
        for cells in table.rows:
            row: dict[str, object] = {"subject": table.subject} if table.subject else {}
            for column, cell in zip(table.columns, cells, strict=True):
                name = column.heading
                row[name] = cell.value
                if column.has_intervals:
                    row |= {f"{name} low": cell.low, f"{name} high": cell.high}
                    row |= {f"{name} bold": cell.bold} if any_bold else {}
            rows.append(row)
    return csv_text(rows)
