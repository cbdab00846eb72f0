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

from experiments.comparison import Pair, Section, best_merge, comparison, parent
from experiments.published import Block
from experiments.study import TEST, Study
from patientdx.core.errors import UserError

AGAINST = "slerp"


def section(study: Study, task: str) -> Section:
    """The table of one task. Raises UserError where SLERP or a rival to it is missing, or a λ cannot be chosen."""
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
    notes = (f"Ours: {study.described(TEST)}", *study.straight_lines())
    return Section((*parents, *merges.values(), *pairs), task, notes, "Relative to SLERP")


def sections(study: Study, block: Block, args: Namespace) -> Iterator[Section]:
    """A table for each task."""
    yield from (section(part, task) for task, part in study.parts("task").items())


main = comparison("ablation_merge", __doc__, sections, by=("task",))

if __name__ == "__main__":
    raise SystemExit(main())
