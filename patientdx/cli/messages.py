"""Messages on stderr, once for all processes of a launch."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper

from rich.console import Console

from patientdx.core.errors import UserError


def is_first_process() -> bool:
    """Whether this is the process, of those that accelerate started, that writes and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def print_error(text: str) -> None:
    """One line on stderr, once for all processes."""
    if is_first_process():
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(text)


def argument_parser(command: str, doc: str | None) -> argparse.ArgumentParser:
    """The parser of a command whose help is its docstring; it ends a command line that it cannot take with code 2."""
    return argparse.ArgumentParser(
        f"python -m patientdx.cli {command}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def run_command(doc: str | None, arguments: Sequence[str], command: Callable[[], int]) -> int:
    """The exit code of a command that needs no parser: its own; 2 with one message where it raises UserError.

    Among the arguments --help prints `doc` instead.
    """
    if {"-h", "--help"} & set(arguments):
        print((doc or "").strip())
        return 0
    try:
        return command()
    except UserError as error:
        print_error(str(error))
        return 2


def print_output(make: Callable[[], str]) -> int:
    """Print what `make` gives, and return 0; 2 with one message where it raises UserError or OSError."""
    try:
        output = make()
    except (UserError, OSError) as error:
        print_error(str(error))
        return 2
    sys.stdout.write(output)
    return 0


def accept_all_characters() -> None:
    """Let stdout and stderr print "?" for what their encoding lacks, and say so once: λ is in every table."""
    lacking = []
    for stream in (stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, TextIOWrapper)):
        try:
            "λ…█┏".encode(stream.encoding)
        except UnicodeEncodeError:
            lacking.append(stream.encoding)
        stream.reconfigure(errors="replace")
    if lacking:
        print_error(f"the encoding {lacking[0]} lacks some characters, shown as ?: PYTHONUTF8=1 shows them.")
