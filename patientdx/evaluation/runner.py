"""The story of one run: parents, curve, model at λ, scores of a task, metrics with intervals, result on disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from patientdx.core import distributed
from patientdx.core.locks import exclusive_lock
from patientdx.evaluation import finetuned, generated, graded, ranked, results, session
from patientdx.evaluation.config.settings import MERGED, Settings
from patientdx.evaluation.inference import Timer, answer, kept, predict
from patientdx.evaluation.kinds.names import CHOICE, GENERATE, RANK
from patientdx.evaluation.leakage import run as leakage
from patientdx.evaluation.merge_inputs import parents_of
from patientdx.evaluation.plan import Plan, folder_name, plan
from patientdx.evaluation.results import Found, evaluation, headline, probed, provenance
from patientdx.evaluation.store import (
    CLINICAL,
    TRACKED,
    make_writable,
    read_json,
    read_run,
    write_json,
    write_run,
)
from patientdx.lm.binary import Scores
from patientdx.merge.schedule import label
from patientdx.reporting.leakage import summary as leakage_summary
from patientdx.selection import find_weight
from patientdx.selection.trials import SEARCH
from patientdx.tracking import TrackingSettings, track, tracking_settings


@dataclass(frozen=True)
class Outcome:
    """What a run gave: one row a model and split (as in `report`), its folder, and whether it was there before.

    `cohort` is the attrition table, `probes` how much hangs on the question's wording, `clinical` the evaluation for
    the clinic, `privacy` what the models leak, `search` how λ was found; these four are None where they were not
    asked for. `graded`: models compared and groups, of a task that is not of yes/no questions.
    """

    rows: list[dict[str, Any]]
    folder: Path
    reused: bool
    seconds: dict[str, float]
    cohort: list[dict[str, Any]]
    probes: dict[str, Any] | None = None
    clinical: dict[str, Any] | None = None
    privacy: dict[str, Any] | None = None
    search: dict[str, Any] | None = None
    graded: dict[str, Any] | None = None


def run(settings: Settings) -> Outcome:
    """Score the merged model (and its parents) on the task, and write one result folder below <output>/<name>.

    In several processes each scores its share of the prompts, the first one alone reads and writes results, and all
    return the same outcome. Raises UserError, in every process, for whatever the user can mend.
    """
    clock = Timer()
    first = session.accelerator(settings.device).is_main_process
    tracker = tracking_settings(settings.tracking)
    asked = distributed.run_on_all_ranks(lambda: _prepare(settings, clock))
    if settings.search is not None:
        settings = find_weight.search(settings, clock)
        asked = distributed.run_on_all_ranks(lambda: plan(settings))
    folder = settings.output / settings.name / folder_name(settings, asked.key)
    known = distributed.broadcast(_known(settings, asked, folder, clock) if first else None)
    if known is not None:
        return known
    # What a run may refuse comes before its answers.
    leaked = leakage.leakage(settings, asked, clock)
    # The run's own model is filled first, for its other wordings too, and is still there when its answers are asked.
    reworded = _reworded(settings, asked, clock)
    found = _answers(settings, asked, clock)
    finish = _finish if first else lambda *others: None
    return distributed.broadcast(
        distributed.run_on_all_ranks(lambda: finish(settings, tracker, asked, found, reworded, leaked, clock))
    )


def check(settings: Settings) -> None:
    """Raise, in every process, the UserError with which `run` would begin: for work that comes before it."""
    tracking_settings(settings.tracking)
    distributed.run_on_all_ranks(lambda: _prepare(settings, Timer()))


def _prepare(settings: Settings, clock: Timer) -> Plan:
    make_writable(settings.output / settings.name)  # a full disk is known before a model is asked
    if settings.model == MERGED:
        parents_of(settings.merge_spec, settings.cache)
        clock.lap("parents")
    asked = plan(settings)
    clock.lap("task")
    return asked


def _known(settings: Settings, asked: Plan, folder: Path, clock: Timer) -> Outcome | None:
    """The outcome of a run that is there already, and that the tracker knows of: a kill may fall between the two."""
    metrics, mode = read_run(folder, asked.key), settings.tracking["mode"]
    if mode != "none" and (read_json(folder / TRACKED) or {}).get("mode") != mode:
        return None
    clinical = read_json(folder / CLINICAL) if settings.clinical else None
    if metrics is None or (settings.clinical and clinical is None):
        return None
    found = read_json(folder / SEARCH) if settings.search is not None else None
    if settings.search is not None and found is None:
        return None
    leaked = leakage.known(settings, asked, folder)
    if leaked is None and settings.privacy.asked:
        return None
    probes = metrics.get("probes")
    rows, cohort, compared = metrics["rows"], asked.data.cohort, metrics.get("graded")
    return Outcome(rows, folder, True, clock.seconds, cohort, probes, clinical, leaked, found, compared)


def _reworded(settings: Settings, asked: Plan, clock: Timer) -> dict[str, Scores]:
    """The run's own model on the reported split, asked in other words, by the probe's name; from the store or kept."""
    found = {}
    for wording in asked.wordings:
        name, rows = wording.probe.name, range(len(wording.tokens.ids))
        make = partial(answer, settings, asked.points[0], wording.tokens, rows, f"probe {name}", clock)
        found[name] = kept(settings, wording.key, len(rows), make)
    return found


def _answers(settings: Settings, asked: Plan, clock: Timer) -> Found:
    """Scores by (role, split): from the store where they are there, worked out and kept where they are not."""
    found = {}
    for point in asked.points:
        for split, rows in asked.rows.items():
            key = asked.keys.get((point.role, split))
            if key is None:
                continue
            if asked.data.kind == GENERATE:
                make = partial(generated.answers, settings, asked, point, rows, key, clock)
            elif point.tabular is None:
                make = partial(answer, settings, point, asked.tokens, rows, f"{point.role} {split}", clock)
            else:
                make = partial(predict, settings, asked, point, rows, clock)
            found[point.role, split] = kept(settings, key, len(rows), make)
    return found


def _finish(
    settings: Settings,
    tracker: TrackingSettings,
    asked: Plan,
    found: Found,
    reworded: dict[str, Scores],
    leaked: dict[str, Any] | None,
    clock: Timer,
) -> Outcome:
    """Metrics, the result folder and the tracker's record: the part of the first process alone."""
    folder = settings.output / settings.name / folder_name(settings, asked.key)
    with exclusive_lock(folder / "metrics.json"):
        # Another sweep may have finished the very same run meanwhile.
        known = _known(settings, asked, folder, clock)
        return known or _write(settings, tracker, asked, found, reworded, leaked, clock)


def _write(
    settings: Settings,
    tracker: TrackingSettings,
    asked: Plan,
    found: Found,
    reworded: dict[str, Scores],
    leaked: dict[str, Any] | None,
    clock: Timer,
) -> Outcome:
    told = {CHOICE: results, RANK: ranked}.get(asked.data.kind, graded)
    rows, probes = told.measure(settings, asked, found), probed(settings, asked, found, reworded)
    compared = None if told is results else told.compared(settings, asked, found)
    clock.lap("metrics")
    clinical = evaluation(settings, asked, found) if settings.clinical else None
    clock.lap("clinical")
    folder = settings.output / settings.name / folder_name(settings, asked.key)
    how = None if settings.search is None else settings.search.record
    outcome = Outcome(rows, folder, False, clock.seconds, asked.data.cohort, probes, clinical, leaked, how, compared)
    processes = session.accelerator(settings.device).num_processes
    if leaked is not None:
        write_json(leaked, folder / leakage.PRIVACY)
    if how is not None:
        write_json(how, folder / SEARCH)
    if asked.data.kind == GENERATE:
        generated.write_answers(settings, asked, folder)
    for point in asked.points:
        if point.job is not None:
            finetuned.leave(settings, point.job, folder, clock.merging)
    write_run(
        folder,
        config=settings.composed,
        metrics={"fingerprint": asked.key, "rows": rows}
        | {name: part for name, part in (("probes", probes), ("graded", compared)) if part is not None},
        predictions=told.predictions(settings, asked, found),
        provenance=provenance(settings, asked, clock.seconds, processes),
        cohort=asked.data.cohort,
        clinical=clinical,
    )
    recorded = _track(tracker, settings, asked, found, outcome)
    if recorded is not None:
        write_json({"mode": tracker.mode, "id": recorded}, folder / TRACKED)
    clock.lap("tracking")
    return outcome


def _track(tracker: TrackingSettings, settings: Settings, asked: Plan, found, outcome: Outcome) -> str | None:
    if outcome.graded is None:
        summary, curves = headline(settings, asked, found, outcome.rows, outcome.clinical)
    else:
        summary, curves = graded.headline(settings, asked, outcome.rows), {}
    if outcome.privacy is not None:
        summary |= leakage_summary(outcome.privacy)
    if isinstance(settings.weight, float):  # several λ are no place on an axis
        summary["lambda"] = settings.weight
    method = settings.method + ("" if settings.weight is None else f" λ={label(settings.weight)}")
    data = "open" if asked.data.open_data else "credentialed"
    names = [] if asked.opened is None else [settings.base.name, settings.pivot.name]
    return track(
        tracker,
        fingerprint=asked.key,
        name=f"{settings.task_name} {method}",
        group=settings.name,
        job_type=settings.task_name,
        tags=[settings.method, *names, data],
        config={"method": settings.method} | settings.composed,
        summary=summary,
        curves=curves,
        folder=outcome.folder,
        output=settings.output,
        predictions=outcome.folder / "predictions.parquet",
        open_data=asked.data.open_data,
    )
