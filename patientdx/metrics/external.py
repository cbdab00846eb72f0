"""The same models on patients of elsewhere: everything that is fitted or chosen is frozen, and both sides are shown.

Recalibration and threshold come from the pilot split of the first hospital. The loss is how much worse a model is
elsewhere, by the direction of the metric; the patients of the two sides are independent of each other. Losses of two
models are compared on the same patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from patientdx.metrics import calibration, decision, ranking
from patientdx.metrics.bootstrap import subtracted
from patientdx.metrics.clinical import Scored
from patientdx.metrics.intervals import Drawn, Estimate, absent, estimates, on_scores, with_ends
from patientdx.metrics.jackknife import Jackknife, independent_difference
from patientdx.metrics.specification import Metric, metric_spec

# The measures with a loss; of the others neither more nor less is better.
COMPARED: dict[str, Metric] = {
    "auroc": ranking.auroc, "auprc": ranking.auprc, "brier": calibration.brier, "log_loss": calibration.log_loss,
}  # fmt: skip
_CALIBRATION: dict[str, Metric] = {
    "slope": calibration.calibration_slope,
    "observed_minus_expected": calibration.observed_minus_expected,
}
_AT_THRESHOLD = ("sensitivity", "specificity", "ppv", "alerts_per_100")
_RECALIBRATED = "recalibrated"


def compare(
    inside: Mapping[str, Scored],
    outside: Mapping[str, Scored],
    pilot: Mapping[str, Scored],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Every measure of every model inside and outside, as plain values that JSON can hold.

    inside, outside, pilot: scores by role; the first role is what the others are compared with. A role that pilot lacks
    has no recalibration and no threshold.

    Keys: `cohorts` by side (n, patients, events, prevalence), `models` by role, each with `measures` by name (`inside`,
    `outside`, and of COMPARED and the recalibrated Brier score `loss`), `threshold` and `fit` (or None), and `paired`:
    the loss of role `a` minus that of role `b` by measure, with a p-value. Raises as `intervals.estimates`.
    """
    options = {"resamples": resamples, "level": level}
    models: dict[str, dict[str, Any]] = {}
    drawn: dict[str, tuple[Drawn, ...]] = {}
    for role in inside:
        fit, threshold = _frozen(pilot.get(role))
        sides = [
            estimates(
                _metrics(scored, fit, threshold), scored.probability, scored.label, scored.subject, seed=seed, **options
            )
            for scored in (inside[role], outside[role])
        ]
        drawn[role] = tuple(spreads for _, spreads in sides)
        models[role] = {
            "measures": _measures([measured for measured, _ in sides], drawn[role], level),
            "threshold": threshold,
            "fit": None if fit is None else vars(fit),
        }
    first = next(iter(inside))
    paired = [{"a": first, "b": role} | _paired(models, drawn, first, role, level) for role in inside if role != first]
    cohorts = {side: _sizes(scored[first]) for side, scored in (("inside", inside), ("outside", outside))}
    return {"cohorts": cohorts, "models": models, "paired": paired, "seed": seed, **options}


def _frozen(tuned: Scored | None) -> tuple[Any, float | None]:
    """Recalibration and threshold of one model on pilot; None where they cannot be fitted."""
    if tuned is None:
        return None, None
    try:
        return (
            calibration.fit_logistic(tuned.probability, tuned.label),
            decision.youden_threshold(tuned.probability, tuned.label),
        )
    except ValueError:
        return None, None


def _metrics(scored: Scored, fit: Any, threshold: float | None) -> dict[str, Metric]:
    metrics = COMPARED | _CALIBRATION
    if fit is not None:
        score = fit(np.asarray(scored.probability, dtype=np.float64))
        further = {"brier": calibration.brier} | _CALIBRATION
        metrics |= {f"{_RECALIBRATED} {name}": on_scores(metric, score) for name, metric in further.items()}
    if threshold is not None:
        metrics |= {name: partial(getattr(decision, name), threshold=threshold) for name in _AT_THRESHOLD}
    return metrics


def _measures(
    sides: Sequence[Mapping[str, Estimate]], drawn: Sequence[Drawn], level: float
) -> dict[str, dict[str, Estimate]]:
    """The estimates of each measure on both sides, and the losses of those that are compared."""
    (inside, outside), measures = sides, {}
    for name in inside:
        measures[name] = {"inside": inside[name], "outside": outside[name]}
        metric = COMPARED.get(name.removeprefix(f"{_RECALIBRATED} "))
        if metric is None:
            continue
        if not all(name in side for side in drawn):
            measures[name]["loss"] = absent("one side has no value")
            continue
        sign = 1.0 if metric_spec(metric).greater_is_better else -1.0
        loss = sign * (inside[name]["value"] - outside[name]["value"])
        measures[name]["loss"], _ = _between_sides(loss, [side[name] for side in drawn], level)
    return measures


def _between_sides(value: float, spreads: Sequence[Any], level: float) -> tuple[Estimate, float | None]:
    """A value inside minus that outside with its interval, and the p-value of "no difference" or None."""
    inside, outside = spreads
    if not (isinstance(inside, Jackknife) and isinstance(outside, Jackknife)):
        raise ValueError("a loss is one of a metric that is smooth")
    low, high, p_value = independent_difference(value, inside, outside, level)
    return with_ends(value, low, high, inside), None if np.isnan(p_value) else p_value


def _paired(
    models: Mapping[str, Any], drawn: Mapping[str, Sequence[Drawn]], a: str, b: str, level: float
) -> dict[str, Estimate]:
    """The loss of a minus that of b, on the same patients, by measure."""
    result = {}
    for name in COMPARED:
        if all(name in side for role in (a, b) for side in drawn[role]):
            values = [models[role]["measures"][name]["loss"]["value"] for role in (a, b)]
            sides = [subtracted(mine[name], theirs[name]) for mine, theirs in zip(drawn[a], drawn[b], strict=True)]
            result[name], p_value = _between_sides(values[0] - values[1], sides, level)
            result[name]["p_value"] = p_value
    return result


def _sizes(scored: Scored) -> dict[str, Any]:
    label = np.asarray(scored.label)
    return {
        "n": int(label.size), "patients": len(set(scored.subject)), "events": int(label.sum()),
        "prevalence": float(label.mean()),
    }  # fmt: skip
