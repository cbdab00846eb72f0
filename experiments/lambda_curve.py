"""The λ curve of PatientDx: SLERP and Model Soup between two parents, ours beside published.

    python run.py experiment=lambda_curve                        # run it
    python -m experiments.lambda_curve                           # read it
    python -m experiments.lambda_curve --output DIR --name NAME  # read one run with output=DIR name=NAME

λ is the one with the best AUROC on the pilot split, for each method; it is reported on the test split.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

from experiments.comparison import (
    DIRECTION_NOTE,
    PILOT,
    TEST,
    Line,
    Pair,
    best_merge,
    comparison_table,
    difference_line,
    parent,
    relative_note,
    score_line,
    score_text,
    source_notes,
    straight_lines_note,
)  # fmt: skip
from experiments.published import Block, published
from experiments.reading import Content, command, folder, option, script
from experiments.study import Study, last_sweep, refuse_shared_patients
from patientdx.core.errors import UserError
from patientdx.evaluation.pilot_choice import choose

METHODS = {"slerp": "SLERP", "linear": "linear"}
NOT_RUN = "not run"
CAVEAT = (
    "Base, pivot and data are not the paper's, so the numbers cannot be compared, only directions: of the gain over "
    "the parents, and of SLERP over linear."
)


def lines(study: Study, block: Block, *, chosen_on: str, reported_on: str) -> list[Line]:
    """The lines of the table.

    Raises UserError where λ was chosen on the split that is reported, or a score is missing.
    """
    methods = [method for method in METHODS if method in study.methods]
    if chosen_on == reported_on:
        choose([], chosen_on=chosen_on, reported_on=reported_on)  # says why that is refused
    if not methods:
        raise UserError(f"the last sweep in {study.folder} has neither merge=slerp nor merge=linear")
    refuse_shared_patients(study.runs[0], chosen_on, reported_on)
    splits = {"chosen_on": chosen_on, "reported_on": reported_on}
    merges = {method: best_merge(study, method, f"{method}_auroc", METHODS[method], **splits) for method in methods}
    parents = {role: parent(study, role, role, split=reported_on) for role in ("base", "pivot")}
    better = max(parents.values(), key=lambda system: system.row["auroc"])
    table_lines = [score_line(system, block) for system in parents.values()]
    for method, title in METHODS.items():
        names = f"{title} λ ({chosen_on})", f"{title} AUROC", f"{title} − {better.short}*"
        cells = [block.cells[f"{method}_{key}"] for key in ("lambda", "auroc", "gain")]
        if method not in merges:
            table_lines += [Line(name, NOT_RUN, cell) for name, cell in zip(names, cells, strict=True)]
            continue
        merge = merges[method]
        table_lines += [
            Line(names[0], f"{merge.row['lambda']:g}", cells[0]),
            Line(names[1], score_text(merge.row), cells[1]),
        ]
        table_lines.append(difference_line(Pair(merge, better, f"{method}_gain", "*"), block, split=reported_on))
    if len(merges) < len(METHODS):
        table_lines.append(Line("SLERP − linear", NOT_RUN, block.cells["slerp_over_linear"]))
    else:
        pair = Pair(merges["slerp"], merges["linear"], "slerp_over_linear")
        table_lines.append(difference_line(pair, block, split=reported_on))
    prevalence = f"{parents['base'].row['prevalence']:.3f}"
    return [*table_lines, Line("prevalence", prevalence, block.cells["prevalence"])]


def contents(args: Namespace) -> Iterator[Content]:
    """The table and its notes."""
    study, block = last_sweep(folder(args), command(args)), published("lambda_curve")
    table_lines = lines(study, block, chosen_on=args.chosen_on, reported_on=args.reported_on)
    yield comparison_table(table_lines)
    yield CAVEAT
    yield f"Ours: {study.described(args.reported_on)}"
    yield relative_note(table_lines)
    yield DIRECTION_NOTE
    yield (
        f"* the parent that is better on {args.reported_on}: the harder comparison. A best λ of 0 or 1 is a parent "
        "itself."
    )
    yield from straight_lines_note(study)
    yield from source_notes(block, table_lines)


main = script(
    "lambda_curve",
    __doc__,
    contents,
    option("--chosen-on", default=PILOT, help="split on which λ is chosen"),
    option("--reported-on", default=TEST, help="split on which it is reported"),
)

if __name__ == "__main__":
    raise SystemExit(main())
