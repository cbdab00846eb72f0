"""The story of one run: parents, curve, model at λ, scores of a task, metrics with intervals, result on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from patientdx import session
from patientdx.evidence import Found, evaluation, headline, measure, predictions, probed, provenance
from patientdx.merge.schedule import label
from patientdx.opening import curves, parents, recipe
from patientdx.plan import Plan, Point, folder_name, plan
from patientdx.refusal import Refusal
from patientdx.results import CLINICAL, Store, read_json, read_run, write_run
from patientdx.scoring.choice import Scores, score
from patientdx.scoring.prompts import Prompts
from patientdx.settings import MERGED, Settings
from patientdx.tabular import log_mass
from patientdx.tracking import TrackingSettings, track


@dataclass(frozen=True)
class Outcome:
    """What a run gave: one row a model and split (as in `report`), its folder, and whether it was there before.

    `cohort` is the attrition table, `probes` how much hangs on the question's wording, `clinical` the evaluation for
    the clinic; the last two are None where they were not asked for.
    """

    rows: list[dict[str, Any]]
    folder: Path
    reused: bool
    seconds: dict[str, float]
    cohort: list[dict[str, Any]]
    probes: dict[str, Any] | None = None
    clinical: dict[str, Any] | None = None


def run(settings: Settings) -> Outcome:
    """Score the merged model (and its parents) on the task, and write one result folder below <output>/<name>.

    In several processes each scores its share of the prompts, the first one alone reads and writes results, and all
    return the same outcome. Raises Refusal, in every process, for whatever the user can mend.
    """
    clock = Clock()
    first = session.accelerator(settings.device).is_main_process
    tracker = TrackingSettings(**{**settings.tracking, "tags": tuple(settings.tracking.get("tags") or ())})
    asked = session.together(lambda: _prepare(settings, clock))
    folder = settings.output / settings.name / folder_name(settings, asked.key)
    known = session.agreed(_known(settings, asked, folder, clock) if first else None)
    if known is not None:
        return known
    # The run's own model is filled first, for its other wordings too, and is still there when its answers are asked.
    reworded = _reworded(settings, asked, clock)
    found = _answers(settings, asked, clock)
    finish = _finish if first else lambda *others: None
    return session.agreed(session.together(lambda: finish(settings, tracker, asked, found, reworded, clock)))


class Clock:
    """Seconds spent in each phase of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        """Count the time since the last call to `phase`."""
        now = time.monotonic()
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + now - self._last, 3)
        self._last = now


def _prepare(settings: Settings, clock: Clock) -> Plan:
    if settings.model == MERGED:
        made_of = settings.ingredients
        parents(made_of.models, settings.cache, made_of.ancestor, made_of.tokenizer)
        clock.lap("parents")
    asked = plan(settings)
    clock.lap("task")
    return asked


def _known(settings: Settings, asked: Plan, folder: Path, clock: Clock) -> Outcome | None:
    """The outcome of a run that is there already."""
    metrics = read_run(folder, asked.key)
    clinical = read_json(folder / CLINICAL) if settings.clinical else None
    if metrics is None or (settings.clinical and clinical is None):
        return None
    return Outcome(metrics["rows"], folder, True, clock.seconds, asked.data.cohort, metrics.get("probes"), clinical)


def _reworded(settings: Settings, asked: Plan, clock: Clock) -> dict[str, Scores]:
    """The run's own model on the reported split, asked in other words, by the probe's name; from the store or kept."""
    found = {}
    for wording in asked.wordings:
        name, rows = wording.probe.name, range(len(wording.tokens.ids))
        make = partial(_score, settings, asked.points[0], wording.tokens, rows, f"probe {name}", clock)
        found[name] = _kept(settings, wording.key, len(rows), make)
    return found


def _answers(settings: Settings, asked: Plan, clock: Clock) -> Found:
    """Scores by (role, split): from the store where they are there, worked out and kept where they are not."""
    found = {}
    for point in asked.points:
        for split, rows in asked.rows.items():
            key = asked.keys.get((point.role, split))
            if key is None:
                continue
            if point.tabular is None:
                make = partial(_score, settings, point, asked.tokens, rows, f"{point.role} {split}", clock)
            else:
                make = partial(_predict, settings, asked, point, rows, clock)
            found[point.role, split] = _kept(settings, key, len(rows), make)
    return found


def _kept(settings: Settings, key: str, n: int, make: Callable[[], np.ndarray]) -> Scores:
    """The n scores under `key`; made and stored where they are not there. All processes take part."""
    first = session.accelerator(settings.device).is_main_process
    store = Store(settings.output / "scores")
    kept = session.agreed(store.load(key, n) if first else None)
    if kept is None:
        kept = make()
        session.together(lambda: store.save(key, kept) if first else None)
    return Scores(kept)


def _predict(settings: Settings, asked: Plan, point: Point, rows: Sequence[int], clock: Clock) -> np.ndarray:
    """(n, 2) float64: log masses of a tabular model, fitted and asked by the first process alone."""

    def ask() -> np.ndarray:
        model = session.fitted(settings.task, point.role, point.tabular, settings.seed)
        return log_mass(model, asked.data.features.values[rows])

    first = session.accelerator(settings.device).is_main_process
    scores = session.agreed(session.together(lambda: ask() if first else None))
    clock.lap("baselines")
    return scores


def _score(
    settings: Settings, point: Point, tokens: Prompts, rows: Sequence[int], label: str, clock: Clock
) -> np.ndarray:
    """(n, options) float64: fill the live model with the point and score, sharing the rows among processes."""
    where = session.accelerator(settings.device)

    def share() -> tuple[list[int], np.ndarray]:
        live = session.live(settings.ingredients, settings.cache, settings.dtype, settings.device, settings.device_map)
        clock.lap("load")
        shape = curves(point.made_of, settings.cache)
        clock.lap("curve")
        found = recipe(point.made_of, point.weight, settings.cache)
        model = live.fill(found, shape, (point.made_of, point.weight))
        clock.lap("fill")
        return score(
            model,
            tokens,
            rows,
            batch_tokens=settings.batch_tokens or (1 if where.device.type == "cpu" else 16384),
            share=(where.process_index, where.num_processes),
            label=label,
        )

    scores = np.empty((len(rows), len(tokens.options)))
    for places, values in session.gathered(session.together(share)):
        scores[places] = values
    clock.lap("scoring")
    if not np.isfinite(scores).all():
        raise Refusal(
            f"the {point.role} model gives {int((~np.isfinite(scores)).any(1).sum())} of {len(scores)} prompts a score "
            f"that is not a number in dtype={settings.dtype}. Use dtype=float32; if that does not help, a parent's "
            "weights are damaged."
        )
    return scores


def _finish(
    settings: Settings,
    tracker: TrackingSettings,
    asked: Plan,
    found: Found,
    reworded: dict[str, Scores],
    clock: Clock,
) -> Outcome:
    """Metrics, the result folder and the tracker's record: the part of the first process alone."""
    rows, probes = measure(settings, asked, found), probed(settings, asked, found, reworded)
    clock.lap("metrics")
    clinical = evaluation(settings, asked, found) if settings.clinical else None
    clock.lap("clinical")
    folder = settings.output / settings.name / folder_name(settings, asked.key)
    outcome = Outcome(rows, folder, False, clock.seconds, asked.data.cohort, probes, clinical)
    processes = session.accelerator(settings.device).num_processes
    write_run(
        folder,
        config=settings.composed,
        metrics={"fingerprint": asked.key, "rows": rows} | ({} if probes is None else {"probes": probes}),
        predictions=predictions(settings, asked, found),
        provenance=provenance(settings, asked, clock.seconds, processes),
        cohort=asked.data.cohort,
        clinical=clinical,
    )
    _track(tracker, settings, asked, found, outcome)
    clock.lap("tracking")
    return outcome


def _track(tracker: TrackingSettings, settings: Settings, asked: Plan, found, outcome: Outcome) -> None:
    summary, curves = headline(settings, asked, found, outcome.rows, outcome.clinical)
    method = settings.method + ("" if settings.weight is None else f" λ={label(settings.weight)}")
    data = "open" if asked.data.open_data else "credentialed"
    names = [] if asked.opened is None else [settings.base.name, settings.pivot.name]
    track(
        tracker,
        fingerprint=asked.key,
        name=f"{settings.task_name} {method}",
        group=settings.name,
        job_type=settings.task_name,
        tags=[settings.method, *names, data],
        config=settings.composed,
        summary=summary,
        curves=curves,
        folder=outcome.folder,
    )
