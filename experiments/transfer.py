"""λ chosen on one task and used on others: base, pivot and merged on each, beside the λ of the task's own pilot.

    python run.py experiment=transfer                        # run it
    python -m experiments.transfer                           # read it
    python -m experiments.transfer --output DIR --name NAME  # read one run with output=DIR name=NAME
    python -m experiments.transfer --task mortality_hospital # λ of another task than the first of the sweep

Patients who chose λ, on any task, are in no test split that it is reported on.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from experiments.comparison import change_text, score_table, score_text, source_notes
from experiments.published import published
from experiments.reading import Content, command, folder, option, script
from experiments.study import PILOT, TEST, Row, Study, difference, last_sweep, refuse_shared_patients
from patientdx.core.errors import UserError
from patientdx.core.tables import Table
from patientdx.metrics.bootstrap import Interval
from patientdx.metrics.ranking import auroc


@dataclass(frozen=True)
class Transferred:
    """One task: rows on test of both parents and of the merge at either λ; what the transferred λ gains."""

    task: str
    base: Row
    pivot: Row
    transferred: Row
    own: Row
    over_base: Interval
    over_own: Interval


def transfers(study: Study, source: str | None = None) -> dict[str, list[Transferred]]:
    """Every task by merge method, the one that gives λ first. UserError where its λ was not run on another task."""
    parts = study.parts("task")
    source = next(iter(parts)) if source is None else source
    if source not in parts or len(parts) < 2:
        raise UserError(
            f"the last sweep in {study.folder} is of {', '.join(parts)}: λ goes from {source} to other tasks, so "
            "sweep it and others, as in task=mortality,readmission_30d."
        )
    order = [source, *(task for task in parts if task != source)]
    methods = dict.fromkeys(row["method"] for row in study.rows if row["role"] == "merged")
    return {method: [_transferred(parts, method, source, task) for task in order] for method in methods}


def _transferred(parts: Mapping[str, Study], method: str, source: str, task: str) -> Transferred:
    from_task, to_task = parts[source], parts[task]
    weight = from_task.best(method)["lambda"]
    run, own = to_task.run_of(method, weight), to_task.best(method)
    refuse_shared_patients(from_task.run_of(method, weight), PILOT, TEST, run)
    return Transferred(
        task,
        to_task.row("base", TEST),
        to_task.row("pivot", TEST),
        next(row for row in run.rows if (row["role"], row["split"]) == ("merged", TEST)),
        own,
        difference(auroc, (run, "merged"), (run, "base"), TEST),
        difference(auroc, (run, "merged"), (to_task.run_of(method, own["lambda"]), "merged"), TEST),
    )


def tables(method: str, found: Sequence[Transferred]) -> tuple[Table, Table]:
    """What each model scores on each task, and what the transferred λ gains."""
    given = f"λ={found[0].transferred['lambda']:g}"
    score_title, score_names = (
        f"AUROC on test, {method}, {given} of {found[0].task}",
        ("base", "pivot", given, "own λ"),
    )
    scores, gains = [], []
    for one in found:
        own = f"{one.own['lambda']:g}: {score_text(one.own)}"
        scores.append((one.task, score_text(one.base), score_text(one.pivot), score_text(one.transferred), own))
        gains.append((one.task, change_text(one.over_base), change_text(one.over_own)))
    return (
        score_table(score_title, ("", *score_names), scores),
        score_table("The same, paired differences", ("", "over the base", "over own λ"), gains),
    )


def verdict(found: Sequence[Transferred]) -> str:
    """What the intervals say of the tasks that did not choose λ."""
    worse = [one.task for one in found[1:] if one.over_own.high < 0]
    better = [one.task for one in found[1:] if one.over_base.low > 0]
    return (
        f"Beyond its interval, λ of {found[0].task} is better than the base on {', '.join(better) or 'no other task'}, "
        f"and worse than the task's own λ on {', '.join(worse) or 'none'}."
    )


def notes(study: Study, found: Sequence[Transferred]) -> Iterator[str]:
    """What the tables need beside them."""
    row = found[0].base
    level = study.runs[0].config["bootstrap"]["level"]
    sizes = ", ".join(f"{one.task} {one.base['n']} rows, {one.base['events']} events" for one in found)
    yield (
        f"Base {row['base']}, pivot {row['pivot']}, {row['dtype']}. Test: {sizes}. {level:.0%} intervals by patient "
        "bootstrap; differences are paired."
    )
    yield (
        f"λ of {found[0].task} is the best on its pilot split, own λ that on the task's own. No patient of a pilot "
        "split is in a test split."
    )


def contents(args: Namespace) -> Iterator[Content]:
    """A table a merge method, and the notes."""
    study = last_sweep(folder(args), command(args), by=("task",))
    block = published("transfer")
    for method, found in transfers(study, args.task).items():
        yield from tables(method, found)
        yield verdict(found)
    yield from notes(study, found)
    yield f"Gain on tasks that did not choose λ: {block.cells['gain'].text}."
    yield from source_notes(block, [])


main = script(
    "transfer",
    __doc__,
    contents,
    option("--task", help="whose pilot split chooses λ; without it the first task of the sweep"),
)

if __name__ == "__main__":
    raise SystemExit(main())
