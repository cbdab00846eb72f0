"""SLERP against other merge methods, each at its best λ, on every task of the sweep: ours beside published.

    python run.py experiment=ablation_merge                        # run it
    python -m experiments.ablation_merge                           # read it
    python -m experiments.ablation_merge --output DIR --name NAME  # read one run with output=DIR name=NAME

λ is the one with the best AUROC on the pilot split, for each method and task; it is reported on the test split. The
curves are on the page <output>/ablation_merge/report.html.
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

AGAINST = "slerp"
TEST = "test"


def lines(study: Study, block: Block) -> list[Line]:
    """The lines of one task. UserError where SLERP or a rival to it is missing, or a λ cannot be chosen."""
    methods = list(dict.fromkeys(row["method"] for row in study.rows if row["role"] == "merged"))
    if AGAINST not in methods or len(methods) < 2:
        raise UserError(
            f"the last sweep in {study.folder} has {', '.join(methods)}: SLERP is compared with other methods, so "
            "sweep both, as in merge=slerp,linear."
        )
    cells = block.cells
    chosen = {method: study.best(method) for method in methods}
    runs = {method: study.run_of(method, chosen[method]["lambda"]) for method in methods}
    found = [Line(role, area(study.row(role, TEST)), cells["parent"]) for role in ("base", "pivot")]
    for method, row in chosen.items():
        found.append(Line(f"{method} λ={row['lambda']:g}", area(row), cells["merged"]))
    for method in methods:
        if method != AGAINST:
            lost = difference(auroc, (runs[method], "merged"), (runs[AGAINST], "merged"), TEST)
            cell = cells["linear_drop" if method == "linear" else "other_drop"]
            found.append(Line(f"{method} − {AGAINST}", change(lost), cell, lost, chosen[AGAINST]["auroc"]))
    return found


def notes(study: Study, found: Sequence[Line]) -> Iterator[str]:
    """What the table of one task needs beside it."""
    yield f"Ours: {study.described(TEST)}"
    differences = [line for line in found if line.difference is not None]
    yield f"Relative to SLERP: {', '.join(f'{line.name} {relative(line)}' for line in differences)}."
    angles = next((run.straight_lines for run in study.runs if run.straight_lines), None)
    if angles:
        yield f"SLERP took a straight line, which is the linear merge, for {angles[0]} of {angles[1]} tensors."


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; 2 with one message where there is none to print."""
    asked = parser("ablation_merge", __doc__)
    return show(lambda: contents(asked.parse_args(arguments)))


def contents(asked: Namespace) -> Iterator[Table | str]:
    """A table a task, each with its notes; what holds for all of them at the end."""
    study, block = last_sweep(folder(asked), command(asked), by=("task",)), published("ablation_merge")
    found: list[Line] = []
    for task, part in study.parts("task").items():
        found = lines(part, block)
        yield beside(found, task)
        yield from notes(part, found)
    yield "Direction: whether our interval is on the side that was published; unclear where it holds 0."
    yield from sources(block, found)


if __name__ == "__main__":
    raise SystemExit(main())
