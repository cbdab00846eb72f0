"""What the script of every table shares: what it is asked, which command makes what it reads, and how it answers.

And which studies there are: each `conf/experiment/<stem>.yaml` is one.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

from patientdx.core.errors import UserError
from patientdx.core.tables import Table
from patientdx.reporting import provenance
from patientdx.reporting.runs import read

Content = Table | str
"""What a script shows: a table, or a line of text."""

FOLDER = Path(__file__).parent
CONF = FOLDER.parent / "conf"
OVERLAYS = CONF / "experiment"
# Sweeps that stand beside another one, in its table: by study what their names end in.
BESIDE = {"mortality": "_alone", "fewshot": "_steps"}


def stems() -> list[str]:
    """Every study, in the order of README.md's table; those that it does not name come last."""
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    place = {path.stem: table.find(f"experiment={path.stem}`") for path in OVERLAYS.glob("*.yaml")}
    return sorted(place, key=lambda stem: (place[stem] < 0, place[stem], stem))


def studies(output: Path) -> dict[str, list[str]]:
    """Names of the folders below `output` that hold a sweep, by study: its own name, or that and a word of one's own.

    Sweeps that stand beside another one, see BESIDE, are left to that.
    """
    found: dict[str, list[str]] = {stem: [] for stem in stems()}
    for place in sorted(output.glob("*/sweep")):
        name = place.parent.name
        of = study_of(name)
        if of is not None and not (of in BESIDE and name.endswith(BESIDE[of])):
            found[of].append(name)
    return found


def study_of(name: str) -> str | None:
    """The study that a folder of results is of, by its name: if it could be of two, the one with the longer name."""
    of = [stem for stem in stems() if name == stem or name.startswith(f"{stem}_")]
    return max(of, key=len, default=None)


def reader(stem: str) -> str | None:
    """The script that reads a study: its own, or of a variant (<stem>_<word>) the study's; None where there is none."""
    own = [one for one in stems() if stem == one or stem.startswith(f"{one}_")]
    return max((one for one in own if (FOLDER / f"{one}.py").is_file()), key=len, default=None)


def parser(stem: str, doc: str) -> argparse.ArgumentParser:
    """The arguments that all have, `--output` and `--name`, which are the run's; `doc` is the script's docstring."""
    found = argparse.ArgumentParser(prog=f"python -m experiments.{stem}", description=doc.splitlines()[0])
    found.add_argument("--output", type=Path, default=Path("outputs"), help="output= of the run")
    found.add_argument("--name", default=stem, help="name= of the run")
    found.set_defaults(stem=stem)
    return found


def folder(asked: argparse.Namespace) -> Path:
    """The study's folder."""
    return asked.output.expanduser() / asked.name


def command(asked: argparse.Namespace) -> str:
    """What makes the study that was asked for: as its runs kept it, else by its name."""
    where = "" if asked.output == Path("outputs") else f" output={asked.output}"
    return (made_by(folder(asked)) or by_name(asked.stem, asked.name)) + where


def by_name(stem: str, name: str) -> str:
    """The command of a study in the folder `name`, as far as that says; `stem`: whose script reads it."""
    # Of a variant with an overlay of its own, which another study's script reads, it is that overlay.
    of = study_of(name)
    stem = of if of is not None and of.startswith(stem) else stem
    words = ["python run.py", f"experiment={stem}"]
    if name == f"{stem}_small":
        words.append("size=small")
    elif name != stem:
        words.append(f"name={name}")
    return " ".join(words)


def made_by(folder: Path) -> str | None:
    """The command that made the last sweep in `folder`, by what its runs kept of it; no place on a machine is in it.

    What the overlay sweeps by itself is left out. None where nothing finished, where no one command makes just these
    runs, and where they did not keep what they were asked for.
    """
    try:
        lines = provenance.command(read(folder))
    except UserError:
        return None
    if len(lines) != 1:
        return None
    given = dict(word.split("=", 1) for word in shlex.split(lines[0]) if "=" in word)
    stem = given.pop("experiment", None)
    if stem is None or not (OVERLAYS / f"{stem}.yaml").is_file():
        return None
    swept = _swept(stem, given.get("size"))
    first = [f"{key}={given.pop(key)}" for key in ("size",) if key in given]
    own = [f"{key}={value}" for key, value in given.items() if swept.get(key) != _values(value)]
    return " ".join(["python run.py", f"experiment={stem}", *map(shlex.quote, [*first, *own])])


def _swept(stem: str, size: str | None) -> dict[str, set[str]]:
    """What an overlay sweeps, by key."""
    files = [OVERLAYS / f"{stem}.yaml", *([CONF / "size_of" / f"{stem}_{size}.yaml"] if size else [])]
    found: dict[str, set[str]] = {}
    for node in (yaml.safe_load(file.read_text(encoding="utf-8")) for file in files if file.is_file()):
        params = ((node.get("hydra") or {}).get("sweeper") or {}).get("params") or {}
        found |= {key: _values(value) for key, value in params.items()}
    return found


def _values(swept: object) -> set[str]:
    return {one.strip() for one in str(swept).split(",")}


def option(*flags: str, **keywords: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """One more argument of a script, as argparse's `add_argument` takes it."""
    return flags, keywords


def script(
    stem: str, doc: str, contents: Callable[[argparse.Namespace], Iterable[Content]], *options: tuple
) -> Callable[[Sequence[str] | None], int]:
    """The `main` of a study's script: reads the command line, and shows what `contents` gives for it.

    `main` returns 0, and 2 with one message on stderr where `contents` raises UserError.
    """

    def main(arguments: Sequence[str] | None = None) -> int:
        """Print tables and notes; 2 with one message where there is nothing to print."""
        known = parser(stem, doc)
        for flags, keywords in options:
            known.add_argument(*flags, **keywords)
        args = known.parse_args(arguments)
        return show(lambda: contents(args))

    return main


def show(contents: Callable[[], Iterable[Content]]) -> int:
    """Print what `contents` gives, tables and lines; 0. Where it refuses, one message instead of all of it; 2."""
    try:
        parts = list(contents())
    except UserError as error:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(str(error))
        return 2
    console = Console(highlight=False, markup=False)
    for part in parts:
        console.print(part if isinstance(part, str) else rich_table(part), soft_wrap=isinstance(part, str))
    return 0


def rich_table(table: Table) -> RichTable:
    """The table for a terminal; the columns share its width."""
    shown = RichTable(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=table.title or None, title_justify="left")
    for index, column in enumerate(table.columns):
        shown.add_column(column.heading, justify=column.align, no_wrap=index < table.keys)
    for row in table.rows:
        shown.add_row(*(cell.text for cell in row))
    return shown
