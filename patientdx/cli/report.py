"""The report of a study or of one run: a page, or one of its tables for a paper.

python -m patientdx.reporting outputs/lambda_curve                                  writes report.html there
python -m patientdx.reporting outputs/lambda_curve --format latex --table models    prints a table
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from patientdx.core.errors import UserError
from patientdx.core.tables import Table
from patientdx.reporting import angles, answering, export, leakage_sheets, provenance, searches, tables
from patientdx.reporting.groups import Group, groups
from patientdx.reporting.pages import write_report
from patientdx.reporting.runs import Study, read

_TABLES: dict[str, Callable[[Group], Table | list[Table] | None]] = {
    "models": tables.models,
    "chosen": tables.chosen,
    "comparisons": tables.comparisons,
    "fit": tables.fit,
    "calibration": tables.calibration,
    "threshold": tables.threshold,
    "subgroups": tables.subgroups,
    "gaps": tables.gaps,
    "graded": answering.graded,
    "abstention": answering.abstention,
    "wordings": answering.wordings,
    "search": searches.searches,
    "leakage": leakage_sheets.leakage,
    "membership": leakage_sheets.membership,
    "angles": angles.by_kind,
    "cohort": provenance.cohort,
    "parents": provenance.parents,
    "facts": provenance.facts,
}


def sheets(study: Study, name: str) -> list[Table]:
    """The tables of that name, one a group; UserError where the study has none."""
    if name == "runs":
        return [provenance.runs(study)]
    found: list[Table] = []
    for group in groups(study):
        made = _TABLES[name](group)
        found += made if isinstance(made, list) else [made] if made is not None else []
    if not found:
        known = ", ".join([*_TABLES, "runs"])
        raise UserError(
            f"{study.name} has nothing for --table {name}: its runs did not write what the table is made of. Tables "
            f"are {known}; several of them need runs with clinical=true."
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or print tables; 2 with one message where there is nothing to report on."""
    parser = argparse.ArgumentParser(prog="python -m patientdx.reporting", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a study, <output>/<name>, or the result folder of one run")
    parser.add_argument("--format", choices=("html", "latex", "markdown", "csv"), default="html")
    parser.add_argument("--table", choices=(*_TABLES, "runs"), default="models", help="which one; html has them all")
    asked = parser.parse_args(arguments)
    try:
        if asked.format == "html":
            said = f"written: {write_report(asked.folder)}\n"
        else:
            found = sheets(read(asked.folder), asked.table)
            form = {"latex": export.latex, "markdown": export.markdown}.get(asked.format)
            said = export.csv(found) if form is None else "\n".join(map(form, found))
    except (UserError, OSError) as fault:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(str(fault))
        return 2
    sys.stdout.write(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
