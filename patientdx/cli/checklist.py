"""The checklists TRIPOD+AI and TRIPOD-LLM, filled from a run: where each item is answered, or "not reported".

python -m patientdx.cli checklist outputs/default/mortality_slerp_...                     on the terminal
python -m patientdx.cli checklist outputs/default/mortality_slerp_... --format markdown   for a supplement
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from patientdx.cli.ending import ended
from patientdx.cli.messages import argument_parser, print_output
from patientdx.core.errors import UserError
from patientdx.reporting import checklist, export, terminal
from patientdx.reporting.runs import read

FORMATS = {
    "text": lambda tables: terminal.text(*tables, width=100),
    "markdown": lambda tables: "\n".join(map(export.markdown, tables)),
    "csv": export.csv,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the checklists of one run; 2 with one message where the folder is not one run's."""
    parser = argument_parser("checklist", __doc__)
    parser.add_argument("folder", type=Path, help="the result folder of one run")
    parser.add_argument("--format", choices=FORMATS, default="text")
    args = parser.parse_args(argv)

    def output() -> str:
        study = read(args.folder)
        run, *others = study.runs
        if others:
            raise UserError(
                f"{study.name} holds {len(study.runs)} runs, and a checklist is filled from one. Give its result "
                f"folder, as in {study.name}/{run.folder.name}."
            )
        return FORMATS[args.format](checklist.tables(run))

    return print_output(output)


if __name__ == "__main__":
    sys.exit(ended(main))
