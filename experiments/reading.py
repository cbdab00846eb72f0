"""What the script of every table shares: what it is asked, which command makes what it reads, and how it answers.

And which studies there are: each `conf/experiment/<stem>.yaml` is one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console, RenderableType

from patientdx.refusal import Refusal

FOLDER = Path(__file__).parent
OVERLAYS = FOLDER.parent / "conf" / "experiment"


def stems() -> list[str]:
    """Every study, in the order of README.md's table; those that it does not name come last."""
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    place = {path.stem: table.find(f"experiment={path.stem}`") for path in OVERLAYS.glob("*.yaml")}
    return sorted(place, key=lambda stem: (place[stem] < 0, place[stem], stem))


def studies(output: Path) -> dict[str, list[str]]:
    """Names of the folders below `output` that hold a sweep, by study: its own name, or that and a word of one's own.

    A name that could be of two studies is of the one with the longer name. Sweeps that stand beside another one, called
    <name>_alone, are left to that.
    """
    known = sorted(stems(), key=len, reverse=True)
    found: dict[str, list[str]] = {stem: [] for stem in stems()}
    for place in sorted(output.glob("*/sweep")):
        name = place.parent.name
        of = next((stem for stem in known if name == stem or name.startswith(f"{stem}_")), None)
        if of is not None and not name.endswith("_alone"):
            found[of].append(name)
    return found


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
    """What makes the study that was asked for."""
    words = ["python run.py", f"experiment={asked.stem}"]
    if asked.name == f"{asked.stem}_small":
        words.append("size=small")
    elif asked.name != asked.stem:
        words.append(f"name={asked.name}")
    words += [] if asked.output == Path("outputs") else [f"output={asked.output}"]
    return " ".join(words)


def show(contents: Callable[[], Iterable[RenderableType]]) -> int:
    """Print what `contents` gives, tables and lines; 0. Where it refuses, one message instead of all of it; 2."""
    try:
        found = list(contents())
    except Refusal as fault:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(str(fault))
        return 2
    console = Console(highlight=False, markup=False)
    for one in found:
        console.print(one, soft_wrap=isinstance(one, str))
    return 0
