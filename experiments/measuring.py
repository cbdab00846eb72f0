"""Scripts that run no study: what they measure they leave below outputs, and show again without measuring."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.reading import folder, parser
from patientdx.core.errors import UserError
from patientdx.evaluation.store import read_json, write_json
from patientdx.reporting.runs import without_paths

SCRIPTS = ("edge", "permuted_heads")


def measured(output: Path) -> dict[str, list[str]]:
    """Names of the folders below `output` that hold what a script left, by script."""
    return {stem: [place.parent.name for place in sorted(output.glob(f"*/{stem}.json"))] for stem in SCRIPTS}


def arguments(stem: str, doc: str) -> argparse.ArgumentParser:
    """What these scripts share of their command line: overrides, `--output`, `--name`, and `--read`."""
    found = parser(stem, doc)
    found.add_argument("overrides", nargs="*", help="as run.py takes them: base_model=… task.limit=50 …")
    found.add_argument("--read", action="store_true", help="show what was left before; nothing is measured")
    return found


def given(known: argparse.ArgumentParser, words: Sequence[str] | None) -> argparse.Namespace:
    """The command line as read, with `words`, which are it without places on this machine."""
    words = sys.argv[1:] if words is None else words
    asked = known.parse_intermixed_args(words)
    asked.words = [without_paths(word) for word in words]
    return asked


def kept(asked: argparse.Namespace, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the script shows: what it measures now and leaves in <name>/<stem>.json or, with `--read`, what it left.

    `command` is in it beside what `measure` says. UserError where there is nothing to read.
    """
    place, own = folder(asked) / f"{asked.stem}.json", f"python -m experiments.{asked.stem}"
    if not asked.read:
        write_json({"command": shlex.join([*own.split(), *asked.words])} | measure(), place)
    found = read_json(place)
    if found is None:
        raise UserError(f"there is no {place}: nothing was measured yet. First:\n  {own}")
    return found
