"""A study by question: what was asked of which parents, and which of its models is the one that counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from patientdx.core.errors import UserError
from patientdx.core.tables import Row, as_number, metric_names, model_name
from patientdx.evaluation.choice import choose
from patientdx.reporting.runs import Run, Study
from patientdx.reporting.significance import Best, best_of, direction, draws, functions

PILOT = "pilot"


@dataclass(frozen=True)
class Reported:
    """A model that the report is about: its row on the reported split, on pilot (or None), and why this one.

    `picked` says that pilot picked it among several. `corrected` is what `metrics.winner` found: the value on pilot
    without the luck of having been picked there.
    """

    run: Run
    row: Row
    pilot: Row | None
    why: str
    picked: bool = False
    corrected: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """What it is called."""
        return model_name(self.row)


@dataclass(frozen=True)
class Group:
    """The rows of one task, setting and pair of parents, with the tabular models of that task.

    `best_of_study` says what of all the study's rows is printed in bold, as the terminal's table does.
    """

    rows: tuple[Row, ...]
    runs: tuple[Run, ...]
    study: Study
    best_of_study: Callable[[], Best]

    @property
    def first(self) -> Row:
        """A row that says task, setting and, where there are any, parents."""
        return next((row for row in self.rows if row["base"] is not None), self.rows[0])

    @property
    def title(self) -> str:
        """Task, setting and pair."""
        row = self.first
        pair = f"{row['base']} + {row['pivot']}" if row["base"] else ""
        return ", ".join(part for part in (row["task"], pair, row["setting"]) if part)

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics that the rows hold."""
        return metric_names(self.rows)

    @cached_property
    def reported(self) -> str:
        """The split that is reported: test, or the last that was asked for where that was not among them."""
        splits = self.runs[0].config.get("splits") or [row["split"] for row in self.runs[0].rows]
        return "test" if "test" in splits else list(splits)[-1]

    @property
    def best(self) -> Best:
        """What of the rows is printed in bold."""
        return self.best_of_study()

    @cached_property
    def level(self) -> float:
        """That of the intervals."""
        return draws(self.runs[0])["level"]

    def merged(self, split: str) -> list[Row]:
        """The rows of merged models on a split."""
        return [row for row in self.rows if row["role"] == "merged" and row["split"] == split]

    def others(self) -> list[Row]:
        """The rows of parents and tabular models on the reported split."""
        return [row for row in self.rows if row["role"] != "merged" and row["split"] == self.reported]

    @cached_property
    def chosen(self) -> list[Reported]:
        """One model a method: the only one, or the best on pilot; each of them where nothing could choose."""
        found: list[Reported] = []
        for method in dict.fromkeys(row["method"] for row in self.merged(self.reported)):
            rows = [row for row in self.rows if row["role"] == "merged" and row["method"] == method]
            here = [row for row in rows if row["split"] == self.reported]
            if len(here) == 1:
                found.append(self._only(here[0], rows))
            elif (one := self._best_on_pilot(rows, len(here))) is not None:
                found.append(one)
            else:
                found += [Reported(self.study.run_of(row), row, None, "not chosen on pilot") for row in here]
        return found

    def _only(self, row: Row, rows: Sequence[Row]) -> Reported:
        """The only model of its method; a search may have found its λ."""
        run = self.study.run_of(row)
        pilot = next((other for other in rows if other["split"] == PILOT and other is not row), None)
        if run.search is None:
            return Reported(run, row, pilot, "the only one of its method")
        why = f"search={run.search['strategy']}, {run.search['looked_at']} candidates on pilot"
        return Reported(run, row, pilot, why, True, run.search.get("corrected"))

    def _best_on_pilot(self, rows: list[Row], among: int) -> Reported | None:
        metric = self.metrics[0]
        higher = direction(self.runs[0], metric)
        if higher is None:
            return None
        try:
            made = choose(rows, metric, chosen_on=PILOT, reported_on=self.reported, higher_is_better=higher)
        except UserError:
            return None
        row = made["row"]
        pilot = [one for one in rows if one["split"] == PILOT and as_number(one[metric]) is not None]
        same = [one for one in pilot if all(one[key] == row[key] for key in ("lambda", "variant"))]
        candidates = sorted(pilot, key=lambda one: (one["lambda"] is None, one["lambda"] or 0))
        corrected = self._without_luck(candidates, candidates.index(same[0]))
        why = f"best of {among} on pilot"
        return Reported(self.study.run_of(row), row, same[0], why, True, corrected)

    def _without_luck(self, candidates: list[Row], chosen: int) -> dict[str, Any] | None:
        """The winner's correction over the candidates' pilot scores; None where their rows do not fit."""
        import numpy as np

        from patientdx.metrics.selection_bias import winner

        answers = [self.study.run_of(row).answers.get(("merged", PILOT)) for row in candidates]
        metric = self.metrics[0]
        function = functions(self.runs[0]).get(metric)
        if function is None or None in answers or not all(answers[0].fits(one, metric) for one in answers):
            return None
        scores = np.stack([one.of(metric)[0] for one in answers])
        label, subject = answers[0].of(metric)[1], answers[0].subject
        return winner(function, scores, label, subject, chosen=chosen, **draws(self.runs[0]))


def groups(study: Study) -> list[Group]:
    """The groups of a study in the order of its table; tabular models of a task stand in each group of that task."""
    rows = study.rows
    keys = list(dict.fromkeys(_key(row) for row in rows if row["base"] is not None))
    alone = [row for row in rows if row["base"] is None]
    keys += [key for key in dict.fromkeys(_key(row) for row in alone) if key[:2] not in {one[:2] for one in keys}]
    found, best = [], cache(lambda: best_of(rows, study.runs))
    for key in keys:
        own = [row for row in rows if _key(row) == key]
        own += [row for row in alone if _key(row)[:2] == key[:2] and row not in own]
        runs = tuple(run for run in study.runs if any(_holds(run, row) for row in own))
        found.append(Group(tuple(own), runs, study, best))
    return found


def _key(row: Row) -> tuple:
    return (row["task"], row["setting"], row["base"], row["pivot"])


def _holds(run: Run, row: Row) -> bool:
    return any(one["fingerprint"] == row["fingerprint"] and one["role"] == row["role"] for one in run.rows)


def sizes(rows: Iterable[Row]) -> list[str]:
    """One sentence a split: rows, patients, events and prevalence."""
    said = {}
    for row in rows:
        shown = [f"n = {row['n']}"]
        shown += [f"{row['patients']} patients"] if row.get("patients") is not None else []
        shown += [f"{row['events']} events"] if row.get("events") is not None else []
        shown += [f"prevalence {row['prevalence']:.3f}"] if as_number(row.get("prevalence")) is not None else []
        said[row["split"]] = f"{row['split']}: " + ", ".join(shown)
    return list(said.values())
