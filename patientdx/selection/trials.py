"""The record of a search: its candidates and forwards, and the chosen one's value with and without selection bias."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.evaluation.config.search import CHOSEN_ON, SearchConfig
from patientdx.merge.schedule import Schedule, filters_of, label, values
from patientdx.metrics.bootstrap import Interval, interval
from patientdx.metrics.paired import paired_estimate
from patientdx.metrics.selection_bias import winner
from patientdx.metrics.specification import Metric
from patientdx.selection.pilot import Candidate, Choice, Pilot, Trial, order_key

PAPER = 11  # λ of the paper's exhaustive search: 0, 0.1, …, 1


@dataclass(frozen=True)
class Scored:
    """One model on a split: what the metric takes, (n,) or (n, k), what is right (n,), and the cluster of each (n,)."""

    answer: NDArray[np.float64]
    right: ArrayLike
    cluster: Sequence[str]


def as_config(weight: Schedule | None) -> Any:
    """A λ as a config has it: a number, a list, or a mapping from parts of names."""
    if weight is None or isinstance(weight, float):
        return weight
    filters = filters_of(weight)
    if filters is not None:
        return {"rest" if part == "*" else part: as_config(value) for part, value in filters}
    return list(values(weight))


def record(
    search: SearchConfig,
    metric: tuple[str, str],
    pilot: Pilot,
    choice: Choice,
    reported: Mapping[Candidate, Scored],
    split: str,
    *,
    resamples: int,
    level: float,
    seed: int,
) -> dict[str, Any]:
    """Plain values of a search, ready for JSON.

    reported: the chosen candidate (and the single λ that it is compared with) on the `split` that is reported.
    What depends on the scores of the pilot split is None for a strategy that does not release them.
    """
    draws = {"resamples": resamples, "level": level, "seed": seed}
    grid = len(search.call.keywords.get("points", range(PAPER))) * pilot.n
    scores: dict[str, Any] = {
        "n": pilot.n,
        "events": int(pilot.events.sum()),
        "patients": pilot.patients,
        "forwards": pilot.forwards,
        "grid_forwards": grid,
        "share": pilot.forwards / max(grid, 1),  # of a pilot with nobody it is not told
        "pilot": None,
        "corrected": None,
    }
    scores = scores | _winner(pilot, choice, draws) if search.releases_scores else dict.fromkeys(scores)
    return {
        "strategy": search.name,
        "arguments": search.call.keywords,
        "seed": seed,
        "metric": metric[0],
        "higher_is_better": pilot.higher_is_better,
        "split": CHOSEN_ON,
        "chosen": _named(choice.chosen),
        "looked_at": len(choice.trials),
        "outcomes": choice.outcomes,
        "bits": math.log2(choice.outcomes),
        **scores,
        "reported": _reported(pilot.metric, reported[choice.chosen], split, draws),
        "single": _single(pilot.metric, choice, reported, split, draws),
        "facts": choice.numbers,
        "candidates": [_trial(trial, search.releases_scores) for trial in choice.trials],
    }


def _named(candidate: Candidate) -> dict[str, Any]:
    weight = candidate.weight
    return {"lambda": as_config(weight), "label": label(weight), "parameters": dict(candidate.parameters)}


def _trial(trial: Trial, releases_scores: bool) -> dict[str, Any]:
    values = {"value": trial.value, "rows": trial.rows, "dropped": trial.dropped, "round": trial.round}
    return _named(trial.candidate) | (values if releases_scores else dict.fromkeys(values))


def _winner(pilot: Pilot, choice: Choice, draws: Mapping[str, Any]) -> dict[str, Any]:
    """The chosen candidate's pilot value as it stands, and corrected for having been chosen by it."""
    ordered = sorted((trial.candidate for trial in choice.trials), key=order_key)
    scores, chosen = np.array([pilot.known(candidate) for candidate in ordered]), ordered.index(choice.chosen)
    naive = interval(pilot.metric, scores[chosen], pilot.label, pilot.patient, **draws)
    metric = pilot.metric
    if scores.ndim == 3:
        metric, scores = _by_place(metric, scores)
    corrected = winner(metric, scores, pilot.label, pilot.patient, chosen=chosen, **draws)
    corrected.pop("selected")
    return {"pilot": _ends(naive), "corrected": corrected}


def _by_place(metric: Metric, scores: NDArray[np.float64]) -> tuple[Metric, NDArray[np.float64]]:
    """The same metric and scores (K, n, m) as one number a unit, (K, n): the number of its row of all K n rows."""
    table = scores.reshape(-1, scores.shape[2])
    numbers = np.where(np.isnan(table).any(axis=1), np.nan, np.arange(len(table))).reshape(scores.shape[:2])

    @functools.wraps(metric)
    def looked_up(rows: ArrayLike, *rest: Any) -> Any:
        return metric(table[np.asarray(rows).astype(int)], *rest)

    return looked_up, numbers


def _reported(metric: Metric, rows: Scored, split: str, draws: Mapping[str, Any]) -> dict[str, Any]:
    return {"split": split} | _ends(interval(metric, rows.answer, rows.right, rows.cluster, **draws))


def _single(
    metric: Metric, choice: Choice, reported: Mapping[Candidate, Scored], split: str, draws: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The single λ on the reported split, and the chosen candidate's value minus its, paired."""
    if choice.single is None:
        return None
    chosen, single = reported[choice.chosen], reported[choice.single]
    difference = paired_estimate(metric, chosen.answer, single.answer, single.right, single.cluster, **draws)
    return _named(choice.single) | {"reported": _reported(metric, single, split, draws), "difference": difference}


def _ends(result: Interval) -> dict[str, float | None]:
    low, high = result.ends
    return {"value": result.value, "low": low, "high": high}
