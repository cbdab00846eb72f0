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
from collections.abc import Iterator
from dataclasses import replace

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
)  # fmt: skip
from experiments.published import Block, published
from experiments.reading import Content, command, folder, script
from experiments.study import Study, last_sweep
from patientdx.core.errors import UserError


def lines(study: Study, block: Block) -> list[Line]:
    """The lines of the table.

    Raises UserError for fewer than two pivots, more than one method, or a λ that cannot be chosen.
    """
    parts, methods = study.parts("pivot"), study.methods
    if len(parts) < 2 or len(methods) > 1:
        raise UserError(
            f"the last sweep in {study.folder} has {len(parts)} pivots and {len(methods)} merge methods: replacing the "
            "pivot takes two pivots at least and one method, as in pivot_model=a,b merge=slerp."
        )
    first, systems, merges = next(iter(parts)), [parent(study, "base", "base", named=True)], {}
    for pivot, part in parts.items():
        alone = parent(part, "pivot", "pivot" if pivot == first else "other_pivot")
        merge = best_merge(part, methods[0], "merged" if pivot == first else "replaced", f"{methods[0]} with {pivot},")
        merges[pivot] = replace(merge, short=f"with {pivot}")
        systems += [replace(alone, name=f"{pivot} alone"), merge]
    # The base is taken from the run of the merge that it is compared with.
    pairs = [Pair(merge, replace(systems[0], run=merge.run), "over_base") for merge in merges.values()]
    pairs += [Pair(merge, merges[first], "drop") for pivot, merge in merges.items() if pivot != first]
    return [*(score_line(system, block) for system in systems), *(difference_line(pair, block) for pair in pairs)]


def contents(args: Namespace) -> Iterator[Content]:
    """The table and its notes."""
    study, block = last_sweep(folder(args), command(args), by=("pivot",)), published("ablation_pivot")
    table_lines = lines(study, block)
    yield comparison_table(table_lines)
    yield f"Ours: {study.described(TEST)} λ of each pivot is its best on the pilot split."
    yield relative_note(table_lines)
    yield (
        f"{DIRECTION_NOTE} A pivot of noise has the first pivot's size in every matrix and random directions: where it "
        "does no worse, what the first one learnt has not shown."
    )
    yield from source_notes(block, table_lines)


main = script("ablation_pivot", __doc__, contents)

if __name__ == "__main__":
    raise SystemExit(main())
