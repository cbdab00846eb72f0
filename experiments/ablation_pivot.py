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

from experiments.comparison import Pair, Section, best_merge, comparison, parent
from experiments.published import Block
from experiments.study import TEST, Study
from patientdx.core.errors import UserError


def sections(study: Study, block: Block, args: Namespace) -> Iterator[Section]:
    """The table.

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
    described = f"Ours: {study.described(TEST)} λ of each pivot is its best on the pilot split."
    yield Section((*systems, *pairs), notes=(described,))


NOISE_NOTE = (
    "A pivot of noise has the first pivot's size in every matrix and random directions: where it does no worse, what "
    "the first one learnt has not shown."
)
main = comparison("ablation_pivot", __doc__, sections, by=("pivot",), notes=(NOISE_NOTE,))

if __name__ == "__main__":
    raise SystemExit(main())
