"""The same models on patients of elsewhere: everything that is fitted or chosen is frozen, and both sides are shown.

Recalibration and threshold come from the pilot split of the first hospital. The loss is how much worse a model is
elsewhere, by the direction of the metric; patients of both sides are drawn independently. Losses of two models are
compared on the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patientdx.metrics import calibration, decision, ranking
from patientdx.metrics.bootstrap import bootstrap_p
from patientdx.metrics.clinical import Scored
from patientdx.metrics.intervals import Drawn, Estimate, absent, estimate, estimates, on_scores
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
    drawn: dict[str, Drawn] = {}
    for role in inside:
        fit, threshold = _frozen(pilot.get(role))
        sides = {}
        for number, (side, scored) in enumerate((("inside", inside[role]), ("outside", outside[role]))):
            metrics = _metrics(scored, fit, threshold)
            # Another seed for each side: the draws of one say nothing about those of the other.
            sides[side] = estimates(
                metrics, scored.probability, scored.label, scored.subject, seed=2 * seed + number, **options
            )
        measures, drawn[role] = _measures(sides, level)
        models[role] = {
            "measures": measures,
            "threshold": threshold,
            "fit": None if fit is None else vars(fit),
        }
    first = next(iter(inside))
    patients = min(len(set(scored[first].subject)) for scored in (inside, outside))
    paired = [
        {"a": first, "b": role} | _paired(models, drawn, first, role, patients, level)
        for role in inside
        if role != first
    ]
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
    sides: Mapping[str, tuple[dict[str, Estimate], Drawn]], level: float
) -> tuple[dict[str, dict[str, Estimate]], Drawn]:
    """The estimates of each measure, and the losses on each resample."""
    (inside, drawn_inside), (outside, drawn_outside) = sides["inside"], sides["outside"]
    measures, losses = {}, {}
    for name in inside:
        measures[name] = {"inside": inside[name], "outside": outside[name]}
        metric = COMPARED.get(name.removeprefix(f"{_RECALIBRATED} "))
        if metric is None:
            continue
        if name not in drawn_inside or name not in drawn_outside:
            measures[name]["loss"] = absent("one side has no value")
            continue
        sign = 1.0 if metric_spec(metric).greater_is_better else -1.0
        losses[name] = sign * (drawn_inside[name] - drawn_outside[name])
        measures[name]["loss"] = estimate(_loss(measures[name], sign), losses[name], level)
    return measures, losses


def _loss(measure: Mapping[str, Estimate], sign: float) -> float:
    return sign * (measure["inside"]["value"] - measure["outside"]["value"])


def _paired(
    models: Mapping[str, Any], drawn: Mapping[str, Drawn], a: str, b: str, patients: int, level: float
) -> dict[str, Estimate]:
    """The loss of a minus that of b, on the same resamples, by measure."""
    result = {}
    for name in COMPARED:
        if name in drawn[a] and name in drawn[b]:
            values = [models[role]["measures"][name]["loss"]["value"] for role in (a, b)]
            differences: NDArray[np.float64] = drawn[a][name] - drawn[b][name]
            result[name] = estimate(values[0] - values[1], differences, level)
            result[name]["p_value"] = bootstrap_p(differences, patients)
    return result


def _sizes(scored: Scored) -> dict[str, Any]:
    label = np.asarray(scored.label)
    return {
        "n": int(label.size), "patients": len(set(scored.subject)), "events": int(label.sum()),
        "prevalence": float(label.mean()),
    }  # fmt: skip
