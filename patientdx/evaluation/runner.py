"""The story of one run: parents, curve, model at λ, scores of a task, metrics with intervals, result on disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from patientdx.core import distributed
from patientdx.core.locks import exclusive_lock
from patientdx.evaluation import finetuned, generated, graded, ranked, results, session
from patientdx.evaluation.analyses.privacy_tables import summary as leakage_summary
from patientdx.evaluation.config.sections import RunConfig
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


def run(config: RunConfig) -> Outcome:
    """Score the merged model (and its parents) on the task, and write one result folder below <output>/<name>.

    In several processes each scores its share of the prompts, the first one alone reads and writes results, and all
    return the same outcome. Raises UserError, in every process, for whatever the user can mend.
    """
    clock = Timer()
    first = session.accelerator(config.inference.device).is_main_process
    tracker = tracking_settings(config.tracking)
    asked = distributed.run_on_all_ranks(lambda: _prepare(config, clock))
    if config.search is not None:
        config = find_weight.search(config, clock)
        asked = distributed.run_on_all_ranks(lambda: plan(config))
    folder = config.output / config.name / folder_name(config, asked.key)
    known = distributed.broadcast(_known(config, asked, folder, clock) if first else None)
    if known is not None:
        return known
    # What a run may refuse comes before its answers.
    leaked = leakage.leakage(config, asked, clock)
    # The run's own model is filled first, for its other wordings too, and is still there when its answers are asked.
    reworded = _reworded(config, asked, clock)
    found = _answers(config, asked, clock)
    finish = _finish if first else lambda *others: None
    return distributed.broadcast(
        distributed.run_on_all_ranks(lambda: finish(config, tracker, asked, found, reworded, leaked, clock))
    )


def check(config: RunConfig) -> None:
    """Raise, in every process, the UserError with which `run` would begin: for work that comes before it."""
    tracking_settings(config.tracking)
    distributed.run_on_all_ranks(lambda: _prepare(config, Timer()))


def _prepare(config: RunConfig, clock: Timer) -> Plan:
    make_writable(config.output / config.name)  # a full disk is known before a model is asked
    if config.merge is not None:
        parents_of(config.merge.spec, config.cache)
        clock.lap("parents")
    asked = plan(config)
    clock.lap("task")
    return asked


def _known(config: RunConfig, asked: Plan, folder: Path, clock: Timer) -> Outcome | None:
    """The outcome of a run that is there already, and that the tracker knows of: a kill may fall between the two."""
    metrics, mode = read_run(folder, asked.key), config.tracking["mode"]
    if mode != "none" and (read_json(folder / TRACKED) or {}).get("mode") != mode:
        return None
    clinical = read_json(folder / CLINICAL) if config.analyses.clinical else None
    if metrics is None or (config.analyses.clinical and clinical is None):
        return None
    found = read_json(folder / SEARCH) if config.search is not None else None
    if config.search is not None and found is None:
        return None
    leaked = leakage.known(config, asked, folder)
    if leaked is None and config.analyses.privacy.enabled:
        return None
    probes = metrics.get("probes")
    rows, cohort, compared = metrics["rows"], asked.data.cohort, metrics.get("graded")
    return Outcome(rows, folder, True, clock.seconds, cohort, probes, clinical, leaked, found, compared)


def _reworded(config: RunConfig, asked: Plan, clock: Timer) -> dict[str, Scores]:
    """The run's own model on the reported split, asked in other words, by the probe's name; from the store or kept."""
    found = {}
    for wording in asked.wordings:
        name, rows = wording.probe.name, range(len(wording.tokens.ids))
        make = partial(answer, config, asked.points[0], wording.tokens, rows, f"probe {name}", clock)
        found[name] = kept(config, wording.key, len(rows), make)
    return found


def _answers(config: RunConfig, asked: Plan, clock: Timer) -> Found:
    """Scores by (role, split): from the store where they are there, worked out and kept where they are not."""
    found = {}
    for point in asked.points:
        for split, rows in asked.rows.items():
            key = asked.keys.get((point.role, split))
            if key is None:
                continue
            if asked.data.kind == GENERATE:
                make = partial(generated.answers, config, asked, point, rows, key, clock)
            elif point.tabular is None:
                make = partial(answer, config, point, asked.tokens, rows, f"{point.role} {split}", clock)
            else:
                make = partial(predict, config, asked, point, rows, clock)
            found[point.role, split] = kept(config, key, len(rows), make)
    return found


def _finish(
    config: RunConfig,
    tracker: TrackingSettings,
    asked: Plan,
    found: Found,
    reworded: dict[str, Scores],
    leaked: dict[str, Any] | None,
    clock: Timer,
) -> Outcome:
    """Metrics, the result folder and the tracker's record: the part of the first process alone."""
    folder = config.output / config.name / folder_name(config, asked.key)
    with exclusive_lock(folder / "metrics.json"):
        # Another sweep may have finished the very same run meanwhile.
        known = _known(config, asked, folder, clock)
        return known or _write(config, tracker, asked, found, reworded, leaked, clock)


def _write(
    config: RunConfig,
    tracker: TrackingSettings,
    asked: Plan,
    found: Found,
    reworded: dict[str, Scores],
    leaked: dict[str, Any] | None,
    clock: Timer,
) -> Outcome:
    told = {CHOICE: results, RANK: ranked}.get(asked.data.kind, graded)
    rows, probes = told.measure(config, asked, found), probed(config, asked, found, reworded)
    compared = None if told is results else told.compared(config, asked, found)
    clock.lap("metrics")
    clinical = evaluation(config, asked, found) if config.analyses.clinical else None
    clock.lap("clinical")
    folder = config.output / config.name / folder_name(config, asked.key)
    how = None if config.search is None else config.search.record
    outcome = Outcome(rows, folder, False, clock.seconds, asked.data.cohort, probes, clinical, leaked, how, compared)
    processes = session.accelerator(config.inference.device).num_processes
    if leaked is not None:
        write_json(leaked, folder / leakage.PRIVACY)
    if how is not None:
        write_json(how, folder / SEARCH)
    if asked.data.kind == GENERATE:
        generated.write_answers(config, asked, folder)
    for point in asked.points:
        if point.job is not None:
            finetuned.leave(config, point.job, folder, clock.merging)
    write_run(
        folder,
        config=config.composed,
        metrics={"fingerprint": asked.key, "rows": rows}
        | {name: part for name, part in (("probes", probes), ("graded", compared)) if part is not None},
        predictions=told.predictions(config, asked, found),
        provenance=provenance(config, asked, clock.seconds, processes),
        cohort=asked.data.cohort,
        clinical=clinical,
    )
    recorded = _track(tracker, config, asked, found, outcome)
    if recorded is not None:
        write_json({"mode": tracker.mode, "id": recorded}, folder / TRACKED)
    clock.lap("tracking")
    return outcome


def _track(tracker: TrackingSettings, config: RunConfig, asked: Plan, found, outcome: Outcome) -> str | None:
    if outcome.graded is None:
        summary, curves = headline(config, asked, found, outcome.rows, outcome.clinical)
    else:
        summary, curves = graded.headline(config, asked, outcome.rows), {}
    if outcome.privacy is not None:
        summary |= leakage_summary(outcome.privacy)
    if isinstance(config.weight, float):  # several λ are no place on an axis
        summary["lambda"] = config.weight
    method = config.method + ("" if config.weight is None else f" λ={label(config.weight)}")
    data = "open" if asked.data.open_data else "credentialed"
    names = [] if asked.opened is None else [config.merge.base.name, config.merge.pivot.name]
    return track(
        tracker,
        fingerprint=asked.key,
        name=f"{config.task.name} {method}",
        group=config.name,
        job_type=config.task.name,
        tags=[config.method, *names, data],
        config={"method": config.method} | config.composed,
        summary=summary,
        curves=curves,
        folder=outcome.folder,
        output=config.output,
        predictions=outcome.folder / "predictions.parquet",
        open_data=asked.data.open_data,
    )
