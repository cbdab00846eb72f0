"""A λ for each part of the model, from the best single λ on, by CMA-ES (package cmaes)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cmaes import CMAwM

from patientdx.core.functions import Call
from patientdx.merge.schedule import Schedule
from patientdx.merge.schedule import values as numbers_of
from patientdx.selection.lattice import rounded, span_errors, step_errors, steps
from patientdx.selection.pilot import Candidate, Choice, Pilot, candidates, complete, point_errors

PARTS = ("layers", "kinds")


def depth(
    pilot: Pilot,
    *,
    points: Sequence[float],
    by: str,
    layers: int,
    kinds: Sequence[str],
    between: Sequence[float],
    budget: int,
    sigma: float,
    step: float,
    seed: int,
) -> Choice:
    """The best of a grid of single λ and of `budget` candidates with several, each scored on all pilot units.

    points: the single λ; the best is where the search starts, and what its result is compared with on the reported
    split. by: `layers` searches a gradient of so many λ from the first layer to the last (`merge.schedule`), `kinds`
    one λ for the tensors whose names hold each of the `kinds`, and one for the rest. between: [low, high] of each λ;
    sigma: the spread of the first generation, in units of λ; step: every λ is a multiple of it above low. The search is
    CMA-ES with margin, made for such steps (Hamano et al., GECCO 2022). A tie goes to the single λ.
    """
    singles = {candidate: pilot.value(candidate) for candidate in candidates(points)}
    single = pilot.best(singles)
    low, high = between
    count = layers if by == "layers" else len(kinds) + 1
    start = rounded(numbers_of(single.weight)[0], low, high, step)
    optimiser = CMAwM(
        mean=np.full(count, start),
        sigma=sigma,
        bounds=np.tile([low, low + steps(low, high, step) * step], (count, 1)),
        steps=np.full(count, step),
        seed=seed,
    )
    values: dict[Candidate, float] = {}
    for _ in range(budget):  # generations; fewer suffice unless most of one was scored before
        results = []
        for _ in range(optimiser.population_size):
            at, position = optimiser.ask()
            candidate = Candidate(_schedule(by, kinds, [rounded(number, low, high, step) for number in at]))
            if candidate not in values and len(values) == budget:
                break
            values[candidate] = pilot.value(candidate)
            results.append((position, -pilot.better(values[candidate])))
        if len(results) < optimiser.population_size or optimiser.should_stop():
            break
        optimiser.tell(results)
    outcomes = len(singles) + (steps(low, high, step) + 1) ** count
    all_values = singles | values
    return Choice(pilot.best(all_values), complete(pilot, all_values), outcomes, single=single)


def check(
    low: float,
    high: float,
    merge: Call,
    *,
    points: Any,
    by: str,
    layers: int,
    kinds: Any,
    between: Any,
    budget: int,
    sigma: float,
    step: float,
) -> list[str]:
    """The errors of these numbers for a method whose λ is in [low, high]."""
    errors = [*point_errors(points, low, high), *step_errors(step)]
    errors += span_errors(between, "search.between", low, high, step)
    if by not in PARTS:
        errors.append(f"search.by={by}: it is one of {', '.join(PARTS)}.")
    if by == "layers" and layers < 2:
        errors.append(f"search.layers={layers}: give a whole number of at least 2; for a single λ use search=grid.")
    plain = isinstance(kinds, Sequence) and not isinstance(kinds, str) and all(isinstance(kind, str) for kind in kinds)
    if by == "kinds" and (not plain or not kinds or len(set(kinds)) < len(kinds) or {"", "*", "rest"} & set(kinds)):
        errors.append(
            f"search.kinds={kinds}: give a list of different parts of tensor names, as in [self_attn,mlp]; the rest of "
            "the tensors has a λ of its own."
        )
    if budget < 1:
        errors.append(f"search.budget={budget}: give the number of candidates beside the grid, at least 1.")
    if not 0 < sigma < np.inf:
        errors.append(f"search.sigma={sigma}: give a number above 0.")
    return errors


def _schedule(by: str, kinds: Sequence[str], numbers: Sequence[float]) -> Schedule:
    """λ as `merge.schedule` has it."""
    if by == "layers":
        return tuple(numbers)
    return tuple(zip((*kinds, "*"), numbers, strict=True))
