"""The λ curve of PatientDx: SLERP and Model Soup between two parents, ours beside published.

    python run.py experiment=lambda_curve                        # run it
    python -m experiments.lambda_curve                           # read it
    python -m experiments.lambda_curve --output DIR --name NAME  # read one run with output=DIR name=NAME

λ is the one with the best AUROC on the pilot split, for each method; it is reported on the test split.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

from experiments.comparison import BETTER_PARENT, Entry, Line, Pair, Section, best_merge, comparison, parent, score_text
from experiments.published import Block
from experiments.reading import option
from experiments.study import PILOT, TEST, Study, refuse_shared_patients
from patientdx.core.errors import UserError
from patientdx.evaluation.pilot_choice import choose

METHODS = {"slerp": "SLERP", "linear": "linear"}
NOT_RUN = "not run"
CAVEAT = (
    "Base, pivot and data are not the paper's, so the numbers cannot be compared, only directions: of the gain over "
    "the parents, and of SLERP over linear."
)


def sections(study: Study, block: Block, args: Namespace) -> Iterator[Section]:
    """The table.

    Raises UserError where λ was chosen on the split that is reported, or a score is missing.
    """
    splits = {"chosen_on": args.chosen_on, "reported_on": args.reported_on}
    methods = [method for method in METHODS if method in study.methods]
    if args.chosen_on == args.reported_on:
        choose([], **splits)  # says why that is refused
    if not methods:
        raise UserError(f"the last sweep in {study.folder} has neither merge=slerp nor merge=linear")
    refuse_shared_patients(study.runs[0], **splits)
    merges = {method: best_merge(study, method, f"{method}_auroc", METHODS[method], **splits) for method in methods}
    parents = [parent(study, role, role, split=args.reported_on) for role in ("base", "pivot")]
    better = max(parents, key=lambda system: system.row["auroc"])
    entries: list[Entry] = [*parents]
    for method, title in METHODS.items():
        names = f"{title} λ ({args.chosen_on})", f"{title} AUROC", f"{title} − {better.short}*"
        cells = [block.cells[f"{method}_{key}"] for key in ("lambda", "auroc", "gain")]
        if method not in merges:
            entries += [Line(name, NOT_RUN, cell) for name, cell in zip(names, cells, strict=True)]
            continue
        merge = merges[method]
        entries += [
            Line(names[0], f"{merge.row['lambda']:g}", cells[0]),
            Line(names[1], score_text(merge.row), cells[1]),
            Pair(merge, better, f"{method}_gain", "*"),
        ]
    if len(merges) < len(METHODS):
        entries.append(Line("SLERP − linear", NOT_RUN, block.cells["slerp_over_linear"]))
    else:
        entries.append(Pair(merges["slerp"], merges["linear"], "slerp_over_linear"))
    entries.append(Line("prevalence", f"{parents[0].row['prevalence']:.3f}", block.cells["prevalence"]))
    notes = (CAVEAT, f"Ours: {study.described(args.reported_on)}", *study.straight_lines())
    better_note = BETTER_PARENT.format(split=args.reported_on)
    yield Section(entries, notes=(*notes, better_note), split=args.reported_on)


main = comparison(
    "lambda_curve",
    __doc__,
    sections,
    option("--chosen-on", default=PILOT, help="split on which λ is chosen"),
    option("--reported-on", default=TEST, help="split on which it is reported"),
)

if __name__ == "__main__":
    raise SystemExit(main())
