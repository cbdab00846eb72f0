"""The λ curve of PatientDx: SLERP and Model Soup between two parents, ours beside published.

    python run.py experiment=lambda_curve                        # run it
    python -m experiments.lambda_curve                           # read it
    python -m experiments.lambda_curve --output DIR --name NAME  # read one run with output=DIR name=NAME

λ is the one with the best AUROC on the pilot split, for each method; it is reported on the test split.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from experiments.published import Block, Cell, Line, area, beside, change, published, relative, sources
from experiments.reading import command, folder, parser, show
from experiments.study import Run, Study, difference, last_sweep, refuse_shared_patients
from patientdx.core.errors import UserError
from patientdx.metrics.ranking import auroc
from patientdx.reporting import choose

METHODS = {"slerp": "SLERP", "linear": "linear"}
NOT_RUN = "not run"
CAVEAT = (
    "Base, pivot and data are not the paper's, so the numbers cannot be compared, only directions: of the gain over "
    "the parents, and of SLERP over linear."
)


def compare(study: Study, block: Block, *, chosen_on: str, reported_on: str) -> list[Line]:
    """The lines of the table. UserError where λ was chosen on the split that is reported, or a score is missing."""
    best = {}
    for method in METHODS:
        rows = [row for row in study.rows if row["role"] == "merged" and row["method"] == method]
        if rows or chosen_on == reported_on:
            best[method] = choose(rows, "auroc", chosen_on=chosen_on, reported_on=reported_on)
    if not best:
        raise UserError(f"the last sweep in {study.folder} has neither merge=slerp nor merge=linear")
    refuse_shared_patients(study.runs[0], chosen_on, reported_on)
    return list(_lines(study, block.cells, best, chosen_on, reported_on))


def _lines(
    study: Study, cells: dict[str, Cell], best: dict[str, Any], chosen_on: str, reported_on: str
) -> Iterator[Line]:
    parents = {role: study.row(role, reported_on) for role in ("base", "pivot")}
    for role, row in parents.items():
        yield Line(role, area(row), cells[role])
    better = max(parents, key=lambda role: parents[role]["auroc"])
    runs: dict[str, Run] = {}
    for method, title in METHODS.items():
        names = f"{title} λ ({chosen_on})", f"{title} AUROC", f"{title} − {better}*"
        of_method = [cells[f"{method}_{what}"] for what in ("lambda", "auroc", "gain")]
        if method not in best:
            yield from (Line(name, NOT_RUN, cell) for name, cell in zip(names, of_method, strict=True))
            continue
        run = runs[method] = study.run_of(method, best[method]["lambda"])
        gain = difference(auroc, (run, "merged"), (run, better), reported_on)
        yield Line(names[0], f"{best[method]['lambda']:g}", of_method[0])
        yield Line(names[1], area(best[method]["row"]), of_method[1])
        yield Line(names[2], change(gain), of_method[2], gain, parents[better]["auroc"])
    if len(runs) < len(METHODS):
        yield Line("SLERP − linear", NOT_RUN, cells["slerp_over_linear"])
    else:
        gap = difference(auroc, (runs["slerp"], "merged"), (runs["linear"], "merged"), reported_on)
        reference = best["linear"]["row"]["auroc"]
        yield Line("SLERP − linear", change(gap), cells["slerp_over_linear"], gap, reference)
    yield Line("prevalence", f"{parents['base']['prevalence']:.3f}", cells["prevalence"])


def notes(study: Study, block: Block, lines: Sequence[Line], reported_on: str) -> Iterator[str]:
    """What the table needs beside it: what it cannot say, what ours are, where the published numbers are from."""
    yield CAVEAT
    yield f"Ours: {study.described(reported_on)}"
    differences = [line for line in lines if line.difference is not None]
    yield f"Relative to the second: {', '.join(f'{line.name} {relative(line)}' for line in differences)}."
    yield "Direction: whether our interval is on the side that was published; unclear where it holds 0."
    yield f"* the parent that is better on {reported_on}: the harder comparison. A best λ of 0 or 1 is a parent itself."
    angles = next((run.straight_lines for run in study.runs if run.straight_lines), None)
    if angles:
        yield f"SLERP took a straight line, which is the linear merge, for {angles[0]} of {angles[1]} tensors."
    yield from sources(block, lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 2 with one message where there is none to print."""
    asked = parser("lambda_curve", __doc__)
    asked.add_argument("--chosen-on", default="pilot", help="split on which λ is chosen")
    asked.add_argument("--reported-on", default="test", help="split on which it is reported")
    return show(lambda: contents(asked.parse_args(arguments)))


def contents(asked: Namespace) -> Iterator[Table | str]:
    """The table and its notes."""
    study, block = last_sweep(folder(asked), command(asked)), published("lambda_curve")
    lines = compare(study, block, chosen_on=asked.chosen_on, reported_on=asked.reported_on)
    yield beside(lines)
    yield from notes(study, block, lines, asked.reported_on)


if __name__ == "__main__":
    raise SystemExit(main())
