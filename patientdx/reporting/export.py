"""Tables of a report as LaTeX, Markdown and csv."""

from __future__ import annotations

import re
from collections.abc import Sequence

from patientdx.core.tables import Cell, Table, csv_text

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "λ": r"$\lambda$", "−": r"$-$", "–": "--", "—": "---", "≤": r"$\leq$", "≥": r"$\geq$",
    "°": r"$^\circ$", "·": r"$\cdot$", "×": r"$\times$", "Δ": r"$\Delta$", "ε": r"$\varepsilon$", "…": r"\dots{}",
    "→": r"$\to$", '"': "''", "’": "'",
}  # fmt: skip
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~])")


def latex(sheet: Table) -> str:
    r"""A table environment for the booktabs package: title, question and notes as its caption, bold where the sheet is.

    Numbers stand as on the page; a minus is a minus. Letters that mean something to LaTeX are escaped.
    """
    columns = "".join("l" if column.align == "left" else "r" for column in sheet.columns)
    caption = (
        ". ".join(part.rstrip(".") for part in (sheet.title, sheet.subject, *map(_sentence, sheet.notes)) if part) + "."
    )
    lines = [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{latex_text(caption)}}}",
        f"  \\begin{{tabular}}{{{columns}}}",
        "    \\toprule",
        "    " + " & ".join(latex_text(column.heading) for column in sheet.columns) + " \\\\",
        "    \\midrule",
        *("    " + " & ".join(map(_latex_cell, row)) + " \\\\" for row in sheet.rows),
        "    \\bottomrule",
        "  \\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:]


def latex_text(text: str) -> str:
    """The text with every letter that LaTeX would take for something else escaped."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _latex_cell(cell: Cell) -> str:
    text = latex_text(cell.text)
    if not isinstance(cell.value, str) and cell.value is not None:
        text = text.replace("-", "$-$").replace("\\textless{}", "$<$")
    return f"\\textbf{{{text}}}" if cell.bold else text


def markdown(sheet: Table) -> str:
    """A table of GitHub's Markdown under its title, with the notes below it."""
    sides = ["---" if column.align == "left" else "---:" for column in sheet.columns]
    lines = [
        f"### {markdown_text(sheet.title)}" + (f": {markdown_text(sheet.subject)}" if sheet.subject else ""),
        "",
        _line(markdown_text(column.heading) for column in sheet.columns),
        _line(sides),
        *(_line(map(_markdown_cell, row)) for row in sheet.rows),
        "",
        *(f"- {markdown_text(note)}" for note in sheet.notes),
        *([""] if sheet.notes else []),
    ]
    return "\n".join(lines)


def markdown_text(text: str) -> str:
    """The text with every letter that Markdown would take for something else escaped, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _line(cells) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_cell(cell: Cell) -> str:
    text = markdown_text(cell.text)
    return f"**{text}**" if cell.bold else text


def csv(sheets: Sequence[Table]) -> str:
    """Sheets of one name below one another, every digit; an interval takes three columns, bold a column of its own.

    Where there are several, or the sheet says what it is of, `of` is the first column.
    """
    rows = []
    for sheet in sheets:
        for cells in sheet.rows:
            row: dict[str, object] = {"of": sheet.subject} if sheet.subject else {}
            for column, cell in zip(sheet.columns, cells, strict=True):
                row[column.heading] = cell.value
                if column.has_intervals:
                    row |= {f"{column.heading} low": cell.low, f"{column.heading} high": cell.high}
                if any(other.bold for line in sheet.rows for other in line):
                    row |= {f"{column.heading} bold": cell.bold} if column.has_intervals else {}
            rows.append(row)
    return csv_text(rows)
