"""Few candidates on all of the pilot split, each where a Gaussian process expects the most (Optuna's GPSampler)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

import optuna
from optuna.distributions import BaseDistribution, IntDistribution

from patientdx.core.functions import Call
from patientdx.selection.lattice import at, span_errors, step_errors, steps
from patientdx.selection.pilot import Candidate, Choice, Pilot, complete

_WEIGHT = "weight"
_SUGGESTIONS = 4  # for each candidate at the most: one that is suggested again costs nothing, and adds nothing


def bayes(
    pilot: Pilot,
    *,
    between: Sequence[float],
    parameters: Mapping[str, Sequence[float]],
    budget: int,
    start: int,
    step: float,
    seed: int,
) -> Choice:
    """The best of `budget` candidates, each scored on all pilot units.

    between: [low, high] of λ; parameters: the same for numbers of the merge method, which are then searched too. All
    lie a multiple of `step` above their low end, so that models have short names and there are finitely many. The
    first `start` λ stand at equal distances, with parameters at random; each further candidate is where the expected
    improvement is highest.
    """
    spans = {_WEIGHT: between, **dict(sorted(parameters.items()))}
    counts = {name: steps(low, high, step) for name, (low, high) in spans.items()}  # steps of the lattice
    space: dict[str, BaseDistribution] = {name: IntDistribution(0, count) for name, count in counts.items()}
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line for each trial otherwise
    study = optuna.create_study(
        direction="maximize" if pilot.higher_is_better else "minimize",
        sampler=optuna.samplers.GPSampler(seed=seed, n_startup_trials=start),
    )
    for number in range(start):
        study.enqueue_trial({_WEIGHT: round(counts[_WEIGHT] * (2 * number + 1) / (2 * start))})
    values: dict[Candidate, float] = {}
    for _ in range(_SUGGESTIONS * budget):
        trial = study.ask(space)
        numbers = {name: at(trial.params[name], spans[name][0], step) for name in spans}
        candidate = Candidate(numbers.pop(_WEIGHT), tuple(numbers.items()))
        values[candidate] = pilot.value(candidate)
        study.tell(trial, values[candidate])
        if len(values) == budget:
            break
    return Choice(pilot.best(values), complete(pilot, values), math.prod(count + 1 for count in counts.values()))


def check(
    low: float, high: float, merge: Call, *, between: Any, parameters: Any, budget: int, start: int, step: float
) -> list[str]:
    """The errors of these numbers for a method whose λ is in [low, high]."""
    errors = [*step_errors(step), *span_errors(between, "search.between", low, high, step)]
    if budget < 1:
        errors.append(f"search.budget={budget}: give the number of candidates to look at, at least 1.")
    if not 1 <= start <= max(1, budget):
        errors.append(f"search.start={start}: give a whole number from 1 to search.budget={budget}.")
    if not isinstance(parameters, Mapping):
        return [
            *errors,
            f"search.parameters={parameters}: give a mapping, as in +search.parameters.density=[0.2,0.9].",
        ]
    hints = get_type_hints(merge.function)
    known = [
        name
        for name in inspect.signature(merge.function).parameters
        if name in merge.keywords and hints.get(name) is float
    ]
    for name, span in parameters.items():
        if name not in known:
            method = merge.function.__name__
            errors.append(
                f"search.parameters.{name}: {method} has no such number; it has {', '.join(known) or 'none'}."
            )
        else:
            errors += span_errors(span, f"search.parameters.{name}", -math.inf, math.inf, step)
    return errors
