"""All λ of a grid start; pilot patients are scored in growing batches, and a λ that cannot win any more is dropped.

A race (Maron and Moore, NIPS 1993) with a finite aim: the λ that is best on all of the pilot split, not in the world
beyond it. The patients not scored yet are then the only uncertainty. Each resample fills them in by Pólya's urn from
those of their kind that are scored, for all λ alike (the finite population Bayesian bootstrap; Lo, Annals of Statistics
1988). Patients with an event go first, since a rank metric hangs on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t, wilcoxon

from patientdx.core.functions import Call
from patientdx.selection.pilot import Candidate, Choice, Pilot, Trial, candidates, point_errors

TESTS = ("bootstrap", "wilcoxon")
_LEAST = 5  # patients of each kind in the first batch, or all of them
_BLOCK = 1 << 20  # weights held at once

Scored = Mapping[Candidate, NDArray[np.float64]]


@dataclass(frozen=True)
class Scene:
    """The patients scored after a round: their k rows, ascending, with the label and the patient (0…) of each.

    kinds: the patients without and with an event, each with how many of that kind are not scored yet.
    """

    rows: NDArray[np.int64]
    label: NDArray[np.bool_]
    patient: NDArray[np.int64]
    kinds: tuple[tuple[NDArray[np.int64], int], ...]

    @property
    def weight(self) -> NDArray[np.float64]:
        """(k,) how many pilot patients a row's patient stands for."""
        return self.spread(1, lambda scored_patients, left: np.full((1, scored_patients), 1 + left / scored_patients))[
            0
        ]

    def expanded(self, alpha: float) -> float:
        """The level at which a one-sided test by resamples of so few patients has the level `alpha`.

        Resamples of m patients spread too little by the root of (m - 1) / m, and have a normal's tails where a t
        distribution's are due (the expanded percentile interval; Hesterberg, The American Statistician 2015).
        """
        count = min((patients.size for patients, left in self.kinds if patients.size and left), default=0)
        return float(norm.cdf(t.ppf(alpha, count - 1) * np.sqrt(count / (count - 1)))) if count > 1 else alpha

    def spread(self, resamples: int, draw: Callable[[int, int], NDArray[np.float64]]) -> NDArray[np.float64]:
        """(resamples, k) weights of the rows; `draw` gives those of a kind's patients: how many are scored, left."""
        weight = np.zeros((resamples, 1 + self.patient.max()))
        for patients, left in self.kinds:
            if patients.size:
                weight[:, patients] = draw(patients.size, left)
        return weight[:, self.patient]


def racing(
    pilot: Pilot,
    *,
    points: Sequence[float],
    test: str,
    alpha: float,
    tolerance: float,
    first: float,
    growth: float,
    budget: float | None,
    resamples: int,
    seed: int,
) -> Choice:
    """The λ of `points` that wins the race on the pilot split; it is scored on all rows, the others on some.

    test: `bootstrap` drops a λ that beats the leader by more than `tolerance` in a share of at most `alpha` of the
    resamples, or less while few patients are scored; `wilcoxon` one whose patients' jackknife pseudo-values (Tukey) lie
    below the leader's with p ≤ alpha, one-sided, and takes no account of tolerance and resamples. first: share of the
    patients in the first batch, half of them with an event as far as they go, and never fewer than five of either
    kind; growth: what the number of scored patients is multiplied by in each round. budget: share of the grid's
    forwards that is not exceeded, unless those first ten cost more: where the next batch would, those furthest behind
    are dropped first; None for no limit.
    """
    random = np.random.default_rng(seed)
    entered = candidates(points)
    allowed = np.inf if budget is None else budget * len(entered) * pilot.n
    running, values, out = list(entered), {}, {}
    for number, scene in enumerate(_rounds(pilot, first, growth, random), start=1):
        for candidate in _beyond(pilot, running, values, scene, allowed):
            out[candidate] = Trial(candidate, values[candidate], pilot.count(candidate), "the budget ends", number)
            running.remove(candidate)
        if len(running) == 1:
            break
        scored = {candidate: pilot.scores(candidate, scene.rows) for candidate in running}
        values = {candidate: float(pilot.metric(scored[candidate], scene.label, scene.weight)) for candidate in running}
        if scene.rows.size == pilot.n:
            break
        leader = pilot.best(values)
        if test == "bootstrap":
            chance = _chances(pilot, scored, leader, scene, tolerance, resamples, random)
            reason, level = "beats λ={:g}, {:.3f} on these rows, in {:.1%} of the resamples", scene.expanded(alpha)
        else:
            chance = _wilcoxon(pilot, scored, leader, scene)
            reason, level = "is behind λ={:g}, {:.3f} on these rows, p={:.2g}", alpha
        for candidate, probability in chance.items():
            if probability <= level:
                why = reason.format(leader.weight, values[leader], probability)
                out[candidate] = Trial(candidate, values[candidate], scene.rows.size, why, number)
                running.remove(candidate)
    final = {candidate: pilot.value(candidate) for candidate in (running if len(running) == 1 else values)}
    out |= {candidate: Trial(candidate, value, pilot.n) for candidate, value in final.items()}
    return Choice(pilot.best(final), tuple(out[candidate] for candidate in entered), len(entered))


def check(
    low: float,
    high: float,
    merge: Call,
    *,
    points: Any,
    test: str,
    alpha: float,
    tolerance: float,
    first: float,
    growth: float,
    budget: float | None,
    resamples: int,
) -> list[str]:
    """The errors of these numbers for a method whose λ is in [low, high]."""
    errors = point_errors(points, low, high)
    if test not in TESTS:
        errors.append(f"search.test={test}: it is one of {', '.join(TESTS)}.")
    if not 0 < alpha < 0.5:
        errors.append(f"search.alpha={alpha}: give a number between 0 and 0.5.")
    if not tolerance >= 0:
        errors.append(f"search.tolerance={tolerance}: give 0 or more, in units of the metric.")
    if not 0 < first <= 1:
        errors.append(f"search.first={first}: give a share of the patients above 0 and at most 1.")
    if not growth > 1:
        errors.append(f"search.growth={growth}: give a number above 1, or the race never ends.")
    if budget is not None and not first < budget <= 1:
        errors.append(
            f"search.budget={budget}: give a share of the grid's forwards above search.first={first}, which is what "
            "the first batch takes, and at most 1; or null for no limit."
        )
    if resamples < 100:
        errors.append(f"search.resamples={resamples}: give a whole number of at least 100.")
    return errors


def _rounds(pilot: Pilot, first: float, growth: float, random: np.random.Generator) -> Iterator[Scene]:
    """What is scored after each round, to the last, which holds everybody. Both classes are in every one."""
    with_event = np.zeros(pilot.patients, dtype=bool)
    with_event[pilot.patient[pilot.events]] = True
    orders = [random.permutation(np.flatnonzero(with_event == kind)) for kind in (False, True)]
    others, ill = (order.size for order in orders)
    # Drawn from fewer, the urn would not know how unlike patients are.
    count = max(round(first * pilot.patients), min(_LEAST, ill) + min(_LEAST, others))
    while True:
        count = min(count, pilot.patients)
        taken = min(ill, max((count + 1) // 2, count - others))
        kinds = tuple(
            (order[:size], order.size - size) for order, size in zip(orders, (count - taken, taken), strict=True)
        )
        scored_patients = np.zeros(pilot.patients, dtype=bool)
        scored_patients[np.concatenate([patients for patients, _ in kinds])] = True
        rows = np.flatnonzero(scored_patients[pilot.patient])
        if not pilot.events[rows].all():
            yield Scene(rows, pilot.label[rows], pilot.patient[rows], kinds)
        if count == pilot.patients:
            return
        count = max(count + 1, int(np.ceil(count * growth)))


def _beyond(
    pilot: Pilot, running: Sequence[Candidate], values: Mapping[Candidate, float], scene: Scene, allowed: float
) -> list[Candidate]:
    """Who must go so that the rest can be scored on this scene, and the winner on all rows; the worst first."""
    if not values:
        return []
    ahead = sorted(running, key=lambda candidate: (-pilot.better(values[candidate]), candidate.weight))
    new = scene.rows.size - pilot.count(ahead[0])
    left = allowed - pilot.forwards - (pilot.n - scene.rows.size)
    return ahead[max(1, int(min(left / new, len(ahead)))) :]


def _chances(
    pilot: Pilot,
    scored: Scored,
    leader: Candidate,
    scene: Scene,
    tolerance: float,
    resamples: int,
    random: np.random.Generator,
) -> dict[Candidate, float]:
    """For each other candidate the share of resamples in which it beats the leader by more than the tolerance."""

    def urn(scored_patients: int, left: int) -> NDArray[np.float64]:
        share = random.standard_exponential((size, scored_patients))
        return 1.0 + random.multinomial(left, share / share.sum(axis=1, keepdims=True)).astype(np.float64)

    won = dict.fromkeys((candidate for candidate in scored if candidate != leader), 0)
    block = max(1, _BLOCK // scene.rows.size)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        weight = scene.spread(size, urn)
        drawn = {candidate: pilot.metric(score, scene.label, weight) for candidate, score in scored.items()}
        for candidate in won:
            won[candidate] += int((pilot.better(drawn[candidate] - drawn[leader]) > tolerance).sum())
    return {candidate: count / resamples for candidate, count in won.items()}


def _wilcoxon(pilot: Pilot, scored: Scored, leader: Candidate, scene: Scene) -> dict[Candidate, float]:
    """One-sided p-values of the signed-rank test that the leader has the greater pseudo-values, patient by patient."""
    patients = np.unique(scene.patient)
    without: dict[Candidate, list[NDArray[np.float64]]] = {candidate: [] for candidate in scored}
    block = max(1, _BLOCK // scene.rows.size)
    for start in range(0, patients.size, block):
        weight = scene.weight * (scene.patient != patients[start : start + block, None])
        for candidate, score in scored.items():
            without[candidate].append(np.asarray(pilot.metric(score, scene.label, weight)))
    # The difference of two pseudo-values, m T - (m - 1) T without the patient, but for the factor.
    count, full = patients.size, scene.weight
    pseudo = {
        candidate: count * np.asarray(pilot.metric(scored[candidate], scene.label, full[None]))[0]
        - (count - 1) * np.concatenate(parts)
        for candidate, parts in without.items()
    }
    p_values = {}
    for candidate in scored:
        ahead = pilot.better(pseudo[leader] - pseudo[candidate])
        ahead = ahead[~np.isnan(ahead)]
        if candidate != leader:
            test = wilcoxon(ahead, alternative="greater") if ahead.any() else (np.nan, 1.0)
            p_values[candidate] = float(np.asarray(test)[1])
    return p_values
