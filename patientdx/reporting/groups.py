"""A study by question: a task with its parents and setting, and which of its models is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from patientdx.core.errors import UserError
from patientdx.core.tables import Row, as_number, metric_names, model_name
from patientdx.evaluation.analyses.entries import Entry, split_size
from patientdx.evaluation.pilot_choice import choose
from patientdx.reporting.runs import Run, Study
from patientdx.reporting.significance import Best, best_of

PILOT = "pilot"
NOT_CHOSEN = "not chosen on pilot"


@dataclass(frozen=True)
class ReportedModel:
    """A model that is reported: its row on the reported split, its row on pilot (or None), and how it was chosen.

    `is_chosen`: pilot chose it among several. `corrected` is what `metrics.selection_bias.winner` returns: the value on
    pilot, corrected for having been chosen there.
    """

    run: Run
    row: Row
    pilot: Row | None
    why: str
    is_chosen: bool = False
    corrected: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """Its name in tables."""
        return model_name(self.row)


@dataclass(frozen=True)
class Group:
    """The rows of one task, setting and pair of parents, with the tabular models of that task.

    `best_of_study` returns what of all the study's rows is printed in bold, as in the terminal's table.
    """

    rows: tuple[Row, ...]
    runs: tuple[Run, ...]
    study: Study
    best_of_study: Callable[[], Best]

    @property
    def first(self) -> Row:
        """A row with task, setting and, where there are any, parents."""
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
        """The split that is reported: test, or the last of the run's splits where test is not among them."""
        splits = self.runs[0].config.get("splits") or [row["split"] for row in self.runs[0].rows]
        return "test" if "test" in splits else list(splits)[-1]

    @property
    def best(self) -> Best:
        """What of the rows is printed in bold."""
        return self.best_of_study()

    @cached_property
    def level(self) -> float:
        """The level of the intervals."""
        return self.runs[0].bootstrap["level"]

    def merged(self, split: str) -> list[Row]:
        """The rows of merged models on a split."""
        return [row for row in self.rows if row["role"] == "merged" and row["split"] == split]

    def others(self) -> list[Row]:
        """The rows of parents and tabular models on the reported split."""
        return [row for row in self.rows if row["role"] != "merged" and row["split"] == self.reported]

    def sizes(self, split: str | None = None) -> list[str]:
        """One sentence a split (or that of one split): rows, patients, events and prevalence."""
        return sizes(row for row in self.rows if split in (None, row["split"]))

    def entries(self, analysis: str, roles_of: Callable[[Mapping[str, Any]], Iterable[str]]) -> list[Entry]:
        """An analysis' entries: the reported merged models, then parents and other models, each once."""
        entries: dict[str, Entry] = {}
        for model in self.models:
            result = model.run.result(analysis)
            if result is not None and "merged" in roles_of(result):
                entries[model.name] = Entry(model.name, "merged", result)
        for run in [*(model.run for model in self.models), *self.runs]:
            result = run.result(analysis)
            for role in () if result is None else roles_of(result):
                if role != "merged" and result is not None:
                    entries.setdefault(role, Entry(role, role, result))
        return list(entries.values())

    @cached_property
    def models(self) -> list[ReportedModel]:
        """One model a method: the only one, or the best on pilot; each of them where nothing could choose."""
        models: list[ReportedModel] = []
        for method in dict.fromkeys(row["method"] for row in self.merged(self.reported)):
            rows = [row for row in self.rows if row["role"] == "merged" and row["method"] == method]
            reported = [row for row in rows if row["split"] == self.reported]
            if len(reported) == 1:
                models.append(self._only(reported[0], rows))
            elif (best := self._best_on_pilot(rows, len(reported))) is not None:
                models.append(best)
            else:
                models += [ReportedModel(self.study.run_of(row), row, None, NOT_CHOSEN) for row in reported]
        return models

    @property
    def has_unchosen(self) -> bool:
        """Whether there are several λ that no pilot split chose from."""
        return any(model.why == NOT_CHOSEN for model in self.models)

    def _only(self, row: Row, rows: Sequence[Row]) -> ReportedModel:
        """The only model of its method; its λ may come from a search."""
        run = self.study.run_of(row)
        pilot = next((other for other in rows if other["split"] == PILOT and other is not row), None)
        if run.search is None:
            return ReportedModel(run, row, pilot, "the only one of its method")
        why = f"search={run.search['strategy']}, {run.search['looked_at']} candidates on pilot"
        return ReportedModel(run, row, pilot, why, True, run.search.get("corrected"))

    def _best_on_pilot(self, rows: list[Row], candidates: int) -> ReportedModel | None:
        metric = self.metrics[0]
        higher = self.runs[0].higher_is_better(metric)
        if higher is None:
            return None
        try:
            best = choose(rows, metric, chosen_on=PILOT, reported_on=self.reported, higher_is_better=higher)
        except UserError:
            return None
        row = best["row"]
        pilot = [other for other in rows if other["split"] == PILOT and as_number(other[metric]) is not None]
        same = [other for other in pilot if all(other[key] == row[key] for key in ("lambda", "variant"))]
        ordered = sorted(pilot, key=lambda other: (other["lambda"] is None, other["lambda"] or 0))
        corrected = self._corrected(ordered, ordered.index(same[0]))
        return ReportedModel(self.study.run_of(row), row, same[0], f"best of {candidates} on pilot", True, corrected)

    def _corrected(self, candidates: list[Row], chosen: int) -> dict[str, Any] | None:
        """The correction of the best value over the candidates' pilot scores; None where their rows do not match."""
        import numpy as np

        from patientdx.metrics.selection_bias import winner

        metric, run = self.metrics[0], self.runs[0]
        predictions = [self.study.run_of(row).predictions.get(("merged", PILOT)) for row in candidates]
        function, first = run.metric_functions.get(metric), predictions[0]
        if function is None or first is None:
            return None
        paired = [other for other in predictions if other is not None and first.is_paired_with(other, metric)]
        if len(paired) < len(predictions):
            return None
        scores = np.stack([other.of(metric)[0] for other in paired])
        return winner(function, scores, first.of(metric)[1], first.subject, chosen=chosen, **run.bootstrap)


def groups(study: Study) -> list[Group]:
    """The groups of a study in the order of its table; tabular models of a task are in each group of that task."""
    rows = study.rows
    keys = list(dict.fromkeys(_key(row) for row in rows if row["base"] is not None))
    without_parents = [row for row in rows if row["base"] is None]
    tasks = {key[:2] for key in keys}
    keys += [key for key in dict.fromkeys(map(_key, without_parents)) if key[:2] not in tasks]
    made, best = [], cache(lambda: best_of(rows, study.runs))
    for key in keys:
        members = [row for row in rows if _key(row) == key]
        members += [row for row in without_parents if _key(row)[:2] == key[:2] and row not in members]
        runs = tuple(run for run in study.runs if any(_holds(run, row) for row in members))
        made.append(Group(tuple(members), runs, study, best))
    return made


def _key(row: Row) -> tuple:
    return (row["task"], row["setting"], row["base"], row["pivot"])


def _holds(run: Run, row: Row) -> bool:
    return any(other["fingerprint"] == row["fingerprint"] and other["role"] == row["role"] for other in run.rows)


def sizes(rows: Iterable[Row]) -> list[str]:
    """One sentence a split: rows, patients, events and prevalence.

    For each task where there are several, and for each setting where its rows are not those of the others, as with
    another seed.
    """
    rows = list(rows)
    several_tasks = len({row.get("task") for row in rows}) > 1
    by_name: dict[str, dict[str, Row]] = {}
    for row in rows:
        name = f"{row['task']}, {row['split']}" if several_tasks else str(row.get("split"))
        by_name.setdefault(name, {})[row.get("setting") or ""] = row
    sentences = []
    for name, by_setting in by_name.items():
        same = {split_size(name, row) for row in by_setting.values()}
        every = [split_size(", ".join(filter(None, (name, setting))), row) for setting, row in by_setting.items()]
        sentences += same if len(same) == 1 else every
    return sentences
