"""The results of a study's last sweep, as its runs left them on disk. No model is loaded, and torch is not imported."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from patientdx.metrics.bootstrap import Interval, paired_difference
from patientdx.refusal import Refusal

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One result folder."""

    folder: Path

    @cached_property
    def rows(self) -> list[Row]:
        """One row a model and split, as in `patientdx.report`."""
        return json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))["rows"]

    @cached_property
    def config(self) -> dict[str, Any]:
        """The composed config."""
        return yaml.safe_load((self.folder / "config.yaml").read_text(encoding="utf-8"))

    @cached_property
    def straight_lines(self) -> tuple[int, int] | None:
        """Tensors that SLERP joined by a straight line, and all tensors; None for a method that measures no angle."""
        facts = json.loads((self.folder / "provenance.json").read_text(encoding="utf-8"))["merge"]["summary"]
        return (facts["straight_lines"], facts["tensors"]) if facts else None

    def answers(self, role: str, split: str) -> dict[str, tuple[str, int, float]]:
        """Hashed id -> (hashed patient, label, p(yes)) of one model on one split, in the order of the ids."""
        columns = ("id", "subject", "label", "probability")
        table = pq.read_table(self.folder / "predictions.parquet", filters=[("role", "=", role), ("split", "=", split)])
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

    def row(self, role: str, split: str) -> Row:
        """A parent's row on a split; Refusal where the study did not score it."""
        for row in self.rows:
            if (row["role"], row["split"]) == (role, split):
                return row
        raise Refusal(
            f"{self.folder} has no score of the {role} model on the {split} split: run it with parents=true "
            f"and {split} among the splits."
        )

    def run_of(self, method: str, weight: float) -> Run:
        """The run of one merged model."""
        wanted = ("merged", method, weight)
        return next(
            run for run in self.runs for row in run.rows if (row["role"], row["method"], row["lambda"]) == wanted
        )


def last_sweep(folder: Path, command: str) -> Study:
    """The last sweep of the study in `folder`; `command` is what makes it, for the Refusal where there is none.

    Refuses, too, a sweep whose runs asked different questions: their numbers do not belong in one table.
    """
    pointers = sorted((folder / "sweep").glob("*.json"), key=lambda path: int(path.stem))
    if not pointers:
        raise Refusal(f"{folder} holds no sweep: nothing was run yet. First:\n  {command}")
    left = [json.loads(path.read_text(encoding="utf-8")) for path in pointers]
    for path, one in zip(pointers, left, strict=True):
        for became in ("refused", "failed"):
            if became in one:
                verb = "was refused" if became == "refused" else "failed"
                raise Refusal(
                    f"run {path.stem} of the last sweep in {folder} {verb}, and a table has no gaps: {one[became]}"
                )
    folders = [folder / one["folder"] for one in left if "folder" in one]
    if not folders:
        raise Refusal(f"the last sweep in {folder} saved merges and scored none. First:\n  {command}")
    gone = [one.name for one in folders if not (one / "metrics.json").is_file()]
    if gone:
        raise Refusal(f"{folder} no longer holds {', '.join(gone)} of its last sweep. Run it again:\n  {command}")
    study = Study(folder, tuple(Run(one) for one in dict.fromkeys(folders)))
    _refuse_mixtures(study)
    return study


def _refuse_mixtures(study: Study) -> None:
    """A model has one answer on a split: two of them mean that the sweep changed more than the method and λ."""
    asked: dict[tuple, str] = {}
    for row in study.rows:
        which = (row["role"], row["method"], row["lambda"], row["split"])
        if asked.setdefault(which, row["fingerprint"]) != row["fingerprint"]:
            place = "" if row["lambda"] is None else f" λ={row['lambda']:g}"
            model = row["role"] if row["method"] is None else f"{row['method']}{place}"
            raise Refusal(
                f"the last sweep in {study.folder} scored {model} on {row['split']} in more than one setting (task, "
                "parents, dtype or a number of the method): one table shows one. Sweep the method and λ only, and give "
                "each other setting a study of its own with name=…"
            )


def refuse_shared_patients(run: Run, chosen_on: str, reported_on: str) -> None:
    """Refuse a run with patients in both splits: λ would be chosen on part of what it is reported on."""
    first, second = (
        {patient for patient, _, _ in run.answers("merged", split).values()} for split in (chosen_on, reported_on)
    )
    if first & second:
        raise Refusal(
            f"{len(first & second)} of {len(second)} patients of the {reported_on} split are in the {chosen_on} split "
            "too, so λ was chosen on what it would be reported on. Run again with splits by patient."
        )


def difference(metric: Callable, a: tuple[Run, str], b: tuple[Run, str], split: str) -> Interval:
    """The metric of model a minus that of b, each a run and a role in it, on the same rows and the same resamples.

    Resamples, level and seed are those of the run of `a`. Refusal where the two did not answer the same rows.
    """
    first, second = (run.answers(role, split) for run, role in (a, b))
    if {name: rest[:2] for name, rest in first.items()} != {name: rest[:2] for name, rest in second.items()}:
        raise Refusal(
            f"{a[0].folder.name} and {b[0].folder.name} did not answer the same {split} rows; run both again."
        )
    patient, label, score = zip(*first.values(), strict=True)
    config = a[0].config
    return paired_difference(
        metric, score, [row[2] for row in second.values()], label, patient,
        resamples=config["bootstrap"]["resamples"], level=config["bootstrap"]["level"], seed=config["seed"],
    )  # fmt: skip
