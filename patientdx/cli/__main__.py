"""python -m patientdx.cli <command>: the commands beside run.py. Each takes --help.

verify    whether a saved merge is what its record says, bit for bit
certify   a certificate of a saved merge
compare   two models, tensor by tensor, before anything is merged
identify  which candidates, merged how and with which λ, a published model is
report    the page of a study, or one of its tables for a paper
labels    the examples of a task as MEDS label files
predictions  the predictions of a run in the schema of MEDS' evaluation
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from patientdx.cli.ending import ended

COMMANDS = ("verify", "certify", "compare", "identify", "report", "labels", "predictions")


def main(argv: Sequence[str]) -> int:
    """Run the command that the first word names; returns its exit code, 2 for a word that names none."""
    if not argv or argv[0] in ("-h", "--help"):
        print((__doc__ or "").strip())
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        print(f"{argv[0]} is no command; there are {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    return import_module(f"patientdx.cli.{argv[0]}").main(argv[1:])


if __name__ == "__main__":
    sys.exit(ended(lambda: main(sys.argv[1:])))
