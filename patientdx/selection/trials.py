"""What a search leaves on record: what it looked at and paid, the winner's value with and without its curse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patientdx.evaluation.config.search import CHOSEN_ON, SearchConfig
from patientdx.merge.schedule import Schedule, label
from patientdx.metrics.bootstrap import Interval, interval
from patientdx.metrics.paired import paired_estimate
from patientdx.metrics.selection_bias import winner
from patientdx.metrics.specification import Metric
from patientdx.selection.pilot import Candidate, Choice, Pilot, Trial, place

SEARCH = "search.json"
PAPER = 11  # λ that the paper's exhaustive search looks at: 0, 0.1, …, 1


@dataclass(frozen=True)
class Rows:
    """One model on a split: probabilities (n,), labels (n,) of 0 and 1, subjects (n,)."""

    probability: NDArray[np.float64]
    label: NDArray[np.int64]
    subject: Sequence[str]


def plain(weight: Schedule) -> Any:
    """A λ as a config says it: a number, a list, or a mapping from parts of names."""
    if isinstance(weight, float):
        return weight
    if isinstance(weight[0], tuple):
        return {"rest" if part == "*" else part: plain(value) for part, value in weight}
    return list(weight)


def record(
    search: SearchConfig,
    metric: tuple[str, str],
    pilot: Pilot,
    choice: Choice,
    reported: Mapping[Candidate, Rows],
    split: str,
    *,
    resamples: int,
    level: float,
    seed: int,
) -> dict[str, Any]:
    """Plain facts of a search, ready for JSON.

    reported: the chosen candidate (and the single λ that it is compared with) on the `split` that is reported.
    What a strategy that does not disclose saw of the pilot split is None.
    """
    told = {"resamples": resamples, "level": level, "seed": seed}
    grid = len(search.call.keywords.get("points", range(PAPER))) * pilot.n
    disclosed: dict[str, Any] = {
        "n": pilot.n,
        "events": int(pilot.label.sum()),
        "patients": pilot.patients,
        "forwards": pilot.forwards,
        "grid_forwards": grid,
        "share": pilot.forwards / grid,
        "pilot": None,
        "corrected": None,
    }
    if search.releases_scores:
        disclosed |= _winner(pilot, choice, told)
    else:
        disclosed = dict.fromkeys(disclosed)
    return {
        "strategy": search.name,
        "arguments": search.call.keywords,
        "seed": seed,
        "metric": metric[0],
        "higher_is_better": pilot.higher_is_better,
        "split": CHOSEN_ON,
        "chosen": _named(choice.chosen),
        "looked_at": len(choice.looked),
        "outcomes": choice.outcomes,
        "bits": math.log2(choice.outcomes),
        **disclosed,
        "reported": _reported(pilot.metric, reported[choice.chosen], split, told),
        "single": _single(pilot.metric, choice, reported, split, told),
        "facts": choice.facts,
        "candidates": [_seen(one, search.releases_scores) for one in choice.looked],
    }


def summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what was seen of each candidate."""
    return {key: value for key, value in found.items() if key != "candidates"}


def _named(candidate: Candidate) -> dict[str, Any]:
    weight = candidate.weight
    return {"lambda": plain(weight), "label": label(weight), "parameters": dict(candidate.parameters)}


def _seen(one: Trial, disclosed: bool) -> dict[str, Any]:
    seen = {"value": one.value, "rows": one.rows, "dropped": one.dropped, "round": one.round}
    return _named(one.candidate) | (seen if disclosed else dict.fromkeys(seen))


def _winner(pilot: Pilot, choice: Choice, told: Mapping[str, Any]) -> dict[str, Any]:
    """The chosen candidate's pilot value as it stands, and corrected for having been chosen by it."""
    ordered = sorted((one.candidate for one in choice.looked), key=place)
    scores = np.array([pilot.scored(candidate) for candidate in ordered])
    chosen = ordered.index(choice.chosen)
    naive = interval(pilot.metric, scores[chosen], pilot.label, pilot.patient, **told)
    corrected = winner(pilot.metric, scores, pilot.label, pilot.patient, chosen=chosen, **told)
    corrected.pop("selected")
    return {"pilot": _ends(naive), "corrected": corrected}


def _reported(metric: Metric, rows: Rows, split: str, told: Mapping[str, Any]) -> dict[str, Any]:
    return {"split": split} | _ends(interval(metric, rows.probability, rows.label, rows.subject, **told))


def _single(
    metric: Metric, choice: Choice, reported: Mapping[Candidate, Rows], split: str, told: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The single λ on the reported split, and the chosen candidate's value less its, by paired patient bootstrap."""
    if choice.single is None:
        return None
    chosen, single = reported[choice.chosen], reported[choice.single]
    difference = paired_estimate(metric, chosen.probability, single.probability, single.label, single.subject, **told)
    return _named(choice.single) | {"reported": _reported(metric, single, split, told), "difference": difference}


def _ends(found: Interval) -> dict[str, float]:
    return {"value": found.value, "low": found.low, "high": found.high}
