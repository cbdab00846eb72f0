"""patientdx <command>, or python -m patientdx.cli <command>. Each takes --help.

run       merge, evaluate, and search or sweep over λ: the words of run.py
preflight whether data, models, licences and disk are there for such a run or sweep, and one prompt
merge     write a merged model, and score nothing: save=<folder>
verify    whether a saved merge is what its record says, bit for bit
certify   a certificate of a saved merge
compare   two models, tensor by tensor, before anything is merged
identify  which candidates, merged how and with which λ, a published model is
push      publish a merged folder on the hub, or show what would be sent
report    the page of a study, or one of its tables for a paper
checklist TRIPOD+AI and TRIPOD-LLM, filled from a run
labels    the examples of a task as MEDS label files
predictions  the predictions of a run in the schema of MEDS' evaluation
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from patientdx.cli.ending import ended

OF_HYDRA = ("run", "preflight", "merge")  # they take overrides, and end by themselves with the table of a sweep
OTHERS = ("verify", "certify", "compare", "identify", "push", "report", "checklist", "labels", "predictions")
COMMANDS = (*OF_HYDRA, *OTHERS)


def main(argv: Sequence[str]) -> int:
    """Run the command that the first word names; returns its exit code, 2 for a word that names none."""
    if not argv or argv[0] in ("-h", "--help"):
        print((__doc__ or "").strip())
        return 0 if argv else 2
    if argv[0] == "--version":
        from patientdx import __version__

        print(f"patientdx {__version__}")
        return 0
    if argv[0] == "-sc":
        return _complete(argv)
    if argv[0] not in COMMANDS:
        print(f"{argv[0]} is no command; there are {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    if argv[0] in OF_HYDRA:
        from patientdx.cli import entry

        return getattr(entry, argv[0])(argv[1:])
    return import_module(f"patientdx.cli.{argv[0]}").main(argv[1:])


def _complete(argv: Sequence[str]) -> int:
    """Shell completion: Hydra's for the words after run, preflight or merge, and before them the commands.

    Hydra's script asks with ``-sc query=<shell>`` and the line so far in COMP_LINE. It knows lines that begin with one
    name of a program, so the command is left out of what it gets.
    """
    from patientdx.cli import entry

    words = os.environ.get("COMP_LINE", "").split(" ")
    if "query=" in " ".join(argv) and len(words) < 3:
        print("\n".join(name for name in COMMANDS if name.startswith(words[-1])))
        return 0
    if words[1:2] and words[1] in OF_HYDRA:
        os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
    return entry.run(argv)


def console() -> None:
    """The console command `patientdx`."""
    argv = sys.argv[1:]
    sys.exit(main(argv) if argv and argv[0] in (*OF_HYDRA, "-sc") else ended(lambda: main(argv)))


if __name__ == "__main__":
    console()
