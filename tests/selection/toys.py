"""Pilots whose scores are known: what strategies are tried on."""

import numpy as np

from patientdx.metrics.ranking import auroc
from patientdx.selection.pilot import Candidate, Pilot


def planted(
    best: float = 0.3,
    *,
    slope: float = 4.0,
    wobble: float = 0.1,
    n: int = 240,
    order: np.ndarray | None = None,
    calls: list | None = None,
) -> Pilot:
    """Scores that separate the classes best at λ = `best`; each row's noise is the same at every λ but for a little.

    slope: how fast the signal falls off to both sides; wobble: standard deviation of that little. Two rows a patient.
    order: the rows in another order. calls: what is scored is noted there.
    """
    random = np.random.default_rng(7)
    label = random.random(n) < 0.3
    noise, own = random.normal(size=n), random.normal(size=(1001, n))
    order = np.arange(n) if order is None else order

    def score(candidate: Candidate, rows: np.ndarray) -> np.ndarray:
        if calls is not None:
            calls.extend((candidate, int(order[row])) for row in rows)
        at = candidate.weight if isinstance(candidate.weight, float) else None
        weights = (at,) if at is not None else tuple(w[1] if isinstance(w, tuple) else w for w in candidate.weight)
        signal = np.mean([2.0 - slope * abs(weight - best) for weight in weights])
        signal -= sum(abs(value - 0.6) for _, value in candidate.parameters)
        margin = signal * label + noise + wobble * own[round(1000 * weights[0])]
        return 1 / (1 + np.exp(-margin[order][rows]))

    return Pilot(label[order], np.array([f"p{row // 2:04d}" for row in order]), auroc, score)
