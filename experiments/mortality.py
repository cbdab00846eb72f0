"""Mortality: parents, Model Soup, SLERP, tabular and fine-tuned models in one table, ours beside published.

    python run.py experiment=mortality                        # run it
    python -m experiments.mortality                           # read it
    python -m experiments.mortality --output DIR --name NAME  # read one run with output=DIR name=NAME

λ is the one with the best AUROC on the pilot split, for each merge; everything is reported on the test split. Models
that were scored alone, in a sweep of merge=none called <name>_alone (see conf/pair), stand beside.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from experiments.comparison import (
    BETTER_PARENT,
    METRICS,
    Entry,
    Line,
    Pair,
    Section,
    System,
    best_merge,
    comparison,
    parent,
    score_text,
)
from experiments.published import Block
from experiments.reading import folder
from experiments.study import TEST, Row, Run, Study, last_sweep
from patientdx.core.errors import UserError

MERGES = {"linear": "Model Soup", "slerp": "SLERP"}
TABULAR = ("tabular_gbm", "tabular_logistic")
FINETUNED = "finetuned"
BIOMEDICAL = "biomedical"  # what conf/pair calls the one further model whose score is published


def refuse_others(study: Study, alone: Study) -> None:
    """UserError where models scored alone were asked other questions than the study, or in another dtype."""

    def questions(run: Run) -> tuple:
        row = next((row for row in run.rows if row["split"] == TEST), None)
        if row is None:
            raise UserError(f"{run.folder} has no score on the {TEST} split.")
        rows = {name: rest[:2] for name, rest in run.answers(row["role"], TEST).items()}
        return row["task"], row["dtype"], rows

    expected = questions(study.runs[0])
    if any(questions(run) != expected for run in alone.runs):
        raise UserError(
            f"{alone.folder} has other questions, labels or another dtype than {study.folder}: one table shows one. "
            "Give the command of conf/pair the study's own task.*, seed, data and dtype, or take the folder away."
        )


def others(study: Study, alone: Study | None) -> Iterator[tuple[str, str, Row | None]]:
    """What the configuration calls each further model, and the model, with its row; None where it was not scored."""
    scored = {} if alone is None else {row["base"]: row for row in alone.rows if row["split"] == TEST}
    pair: Mapping[str, Any] = study.runs[0].config.get("pair") or {}
    for title, model in pair.items():
        if title not in ("name", "base_model", "pivot_model"):
            yield title, model, scored.get(model)


def entries(study: Study, alone: Study | None, block: Block, metric: str) -> list[Entry]:
    """The entries of the table of one metric.

    Raises UserError where a merge's λ cannot be chosen on pilot, or a parent was not scored.
    """
    end = "" if metric == "auroc" else f"_{metric}"
    parents = [parent(study, role, f"{role}{end}", named=True) for role in ("base", "pivot")]
    merges = [best_merge(study, method, f"merged{end}", MERGES[method]) for method in MERGES if method in study.methods]
    if not merges:
        raise UserError(f"the last sweep in {study.folder} has neither merge=slerp nor merge=linear.")
    rivals = [
        System(row["method"], row["method"], row, merges[0].run, row["role"],
               f"{FINETUNED if row['role'] == FINETUNED else 'tabular'}{end}")
        for row in _rest(study).values()
    ]  # fmt: skip
    better = max(parents, key=lambda system: system.row[metric])
    pairs = []
    for merge in merges:
        pairs.append(Pair(merge, replace(better, run=merge.run), f"gain{end}", "*"))
        for rival in rivals:
            cell = f"over_finetuned{end}" if rival.role == FINETUNED else "over_tabular"
            pairs.append(Pair(merge, replace(rival, run=merge.run), cell))
    unknown = replace(block.cells[f"other{end}"], value=None, mark="U", source=None, conflict=None)
    further = [
        Line(f"{title} ({model})", "not run" if row is None else score_text(row, metric),
             block.cells[f"other{end}"] if title == BIOMEDICAL else unknown)
        for title, model, row in others(study, alone)
    ]  # fmt: skip
    return [*parents, *further, *merges, *rivals, *pairs]


def _rest(study: Study) -> dict[str, Row]:
    """Rows of the models that are no merge and no parent, as far as they were asked for."""
    return {
        row["role"]: row
        for row in study.rows
        if row["split"] == TEST and row["role"] in (*TABULAR, FINETUNED)
    }  # fmt: skip


def notes(study: Study) -> Iterator[str]:
    """What the tables need beside them."""
    yield (
        "Base, pivot and data are not the paper's unless you gave them, and what other papers measured is on other "
        "cohorts: directions can be compared, numbers cannot."
    )
    yield f"Ours: {study.described(TEST)}"
    tuned = study.runs[0].config["finetune"]
    if tuned["name"] != "none":
        examples = "all" if tuned["examples"] is None else tuned["examples"]
        yield (
            f"Fine-tuned: {tuned['name']} from the {tuned['init_from']} model, {examples} examples of train, epochs: "
            f"{tuned['epochs']}. It was trained on records; a merge was not."
        )
    if not study.runs[0].config.get("pair"):
        yield "The default pair has no plain and no biomedical sibling; pair=patientdx_7b and the other pairs have."


def sections(study: Study, block: Block, args: Namespace) -> Iterator[Section]:
    """A table for each metric; the notes stand under the first."""
    path = folder(args).with_name(f"{args.name}_alone")
    alone = last_sweep(path, "", by=("base",)) if path.is_dir() else None
    if alone is not None:
        refuse_others(study, alone)
    first, *others = METRICS
    relative = f"Relative, {first.upper()}"
    yield Section(entries(study, alone, block, first), first.upper(), tuple(notes(study)), relative, first)
    for metric in others:
        yield Section(entries(study, alone, block, metric), metric.upper(), (), None, metric)


main = comparison("mortality", __doc__, sections, notes=(BETTER_PARENT.format(split=TEST),))

if __name__ == "__main__":
    raise SystemExit(main())
