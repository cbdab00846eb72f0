"""Is it numeracy or just noise? The pivot of a merge replaced by others, ours beside published.

    python -m experiments.pivots                                   # makes the default pair's pivot of noise
    python run.py experiment=ablation_pivot                        # run it
    python -m experiments.ablation_pivot                           # read it
    python -m experiments.ablation_pivot --output DIR --name NAME  # read one run with output=DIR name=NAME

Each pivot has the λ that is best for it on the pilot split; all are reported on the test split. The first pivot of the
sweep is the one that the others stand in for; without any pivot the base is left.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence

from rich.table import Table

from experiments.published import Block, Line, area, beside, change, published, relative, sources
from experiments.reading import command, folder, parser, show
from experiments.study import Study, difference, last_sweep
from patientdx.core.errors import UserError
from patientdx.metrics.ranking import auroc

TEST = "test"


def lines(study: Study, block: Block) -> list[Line]:
    """The lines of the table. UserError for fewer than two pivots, more than one method, or a λ that cannot be chosen."""
    parts = study.parts("pivot")
    methods = {row["method"] for row in study.rows if row["role"] == "merged"}
    if len(parts) < 2 or len(methods) > 1:
        raise UserError(
            f"the last sweep in {study.folder} has {len(parts)} pivots and {len(methods)} merge methods: replacing the "
            "pivot takes two pivots at least and one method, as in pivot_model=a,b merge=slerp."
        )
    (method,) = methods
    chosen = {pivot: part.best(method) for pivot, part in parts.items()}
    runs = {pivot: part.run_of(method, chosen[pivot]["lambda"]) for pivot, part in parts.items()}
    first, *replacing = parts
    base, cells = study.row("base", TEST), block.cells
    found = [Line(f"base ({base['base']})", area(base), cells["base"])]
    for pivot, part in parts.items():
        cell = cells["pivot" if pivot == first else "other_pivot"]
        found.append(Line(f"{pivot} alone", area(part.row("pivot", TEST)), cell))
        cell = cells["merged" if pivot == first else "replaced"]
        found.append(Line(f"{method} with {pivot}, λ={chosen[pivot]['lambda']:g}", area(chosen[pivot]), cell))
    for pivot in parts:
        gain = difference(auroc, (runs[pivot], "merged"), (runs[pivot], "base"), TEST)
        found.append(Line(f"with {pivot} − base", change(gain), cells["over_base"], gain, base["auroc"]))
    for pivot in replacing:
        lost = difference(auroc, (runs[pivot], "merged"), (runs[first], "merged"), TEST)
        name = f"with {pivot} − with {first}"
        found.append(Line(name, change(lost), cells["drop"], lost, chosen[first]["auroc"]))
    return found


def notes(study: Study, found: Sequence[Line]) -> Iterator[str]:
    """What the table needs beside it."""
    yield f"Ours: {study.described(TEST)} λ of each pivot is its best on the pilot split."
    differences = [line for line in found if line.difference is not None]
    yield f"Relative to the second: {', '.join(f'{line.name} {relative(line)}' for line in differences)}."
    yield (
        "Direction: whether our interval is on the side that was published; unclear where it holds 0. A pivot of noise "
        "has the first pivot's size in every matrix and random directions: where it does no worse, what the first one "
        "learnt has not shown."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 2 with one message where there is none to print."""
    asked = parser("ablation_pivot", __doc__)
    return show(lambda: contents(asked.parse_args(arguments)))


def contents(asked: Namespace) -> Iterator[Table | str]:
    """The table and its notes."""
    study, block = last_sweep(folder(asked), command(asked), by=("pivot",)), published("ablation_pivot")
    found = lines(study, block)
    yield beside(found)
    yield from notes(study, found)
    yield from sources(block, found)


if __name__ == "__main__":
    raise SystemExit(main())
