"""The story of one run: parents, curve, model at λ, scores of a task, metrics with intervals, result on disk."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patientdx import session
from patientdx.evidence import headline, measure, predictions, provenance
from patientdx.merge.schedule import label
from patientdx.opening import curves, parents, recipe
from patientdx.plan import Plan, Point, folder_name, plan
from patientdx.refusal import Refusal
from patientdx.results import Store, read_run, write_run
from patientdx.scoring.choice import Scores, score
from patientdx.settings import Settings
from patientdx.tracking import TrackingSettings, track


@dataclass(frozen=True)
class Outcome:
    """What a run gave: one row a model and split (as in `report`), its folder, and whether it was there before."""

    rows: list[dict[str, Any]]
    folder: Path
    reused: bool
    seconds: dict[str, float]


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
    known = session.agreed(read_run(folder, asked.key) if first else None)
    if known is not None:
        return Outcome(known["rows"], folder, True, clock.seconds)
    found = _answers(settings, asked, clock)
    finish = _finish if first else lambda *others: None
    return session.agreed(session.together(lambda: finish(settings, tracker, asked, found, clock)))


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
    made_of = settings.ingredients
    parents(made_of.models, settings.cache, made_of.ancestor, made_of.tokenizer)
    clock.lap("parents")
    asked = plan(settings)
    clock.lap("task")
    return asked


def _answers(settings: Settings, asked: Plan, clock: Clock) -> dict[tuple[str, str], Scores]:
    """Scores by (role, split): from the store where they are there, worked out and kept where they are not."""
    first = session.accelerator(settings.device).is_main_process
    store = Store(settings.output / "scores")
    found = {}
    for point in asked.points:
        for split, rows in asked.rows.items():
            key = asked.keys[point.role, split]
            kept = session.agreed(store.load(key, len(rows)) if first else None)
            if kept is None:
                kept = _score(settings, asked, point, split, clock)
                session.together(lambda key=key, kept=kept: store.save(key, kept) if first else None)
            found[point.role, split] = Scores(kept)
    return found


def _score(settings: Settings, asked: Plan, point: Point, split: str, clock: Clock) -> np.ndarray:
    """(n, options) float64: fill the live model with the point and score, sharing the split's rows among processes."""
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
            asked.tokens,
            asked.rows[split],
            batch_tokens=settings.batch_tokens or (1 if where.device.type == "cpu" else 16384),
            share=(where.process_index, where.num_processes),
            label=f"{point.role} {split}",
        )

    scores = np.empty((len(asked.rows[split]), len(asked.tokens.options)))
    for rows, values in session.gathered(session.together(share)):
        scores[rows] = values
    clock.lap("scoring")
    if not np.isfinite(scores).all():
        raise Refusal(
            f"the {point.role} model gives {int((~np.isfinite(scores)).any(1).sum())} of {len(scores)} prompts a score "
            f"that is not a number in dtype={settings.dtype}. Use dtype=float32; if that does not help, a parent's "
            "weights are damaged."
        )
    return scores


def _finish(settings: Settings, tracker: TrackingSettings, asked: Plan, found, clock: Clock) -> Outcome:
    """Metrics, the result folder and the tracker's record: the part of the first process alone."""
    outcome = Outcome(
        measure(settings, asked, found),
        settings.output / settings.name / folder_name(settings, asked.key),
        False,
        clock.seconds,
    )
    clock.lap("metrics")
    processes = session.accelerator(settings.device).num_processes
    write_run(
        outcome.folder,
        config=settings.composed,
        metrics={"fingerprint": asked.key, "rows": outcome.rows},
        predictions=predictions(settings, asked, found),
        provenance=provenance(settings, asked, clock.seconds, processes),
    )
    _track(tracker, settings, asked, found, outcome)
    clock.lap("tracking")
    return outcome


def _track(tracker: TrackingSettings, settings: Settings, asked: Plan, found, outcome: Outcome) -> None:
    summary, curves = headline(settings, asked, found, outcome.rows)
    method = settings.merge_name + ("" if settings.weight is None else f" λ={label(settings.weight)}")
    data = "open" if asked.data.open_data else "credentialed"
    track(
        tracker,
        fingerprint=asked.key,
        name=f"{settings.task_name} {method}",
        group=settings.name,
        job_type=settings.task_name,
        tags=[settings.merge_name, settings.base.name, settings.pivot.name, data],
        config=settings.composed,
        summary=summary,
        curves=curves,
        folder=outcome.folder,
    )
