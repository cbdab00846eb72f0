"""SLERP against other merge methods, each at its best λ, on every task of the sweep: ours beside published.

    python run.py experiment=ablation_merge                        # run it
    python -m experiments.ablation_merge                           # read it
    python -m experiments.ablation_merge --output DIR --name NAME  # read one run with output=DIR name=NAME

λ is the one with the best AUROC on the pilot split, for each method and task; it is reported on the test split. The
curves are on the page <output>/ablation_merge/report.html.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

from experiments.comparison import (
    DIRECTION_NOTE,
    TEST,
    Line,
    Pair,
    best_merge,
    comparison_table,
    difference_line,
    parent,
    relative_note,
    score_line,
    source_notes,
    straight_lines_note,
)  # fmt: skip
from experiments.published import Block, published
from experiments.reading import Content, command, folder, script
from experiments.study import Study, last_sweep
from patientdx.core.errors import UserError

AGAINST = "slerp"


def lines(study: Study, block: Block) -> list[Line]:
    """The lines of one task. Raises UserError where SLERP or a rival to it is missing, or a λ cannot be chosen."""
    methods = study.methods
    if AGAINST not in methods or len(methods) < 2:
        raise UserError(
            f"the last sweep in {study.folder} has {', '.join(methods)}: SLERP is compared with other methods, so "
            "sweep both, as in merge=slerp,linear."
        )
    parents = [parent(study, role, "parent") for role in ("base", "pivot")]
    merges = {method: best_merge(study, method, "merged") for method in methods}
    pairs = [
        Pair(system, merges[AGAINST], "linear_drop" if method == "linear" else "other_drop")
        for method, system in merges.items()
        if method != AGAINST
    ]
    scores = [score_line(system, block) for system in (*parents, *merges.values())]
    return [*scores, *(difference_line(pair, block) for pair in pairs)]


def contents(args: Namespace) -> Iterator[Content]:
    """A table for each task with its notes, then what holds for all of them."""
    study, block = last_sweep(folder(args), command(args), by=("task",)), published("ablation_merge")
    task_lines: list[Line] = []
    for task, part in study.parts("task").items():
        task_lines = lines(part, block)
        yield comparison_table(task_lines, task)
        yield f"Ours: {part.described(TEST)}"
        yield relative_note(task_lines, "Relative to SLERP")
        yield from straight_lines_note(part)
    yield DIRECTION_NOTE
    yield from source_notes(block, task_lines)


main = script("ablation_merge", __doc__, contents)

if __name__ == "__main__":
    raise SystemExit(main())
