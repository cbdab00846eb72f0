"""The report of a study or of one run: a page, or one of its tables for a paper.

python -m patientdx.cli report outputs/lambda_curve                                  writes report.html there
python -m patientdx.cli report outputs/lambda_curve --format latex --table models    prints a table
python -m patientdx.cli report outputs/lambda_curve --format pdf                     writes every chart, and its csv
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from patientdx.cli.ending import ended
from patientdx.cli.messages import argument_parser, print_output
from patientdx.core.errors import UserError
from patientdx.core.tables import Table
from patientdx.reporting import export
from patientdx.reporting.analyses import study_tables
from patientdx.reporting.groups import groups
from patientdx.reporting.pages import write_report
from patientdx.reporting.pictures import write_figures
from patientdx.reporting.runs import Study, read

FORMATS = {
    "latex": lambda tables: "\n".join(map(export.latex, tables)),
    "markdown": lambda tables: "\n".join(map(export.markdown, tables)),
    "csv": export.csv,
}
PICTURES = ("svg", "pdf", "png")


def named_tables(study: Study, name: str) -> list[Table]:
    """The tables of that name, those of every group; UserError where the study has none."""
    tables = [table for table in study_tables(study, groups(study)) if table.rows]
    named = [table for table in tables if table.name == name]
    if not named:
        known = ", ".join(dict.fromkeys(table.name for table in tables))
        raise UserError(
            f"{study.name} has no table {name} (--table): its runs hold the tables {known}. Many tables need "
            "clinical=true, others a search for λ or privacy=."
        )
    return named


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or print tables; 2 with one message where there is nothing to report."""
    parser = argument_parser("report", __doc__)
    parser.add_argument("folder", type=Path, help="a study, <output>/<name>, or the result folder of one run")
    parser.add_argument("--format", choices=("html", *FORMATS, *PICTURES), default="html")
    parser.add_argument("--table", default="models", help="which table, as in models, comparisons, calibration, runs")
    parser.add_argument("--split", help="the rows of one split alone, as in --split test")
    args = parser.parse_args(argv)

    def output() -> str:
        if args.format == "html":
            return f"written: {write_report(args.folder)}\n"
        if args.format in PICTURES:
            return "".join(f"written: {path}\n" for path in write_figures(read(args.folder), args.format))
        tables = named_tables(read(args.folder), args.table)
        return FORMATS[args.format]([export.of_split(table, args.split) for table in tables] if args.split else tables)

    return print_output(output)


if __name__ == "__main__":
    sys.exit(ended(main))
