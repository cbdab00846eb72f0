"""The results of a study's last sweep, as its runs left them on disk. No model is loaded, and torch is not imported."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from patientdx.core.errors import UserError
from patientdx.core.functions import dotted
from patientdx.evaluation.seal import read_sealed
from patientdx.evaluation.store import read_sealed_json
from patientdx.metrics.bootstrap import Interval, paired_difference, replicates
from patientdx.metrics.specification import Metric
from patientdx.reporting import choose

Row = dict[str, Any]
PILOT, TEST = "pilot", "test"


@dataclass(frozen=True)
class Run:
    """One result folder."""

    folder: Path

    @cached_property
    def rows(self) -> list[Row]:
        """One row a model and split, as in `patientdx.reporting`."""
        return read_sealed(self.folder)["rows"]

    @cached_property
    def config(self) -> dict[str, Any]:
        """The composed config."""
        return yaml.safe_load((self.folder / "config.yaml").read_text(encoding="utf-8"))

    @cached_property
    def straight_lines(self) -> tuple[int, int] | None:
        """Tensors that SLERP joined by a straight line, and all tensors; None for a method that measures no angle."""
        facts = json.loads((self.folder / "provenance.json").read_text(encoding="utf-8"))["merge"]["summary"]
        return (facts["straight_lines"], facts["tensors"]) if facts else None

    def metric(self, name: str) -> Metric:
        """The function that works out one of the task's metrics."""
        return dotted(self.config["task"]["metrics"][name])

    def patients(self, split: str) -> set[str]:
        """Hashed patients of a split, or what else the rows are clusters of."""
        table = pq.read_table(self.folder / "predictions.parquet", columns=["subject"], filters=[("split", "=", split)])
        return set(table.column("subject").to_pylist())

    def answers(self, role: str, split: str, metric: str | None = None) -> dict[str, tuple[str, Any, Any]]:
        """Hashed id -> (hashed patient, label, p(yes)) of one model on one split, in the order of the ids.

        metric: of a task whose answers are no yes or no, one of its own: what is right and what was answered take the
        places of label and p(yes), as the metric wants them.
        """
        columns, place = ("id", "subject", "label", "probability"), self.folder / "predictions.parquet"
        if metric is not None and f"{metric}_right" in pq.read_schema(place).names:
            columns = ("id", "subject", f"{metric}_right", metric)
        table = pq.read_table(place, filters=[("role", "=", role), ("split", "=", split)])
        rows = zip(*(table.column(name).to_pylist() for name in columns), strict=True)
        return {name: tuple(rest) for name, *rest in sorted(rows)}


@dataclass(frozen=True)
class Study:
    """The runs of one sweep, all of the same question: same task and rows, same parents, same numerics."""

    folder: Path
    runs: tuple[Run, ...]

    @property
    def rows(self) -> list[Row]:
        """The rows of all runs; parents come once a run."""
        return [row for run in self.runs for row in run.rows]

    @property
    def methods(self) -> list[str]:
        """The merge methods of the sweep, in its order."""
        return list(dict.fromkeys(row["method"] for row in self.rows if row["role"] == "merged"))

    def described(self, split: str) -> str:
        """What the numbers on a split are of: task, models, dtype, rows, how sure they are."""
        row, level = self.rows[0], self.runs[0].config["bootstrap"]["level"]
        row = next(one for one in self.rows if one["split"] == split and one["base"] == row["base"])
        pivots = list(dict.fromkeys(one["pivot"] for one in self.rows if one["pivot"] is not None))
        return (
            f"{row['task']}, base {row['base']}, pivot{'s' * (len(pivots) > 1)} {', '.join(pivots)}, {row['dtype']}; "
            f"{split}: {row['n']} rows of {row['patients']} patients, {row['events']} events; {level:.0%} intervals by "
            "patient; differences are paired."
        )

    def straight_lines(self) -> Iterator[str]:
        """How many tensors SLERP joined by the linear merge, in a sentence, where a run measured angles."""
        counts = next((run.straight_lines for run in self.runs if run.straight_lines), None)
        if counts:
            yield f"SLERP took a straight line, which is the linear merge, for {counts[0]} of {counts[1]} tensors."

    def parts(self, column: str) -> dict[str, Study]:
        """The study by task, base or pivot, in the order of the sweep: each part is a study of one of them."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            found.setdefault(run.rows[0][column], []).append(run)  # first stands the model that the run is about
        return {value: Study(self.folder, tuple(runs)) for value, runs in found.items()}

    def best(self, method: str, metric: str = "auroc", *, chosen_on: str = "pilot", reported_on: str = "test") -> Row:
        """The row on `reported_on` of the method's λ that is best on `chosen_on`.

        UserError where both are one split, a score is missing, or patients are in both.
        """
        rows = [row for row in self.rows if row["role"] == "merged" and row["method"] == method]
        found = choose(rows, metric, chosen_on=chosen_on, reported_on=reported_on)
        refuse_shared_patients(self.run_of(method, found["lambda"]), chosen_on, reported_on)
        return found["row"]

    def row(self, role: str, split: str) -> Row:
        """A parent's row on a split; UserError where the study did not score it."""
        for row in self.rows:
            if (row["role"], row["split"]) == (role, split):
                return row
        raise UserError(
            f"{self.folder} has no score of the {role} model on the {split} split: run it with parents=true "
            f"and {split} among the splits."
        )

    def run_of(self, method: str, weight: float) -> Run:
        """The run of one merged model; UserError where the study has none at that λ."""
        wanted = ("merged", method, weight)
        for run in self.runs:
            if any((row["role"], row["method"], row["lambda"]) == wanted for row in run.rows):
                return run
        raise UserError(
            f"{self.folder} has no {method} at λ={weight:g} for {self.rows[0]['task']}: sweep the same λ everywhere."
        )


def last_sweep(folder: Path, command: str, by: Sequence[str] = ()) -> Study:
    """The last sweep of the study in `folder`; `command` is what makes it, for the UserError where there is none.

    Refuses, too, a sweep whose runs asked different questions: their numbers do not belong in one table. `by` names the
    columns of rows (task, base, pivot) that tell its tables apart, see `Study.parts`.
    """
    pointers = sorted((folder / "sweep").glob("*.json"), key=lambda path: int(path.stem))
    if not pointers:
        raise UserError(f"{folder} holds no sweep: nothing was run yet. First:\n  {command}")
    left = [read_sealed_json(path) or {"failed": "its record is damaged"} for path in pointers]
    for path, one in zip(pointers, left, strict=True):
        for became in ("refused", "failed"):
            if became in one:
                verb = "was refused" if became == "refused" else "failed"
                raise UserError(
                    f"run {path.stem} of the last sweep in {folder} {verb}, and a table has no gaps: {one[became]}"
                )
    folders = [folder / one["folder"] for one in left if "folder" in one]
    if not folders:
        raise UserError(f"the last sweep in {folder} saved merges and scored none. First:\n  {command}")
    gone = [one.name for one in folders if not (one / "metrics.json").is_file()]
    if gone:
        raise UserError(f"{folder} no longer holds {', '.join(gone)} of its last sweep. Run it again:\n  {command}")
    study = Study(folder, tuple(Run(one) for one in dict.fromkeys(folders)))
    _refuse_mixtures(study, by)
    return study


def _refuse_mixtures(study: Study, by: Sequence[str]) -> None:
    """A model has one answer on a split: two of them mean that the sweep changed more than the method and λ."""
    asked: dict[tuple, str] = {}
    for row in study.rows:
        which = (row["role"], row["method"], row["lambda"], row["split"], *(row[column] for column in by))
        if asked.setdefault(which, row["fingerprint"]) != row["fingerprint"]:
            place = "" if row["lambda"] is None else f" λ={row['lambda']:g}"
            model = row["role"] if row["method"] is None else f"{row['method']}{place}"
            raise UserError(
                f"the last sweep in {study.folder} scored {model} on {row['split']} in more than one setting (task, "
                "parents, dtype or a number of the method): one table shows one. Sweep the method and λ only, and give "
                "each other setting a study of its own with name=…"
            )


def refuse_shared_patients(run: Run, chosen_on: str, reported_on: str, reported: Run | None = None) -> None:
    """Refuse patients in both splits: λ would be chosen on part of what it is reported on.

    reported: the run that is reported, where it is another than the one that λ was chosen by (of another task).
    """
    first, second = run.patients(chosen_on), (reported or run).patients(reported_on)
    if first & second:
        raise UserError(
            f"{len(first & second)} of {len(second)} patients of the {reported_on} split are in the {chosen_on} split "
            "too, so λ was chosen on what it would be reported on. Run again with splits by patient."
        )


def difference(
    metric: Callable | str, a: tuple[Run, str], b: tuple[Run, str], split: str, *, level: float | None = None
) -> Interval:
    """The metric of model a minus that of b, each a run and a role in it, on the same rows and the same resamples.

    metric: a function of p(yes), or the name of any of the task's. Resamples, seed and, unless given, level are those
    of the run of `a`. UserError where the two did not answer the same rows.
    """
    name = metric if isinstance(metric, str) else None
    patient, label, (first, second) = _side_by_side((a, b), split, name)
    config = a[0].config
    return paired_difference(
        metric if name is None else a[0].metric(name), first, second, label, patient,
        resamples=config["bootstrap"]["resamples"], level=level or config["bootstrap"]["level"], seed=config["seed"],
    )  # fmt: skip


def drawn(metric: str, models: Sequence[tuple[Run, str]], split: str) -> list[tuple[float, NDArray[np.float64]]]:
    """One of the task's metrics of each model, a run and a role in it, and its value on each resample, (resamples,).

    Entry i of all models is of the same patients, as in `difference`. Raises UserError where they did not answer the
    same rows.
    """
    patient, label, scores = _side_by_side(models, split, metric)
    run, config = models[0][0], models[0][0].config
    how = {"resamples": config["bootstrap"]["resamples"], "seed": config["seed"]}
    own = run.metric(metric)
    return [(float(own(one, label)), replicates({"": own}, one, label, patient, **how)[""]) for one in scores]


def _side_by_side(models: Sequence[tuple[Run, str]], split: str, metric: str | None) -> tuple[Any, Any, list[list]]:
    """Patients, labels, and of each model the scores, in one order of rows."""
    found = [run.answers(role, split, metric) for run, role in models]
    asked = [{name: rest[:2] for name, rest in one.items()} for one in found]
    for (run, _), rows in zip(models, asked, strict=True):
        if rows != asked[0]:
            raise UserError(
                f"{models[0][0].folder.name} and {run.folder.name} did not answer the same {split} rows; run both "
                "again."
            )
    patient, label, _ = zip(*found[0].values(), strict=True)
    return patient, label, [[row[2] for row in one.values()] for one in found]
