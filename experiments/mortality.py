"""Mortality: parents, Model Soup, SLERP, tabular and fine-tuned models in one table, ours beside published.

    python run.py experiment=mortality                        # run it
    python -m experiments.mortality                           # read it
    python -m experiments.mortality --output DIR --name NAME  # read one run with output=DIR name=NAME

λ is the one with the best AUROC on the pilot split, for each merge; everything is reported on the test split. Models
that were scored alone, in a sweep of merge=none called <name>_alone (see conf/pair), stand beside.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.table import Table

from experiments.published import Block, Line, area, beside, change, published, relative, sources
from experiments.reading import command, folder, parser, show
from experiments.study import Row, Run, Study, difference, last_sweep
from patientdx.core.errors import UserError
from patientdx.metrics.ranking import auprc, auroc

METRICS = {"auroc": auroc, "auprc": auprc}
MERGES = {"linear": "Model Soup", "slerp": "SLERP"}
TABULAR = ("tabular_gbm", "tabular_logistic")
FINETUNED = "finetuned"
BIOMEDICAL = "biomedical"  # what conf/pair calls the one further model whose score is published
TEST = "test"


def refuse_others(study: Study, alone: Study) -> None:
    """UserError where models scored alone were asked other questions than the study, or in another dtype."""

    def asked(run: Run) -> tuple:
        row = next((row for row in run.rows if row["split"] == TEST), None)
        if row is None:
            raise UserError(f"{run.folder} has no score on the {TEST} split.")
        rows = {name: rest[:2] for name, rest in run.answers(row["role"], TEST).items()}
        return row["task"], row["dtype"], rows

    own = asked(study.runs[0])
    if any(asked(run) != own for run in alone.runs):
        raise UserError(
            f"{alone.folder} has other questions, labels or another dtype than {study.folder}: one table shows one. "
            "Give the command of conf/pair the study's own task.*, seed, data and dtype, or take the folder away."
        )


def others(study: Study, alone: Study | None) -> Iterator[tuple[str, str, Row | None]]:
    """What the configuration calls each further model, and the model, with its row; None where it was not scored."""
    scored = {} if alone is None else {row["base"]: row for row in alone.rows if row["split"] == TEST}
    pair: Mapping[str, Any] = study.runs[0].config.get("pair") or {}
    for called, model in pair.items():
        if called not in ("name", "base_model", "pivot_model"):
            yield called, model, scored.get(model)


def lines(study: Study, alone: Study | None, block: Block, metric: str) -> list[Line]:
    """The table of one metric. UserError where a merge's λ cannot be chosen on pilot, or a parent was not scored."""
    end = "" if metric == "auroc" else f"_{metric}"
    cells = {name: block.cells[f"{name}{end}"] for name in ("base", "other", "pivot", "merged", "tabular", "finetuned")}
    gains = {name: block.cells[f"{name}{end}"] for name in ("gain", "over_finetuned")}
    parents = {role: study.row(role, TEST) for role in ("base", "pivot")}
    found = [Line(f"{role} ({row[role]})", area(row, metric), cells[role]) for role, row in parents.items()]
    unknown = replace(cells["other"], value=None, mark="U", source=None, conflict=None)
    for called, model, row in others(study, alone):
        own = "not run" if row is None else area(row, metric)
        found.append(Line(f"{called} ({model})", own, cells["other"] if called == BIOMEDICAL else unknown))
    chosen = {method: study.best(method) for method in MERGES if any(r["method"] == method for r in study.rows)}
    if not chosen:
        raise UserError(f"the last sweep in {study.folder} has neither merge=slerp nor merge=linear.")
    for method, row in chosen.items():
        found.append(Line(f"{MERGES[method]} λ={row['lambda']:g}", area(row, metric), cells["merged"]))
    rest = _rest(study)
    for role, row in rest.items():
        name = row["method"] if role == FINETUNED else role
        found.append(Line(name, area(row, metric), cells["finetuned" if role == FINETUNED else "tabular"]))
    better = max(parents, key=lambda role: parents[role][metric])
    for method, row in chosen.items():
        run = study.run_of(method, row["lambda"])
        found.append(_gain(run, f"{MERGES[method]} − {better}*", parents[better], gains["gain"], metric))
        for role, other in rest.items():
            cell = gains["over_finetuned"] if role == FINETUNED else block.cells["over_tabular"]
            found.append(_gain(run, f"{MERGES[method]} − {other['method']}", other, cell, metric))
    return found


def _rest(study: Study) -> dict[str, Row]:
    """Rows of the models that are no merge and no parent, as far as they were asked for."""
    return {
        row["role"]: row
        for row in study.rows
        if row["split"] == TEST and row["role"] in (*TABULAR, FINETUNED)
    }  # fmt: skip


def _gain(run: Run, name: str, other: Row, cell, metric: str) -> Line:
    found = difference(METRICS[metric], (run, "merged"), (run, other["role"]), TEST)
    return Line(name, change(found), cell, found, other[metric])


def notes(study: Study, found: Sequence[Line]) -> Iterator[str]:
    """What the tables need beside them."""
    yield (
        "Base, pivot and data are not the paper's unless you gave them, and what other papers measured is on other "
        "cohorts: directions can be compared, numbers cannot."
    )
    yield f"Ours: {study.described(TEST)}"
    differences = [line for line in found if line.difference is not None]
    yield f"Relative, AUROC: {', '.join(f'{line.name} {relative(line)}' for line in differences)}."
    yield "Direction: whether our interval is on the side that was published; unclear where it holds 0."
    yield "* the parent that is better on test: the harder comparison. A best λ of 0 or 1 is a parent itself."
    tuned = study.runs[0].config["finetune"]
    if tuned["name"] != "none":
        shown = "all" if tuned["examples"] is None else tuned["examples"]
        yield (
            f"Fine-tuned: {tuned['name']} from the {tuned['init_from']} model, {shown} examples of train, epochs: "
            f"{tuned['epochs']}. It was trained on records; a merge was not."
        )
    if not study.runs[0].config.get("pair"):
        yield "The default pair has no plain and no biomedical sibling; pair=patientdx_7b and the other pairs have."


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; 2 with one message where there is none to print."""
    asked = parser("mortality", __doc__)
    return show(lambda: contents(asked.parse_args(arguments)))


def contents(asked: Namespace) -> Iterator[Table | str]:
    """A table a metric, and the notes."""
    study, block = last_sweep(folder(asked), command(asked)), published("mortality")
    place = folder(asked).with_name(f"{asked.name}_alone")
    alone = last_sweep(place, "", by=("base",)) if place.is_dir() else None
    if alone is not None:
        refuse_others(study, alone)
    tables = {metric: lines(study, alone, block, metric) for metric in METRICS}
    for metric, found in tables.items():
        yield beside(found, metric.upper())
    yield from notes(study, tables["auroc"])
    yield from sources(block, [line for found in tables.values() for line in found])


if __name__ == "__main__":
    raise SystemExit(main())
