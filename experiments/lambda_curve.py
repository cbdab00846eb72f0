"""The λ curve of PatientDx: SLERP and Model Soup between two parents, ours beside published.

    python run.py experiment=lambda_curve                        # run it
    python -m experiments.lambda_curve                           # read it
    python -m experiments.lambda_curve --output DIR --name NAME  # read one run with output=DIR name=NAME

λ is the one with the best AUROC on the pilot split, for each method; it is reported on the test split.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.published import ABSENT, MARKS, Block, Cell, published
from experiments.study import Run, Study, difference, last_sweep, refuse_shared_patients
from patientdx.metrics.bootstrap import Interval
from patientdx.metrics.ranking import auroc
from patientdx.refusal import Refusal
from patientdx.report import choose

METHODS = {"slerp": "SLERP", "linear": "linear"}
NOT_RUN = "not run"
CAVEAT = (
    "Base, pivot and data are not the paper's, so the numbers cannot be compared, only directions: of the gain over "
    "the parents, and of SLERP over linear."
)


@dataclass(frozen=True)
class Line:
    """One line of the table: what it is, ours as text, the published cell; for a difference, also what it is from."""

    name: str
    ours: str
    cell: Cell
    difference: Interval | None = None
    reference: float | None = None

    @property
    def direction(self) -> str:
        """What our interval says of the published direction."""
        if self.difference is None or self.cell.direction is None:
            return ""
        low, high = sorted(self.cell.direction * end for end in (self.difference.low, self.difference.high))
        if low > 0:
            return "same"
        return "opposite" if high < 0 else "unclear"


def compare(study: Study, block: Block, *, chosen_on: str, reported_on: str) -> list[Line]:
    """The lines of the table. Refusal where λ was chosen on the split that is reported, or a score is missing."""
    best = {}
    for method in METHODS:
        rows = [row for row in study.rows if row["role"] == "merged" and row["method"] == method]
        if rows or chosen_on == reported_on:
            best[method] = choose(rows, "auroc", chosen_on=chosen_on, reported_on=reported_on)
    if not best:
        raise Refusal(f"the last sweep in {study.folder} has neither merge=slerp nor merge=linear")
    refuse_shared_patients(study.runs[0], chosen_on, reported_on)
    return list(_lines(study, block.cells, best, chosen_on, reported_on))


def _lines(
    study: Study, cells: dict[str, Cell], best: dict[str, Any], chosen_on: str, reported_on: str
) -> Iterator[Line]:
    parents = {role: study.row(role, reported_on) for role in ("base", "pivot")}
    for role, row in parents.items():
        yield Line(role, _value(row), cells[role])
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
        yield Line(names[1], _value(best[method]["row"]), of_method[1])
        yield Line(names[2], _change(gain), of_method[2], gain, parents[better]["auroc"])
    if len(runs) < len(METHODS):
        yield Line("SLERP − linear", NOT_RUN, cells["slerp_over_linear"])
    else:
        gap = difference(auroc, (runs["slerp"], "merged"), (runs["linear"], "merged"), reported_on)
        reference = best["linear"]["row"]["auroc"]
        yield Line("SLERP − linear", _change(gap), cells["slerp_over_linear"], gap, reference)
    yield Line("prevalence", f"{parents['base']['prevalence']:.3f}", cells["prevalence"])


def table(lines: Sequence[Line]) -> Table:
    """Ours beside published, with the mark of each published number."""
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("", "ours", "published", "mark", "direction"):
        shown.add_column(name, justify="right" if name in ("ours", "published") else "left", no_wrap=name == "ours")
    for line in lines:
        shown.add_row(line.name, line.ours, line.cell.text, line.cell.mark, line.direction)
    return shown


def notes(study: Study, block: Block, lines: Sequence[Line], reported_on: str) -> Iterator[str]:
    """What the table needs beside it: what it cannot say, what ours are, where the published numbers are from."""
    row = study.row("base", reported_on)
    config = study.runs[0].config
    level = config["bootstrap"]["level"]
    yield CAVEAT
    yield (
        f"Ours: {row['task']}, base {row['base']}, pivot {row['pivot']}, {row['dtype']}; {reported_on}: {row['n']} rows"
        f" of {row['patients']} patients, {row['events']} events; {level:.0%} intervals by patient bootstrap; "
        "differences are paired."
    )
    differences = [line for line in lines if line.difference is not None]
    relative = [f"{line.name} {100 * line.difference.value / line.reference:+.1f} %" for line in differences]
    yield f"Relative to the second: {', '.join(relative)}."
    yield "Direction: whether our interval is on the side that was published; unclear where it holds 0."
    yield f"* the parent that is better on {reported_on}: the harder comparison. A best λ of 0 or 1 is a parent itself."
    angles = next((run.straight_lines for run in study.runs if run.straight_lines), None)
    if angles:
        yield f"SLERP took a straight line, which is the linear merge, for {angles[0]} of {angles[1]} tensors."
    yield f"Published: {block.paper}; {block.setting}."
    for line in lines:
        if line.cell.value is not None:
            yield f"{line.name}: {line.cell.source}." + (f" {line.cell.conflict}" if line.cell.conflict else "")
    yield f"{ABSENT.capitalize()}: not published, or not in what of the paper could be read."
    yield "Marks: " + ", ".join(f"{mark} {meaning}" for mark, meaning in MARKS.items()) + "."


def _value(row: dict[str, Any]) -> str:
    return f"{row['auroc']:.3f} [{row['auroc_ci_low']:.3f}, {row['auroc_ci_high']:.3f}]"


def _change(found: Interval) -> str:
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 2 with one message where there is none to print."""
    parser = argparse.ArgumentParser(prog="python -m experiments.lambda_curve", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="output= of the run")
    parser.add_argument("--name", default="lambda_curve", help="name= of the run")
    parser.add_argument("--chosen-on", default="pilot", help="split on which λ is chosen")
    parser.add_argument("--reported-on", default="test", help="split on which it is reported")
    asked = parser.parse_args(arguments)
    command = "python run.py experiment=lambda_curve"
    command += "" if asked.name == "lambda_curve" else f" name={asked.name}"
    command += "" if asked.output == Path("outputs") else f" output={asked.output}"
    try:
        study = last_sweep(asked.output.expanduser() / asked.name, command)
        block = published("lambda_curve")
        lines = compare(study, block, chosen_on=asked.chosen_on, reported_on=asked.reported_on)
    except Refusal as fault:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(str(fault))
        return 2
    console = Console(highlight=False, markup=False)
    console.print(f"{asked.name}: {len(study.runs)} runs")
    console.print(table(lines))
    for note in notes(study, block, lines, asked.reported_on):
        console.print(note, soft_wrap=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
