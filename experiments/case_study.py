"""The case study: questions about a record, search among records, and risk, by base, pivot and merge; then patients.

    python run.py experiment=case_study                        # run it
    python -m experiments.case_study                           # read it
    python -m experiments.case_study --output DIR --name NAME  # read one run with output=DIR name=NAME
    python -m experiments.case_study --patients 5              # more of them, with what each model said

Patients are shown where their records are open: the synthetic hospital, the open demo. λ is not chosen here.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow.parquet as pq

from experiments.comparison import Line as PublishedLine
from experiments.comparison import change_text, score_table, score_text, source_notes
from experiments.published import published
from experiments.reading import Content, command, folder, option, script
from experiments.study import TEST, Run, Study, difference, last_sweep
from patientdx.core.errors import UserError
from patientdx.core.functions import dotted
from patientdx.core.tables import Table, model_name
from patientdx.evaluation.store import hashed
from patientdx.metrics.ranking import auroc
from patientdx.tasks.example import TaskData

ROLES = ("base", "merged", "pivot")
FIRST_STAGE = "bm25"
SHOWN = {
    "record_qa": ("match", "exact_match"),
    "record_search": ("ndcg_10", "map", "mrr", "recall_5"),
    "mortality": ("auroc",),
}
PATIENTS = 3
_NONE = "–"


@dataclass(frozen=True)
class Case:
    """One patient: the record as the questions show it, and a line for each thing asked, by model."""

    name: str
    record: str
    lines: list[tuple[str, ...]]


def run_of(study: Study) -> dict[str, Run]:
    """The one run of each task. UserError where one is missing, or several merges would need several tables."""
    parts = study.parts("task")
    missing = [task for task in SHOWN if task not in parts]
    if missing:
        raise UserError(
            f"the last sweep in {study.folder} has no {' and no '.join(missing)}: a case study is of "
            f"{', '.join(SHOWN)}, as experiment=case_study sweeps them."
        )
    several = [task for task in SHOWN if len(parts[task].runs) > 1]
    if several:
        raise UserError(
            f"the last sweep in {study.folder} has {len(parts[several[0]].runs)} merges for {several[0]}, and a case "
            "study shows one: give one lambda and one merge."
        )
    return {task: parts[task].runs[0] for task in SHOWN}


def numbers(runs: Mapping[str, Run]) -> Table:
    """Every metric by model with its interval, and the merge less the base, paired."""
    cells = []
    for task, run in runs.items():
        rows = {row["role"]: row for row in run.rows if row["split"] == TEST}
        lacking = [role for role in ROLES if role not in rows]
        if lacking:
            raise UserError(f"{run.folder} has no {TEST} score of {', '.join(lacking)}: run it with parents=true.")
        for metric in (name for name in SHOWN[task] if name in rows["merged"]):
            values = [score_text(rows[role], metric) if role in rows else _NONE for role in (*ROLES, FIRST_STAGE)]
            cells.append((task, metric, *values, _gain(run, metric)))
    return score_table("Case study, test", ("task", "metric", *ROLES, FIRST_STAGE, "merged minus base"), cells)


def _gain(run: Run, metric: str) -> str:
    """The merge less the base: as the run compared them itself, or from its yes/no answers."""
    if metric == "auroc":
        return change_text(difference(auroc, (run, "merged"), (run, "base"), TEST))
    paired = json.loads((run.folder / "paired.json").read_text(encoding="utf-8"))
    for one in paired["comparisons"]:
        if (one["a"], one["b"], one["metric"]) == ("merged", "base", metric):
            return "{value:+.3f} [{low:+.3f}, {high:+.3f}]".format(**one["difference"])
    return _NONE


def data_of(run: Run) -> TaskData:
    """The run's task, made again. UserError where it is no longer what the models were asked."""
    given = {name: value for name, value in run.config["task"].items() if name not in ("name", "kind", "metrics")}
    data = dotted(given.pop("_target_"))(**given).load()
    asked = json.loads((run.folder / "provenance.json").read_text(encoding="utf-8"))["task"]["fingerprint"]
    if data.fingerprint != asked:
        raise UserError(
            f"the records of {run.folder.name} are not those that the models were asked about. Run it again."
        )
    return data


def is_open(runs: Mapping[str, Run]) -> bool:
    """Whether all records may be shown, by what the runs themselves say."""
    return all(row["data"] == "open" for run in runs.values() for row in run.rows)


def cases(runs: Mapping[str, Run], count: int) -> Iterator[Case]:
    """The first `count` patients of the test split, with every question, search and risk of theirs.

    Raises UserError where the records are not open: nothing of them is read then.
    """
    if not is_open(runs):
        raise UserError("patients can be shown of open data alone, and these records are not: leave --patients out.")
    data = {task: data_of(run) for task, run in runs.items()}
    answers = _answers(runs["record_qa"])
    placed, risks = _places(runs["record_search"], data["record_search"]), _risks(runs["mortality"], data["mortality"])
    asked: dict[str, list] = {}
    for example in data["record_qa"].examples:
        if example.split == TEST:
            asked.setdefault(example.uid.split(":")[0], []).append(example)
    # First those of whom everything was asked.
    order = sorted(asked, key=lambda stay: (stay not in placed) + (stay not in risks))
    for number, (stay, examples) in enumerate(((one, asked[one]) for one in order[:count]), 1):
        record, _, _ = examples[0].prefix.rpartition("\n\nQuestion: ")
        lines = []
        for example in examples:
            said = [_in_a_line(answers.get((example.uid, role), _NONE)) for role in ROLES]
            lines.append((example.prefix.rpartition("Question: ")[2], example.reference, *said, ""))
        lines += placed.get(stay, [])
        lines += [risks[stay]] if stay in risks else []
        yield Case(f"Patient {number}", record, lines)


def _answers(run: Run) -> dict[tuple[str, str], str]:
    """What each model said, by question and role."""
    lines = (run.folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    return {(one["id"], one["role"]): one["answer"] for one in map(json.loads, lines) if one["split"] == TEST}


def _in_a_line(text: str) -> str:
    return " ".join(text.split()) or "(nothing)"


def _places(run: Run, data: TaskData) -> dict[str, list[tuple[str, ...]]]:
    """For each stay the searches that ought to find it: where the best list has it, and its place in each model's."""
    ranking = data.ranking
    names = dict(zip(hashed(ranking.documents, open_data=True, cache=run.folder), ranking.documents, strict=True))
    queries = dict(zip(hashed(ranking.queries, open_data=True, cache=run.folder), ranking.queries, strict=True))
    words = {ranking.queries[q]: data.examples[i].suffix for i, q in reversed(list(enumerate(ranking.query)))}
    table = pq.read_table(run.folder / "predictions.parquet", filters=[("split", "=", TEST)]).to_pylist()
    found: dict[str, dict[str, dict[str, str]]] = {}
    right: dict[str, str] = {}
    for row in table:
        query = queries[row["id"]]
        relevant = sum(grade > 0 for grade in row["grades"]) + len(ranking.missed[ranking.queries.index(query)])
        right[query] = "1." if relevant == 1 else f"1. to {relevant}."
        for place, (document, grade) in enumerate(zip(row["documents"], row["grades"], strict=True), 1):
            if grade > 0:
                stay = names[document].split(":")[0]
                found.setdefault(stay, {}).setdefault(query, {})[row["role"]] = f"{place}."
    return {
        stay: [
            (
                words[query].strip().partition("\n")[0],
                right[query],
                *(places.get(role, _NONE) for role in (*ROLES, FIRST_STAGE)),
            )
            for query, places in own.items()
        ]
        for stay, own in found.items()
    }


def _risks(run: Run, data: TaskData) -> dict[str, tuple[str, ...]]:
    """For each stay the probability of death that each model gives, beside what happened."""
    stays = [example.uid for example in data.examples]
    names = dict(zip(hashed(stays, open_data=True, cache=run.folder), stays, strict=True))
    found: dict[str, dict[str, str]] = {}
    died: dict[str, str] = {}
    for role in ROLES:
        for uid, (_, label, probability) in run.answers(role, TEST).items():
            found.setdefault(names[uid], {})[role] = f"{probability:.2f}"
            died[names[uid]] = "died" if label else "lived"
    return {
        stay: ("Probability of death in intensive care", died[stay], *(own[role] for role in ROLES), "")
        for stay, own in found.items()
    }


def _shown(case: Case) -> Iterator[Content]:
    yield f"\n{case.name}\n{case.record}"
    yield score_table("", ("asked", "right", *ROLES, FIRST_STAGE), case.lines)


def notes(runs: Mapping[str, Run]) -> Iterator[str]:
    """What the numbers are of, and what the paper has of this."""
    row = runs["record_qa"].rows[0]
    counts = ", ".join(f"{task} {next(r for r in run.rows if r['split'] == TEST)['n']}" for task, run in runs.items())
    yield (
        f"Base {row['base']}, pivot {row['pivot']}, merged {model_name(row)}, {row['dtype']}; rows: {counts}. "
        "Intervals by patient or query, differences paired. What is right is known from the tables."
    )
    block = published("case_study")
    lines = [PublishedLine(name, "", cell) for name, cell in block.cells.items()]
    yield "The paper's case study is of qualities, and no number of it is published: nothing is compared."
    yield from source_notes(block, lines)


def contents(args: Namespace) -> Iterator[Content]:
    """The numbers, then patients where they are open."""
    study = last_sweep(folder(args), command(args), by=("task",))
    runs = run_of(study)
    yield numbers(runs)
    if args.patients is None and not is_open(runs):
        yield "No patient is shown: their records are not open."
    else:
        for case in cases(runs, PATIENTS if args.patients is None else args.patients):
            yield from _shown(case)
        yield (
            "A search is one that ought to find the patient: their place in each list, – where the first stage did not "
            "list them."
        )
    yield from notes(runs)


main = script(
    "case_study",
    __doc__,
    contents,
    option("--patients", type=int, default=None, help=f"how many to show (default: {PATIENTS} where open)"),
)

if __name__ == "__main__":
    raise SystemExit(main())
