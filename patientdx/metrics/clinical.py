"""A clinical evaluation: the scores of several models on the same stays in, one dict of plain numbers out.

What it holds, and in which order, follows Van Calster et al., Lancet Digit. Health 2025, and TRIPOD+AI, BMJ 2024.
It holds no id and no text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patientdx.core.errors import UserError
from patientdx.metrics import calibration, decision, paired, ranking
from patientdx.metrics.decision import decision_curve
from patientdx.metrics.intervals import Drawn, absent, estimates, on_scores
from patientdx.metrics.prompt_variants import VariantScores, abstention, variant_spread
from patientdx.metrics.smooth_calibration import smooth_metrics
from patientdx.metrics.specification import Metric
from patientdx.metrics.subgroups import subgroups
from patientdx.metrics.thresholds import Rule

# What is fitted or binned anew in each resample takes longest; so many are enough for it.
FIT_RESAMPLES = 500
COMPARED = ("auroc", "auprc", "brier", "log_loss")
_RANKING: dict[str, Metric] = {"auroc": ranking.auroc, "auprc": ranking.auprc}
_MEANS: dict[str, Metric] = {
    "brier": calibration.brier,
    "scaled_brier": calibration.scaled_brier,
    "log_loss": calibration.log_loss,
    "observed_minus_expected": calibration.observed_minus_expected,
}
_FITS: dict[str, Metric] = {
    "intercept": calibration.calibration_intercept,
    "slope": calibration.calibration_slope,
}
_SPECIFICITIES = {
    f"{target:.2f}": partial(decision.sensitivity_at_specificity, target=target) for target in (0.9, 0.95)
}
_AT_THRESHOLD = {
    name: getattr(decision, name) for name in ("sensitivity", "specificity", "ppv", "npv", "alerts_per_100")
}
# Thresholds at which the net benefit has an interval; the curve has all percents.
RISKS = (0.05, 0.1, 0.2, 0.3, 0.5)
_BENEFITS = {f"{risk:.2f}": partial(decision.net_benefit, threshold=risk) for risk in RISKS}
SMOOTH = ("ici", "e50", "e90")
_RECALIBRATIONS = {"logistic": calibration.fit_logistic, "temperature": calibration.fit_temperature}
_HISTOGRAM_BINS = 25


@dataclass(frozen=True)
class Scored:
    """One model on the stays of one split: probability of the event (n,), label 0 or 1 (n,), patient of each stay.

    `mass` (n,) is what went to yes and no together; None for a model that does not answer in words.
    """

    probability: NDArray[np.float64]
    label: NDArray[np.int64]
    subject: list[str]
    mass: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class _Settings:
    """What every part of one evaluation goes by."""

    reported: str
    pilot: str | None
    rule: Rule
    intersections: Sequence[Sequence[str]]
    groups: Mapping[str, Sequence[str]]
    bins: int
    min_events: int
    min_rows: int
    bootstrap: dict[str, Any]


def evaluate(
    scored: Mapping[tuple[str, str], Scored],
    *,
    reported: str = "test",
    pilot: str | None = "pilot",
    groups: Mapping[str, Sequence[str]] | None = None,
    wordings: Mapping[str, Mapping[str, VariantScores]] | None = None,
    rule: Rule = Rule(),  # noqa: B008 - immutable
    intersections: Sequence[Sequence[str]] = (),
    min_events: int = 20,
    min_rows: int = 10,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that is printed about models, as a dict that JSON can hold: no NaN, no array.

    `scored` by (role, split); within a split all roles have the same stays in the same order. Each role is judged on
    the `reported` split. Recalibration and the threshold (chosen by `rule`) come from the `pilot` split; without one
    they are left out and their place says why. `groups` hold a value for each stay of the reported split, by name;
    `wordings` the probabilities for the same stays under other wordings, by role and name. `min_events`, `min_rows`
    and `intersections`: see `metrics.subgroups`.

    Keys: `reported`, `pilot`, `level`, `resamples`, `fit_resamples` (of ECE, intercept and slope), `seed`, `bins` (of
    equal mass: 10, or fewer so that each has `min_rows` stays), `cohorts` by split, `patients_in_both` splits (None
    without pilot), `models` by role and `comparisons`. A model has `discrimination`, `calibration`, `decision_curve`
    and `net_benefit` (raw and recalibrated; the last at RISKS, with intervals), `threshold`, `distribution`,
    `subgroups`, `abstention` and `wording`. Compared is merged with every other role, or without a merged model every
    pair. Estimates are those of `metrics.estimates`; p-values are two-sided, `p_holm` corrected over one metric.

    Raises UserError for splits, roles and lengths that do not fit, a reported split with one class only, and fewer
    than 2 patients; ValueError for scores that are not probabilities.
    """
    groups, wordings = groups or {}, wordings or {}
    roles = _checked_roles(scored, reported, pilot, wordings)
    n = len(scored[roles[0], reported].label)
    settings = _Settings(
        reported, pilot, rule, intersections, groups, max(1, min(10, n // max(1, min_rows))), min_events, min_rows,
        {"resamples": resamples, "level": level, "seed": seed},
    )  # fmt: skip
    models, drawn = {}, {}
    for role in roles:
        test, tuned = scored[role, reported], None if pilot is None else scored.get((role, pilot))
        models[role], drawn[role] = _model(settings, test, tuned)
        if wordings.get(role):
            models[role]["wording"] = variant_spread(
                test.probability, wordings[role], test.label, test.subject, **settings.bootstrap
            )
    return {
        "reported": reported,
        "pilot": pilot,
        "level": level,
        "resamples": resamples,
        "fit_resamples": min(resamples, FIT_RESAMPLES),
        "seed": seed,
        "bins": settings.bins,
        **_cohorts(scored, settings),
        "models": models,
        "comparisons": _comparisons(scored, settings, roles, models, drawn),
    }


def _checked_roles(scored, reported: str, pilot: str | None, wordings) -> list[str]:
    """The roles in the order given. Refuses what cannot be compared."""
    if pilot == reported:
        raise UserError(
            f"recalibration and threshold cannot be fitted on the {reported} split and reported on it: "
            f"name another split as pilot, or pilot=None"
        )
    roles = list(dict.fromkeys(role for role, _ in scored))
    missing = [role for role in roles if (role, reported) not in scored]
    if missing or not roles:
        raise UserError(f"there are no scores of {', '.join(missing) or 'any model'} on the {reported} split to report")
    unknown = [role for role in wordings if role not in roles]
    if unknown:
        raise UserError(f"there are wordings for {', '.join(unknown)} but no scores on the {reported} split")
    for split in (reported, *([pilot] if pilot else [])):
        same: Scored | None = None
        for role in roles:
            item = scored.get((role, split))
            if item is None:
                continue
            if not np.shape(item.probability) == np.shape(item.label) == (len(item.subject),):
                raise UserError(f"{role} on {split}: probabilities, labels and patients must be one a stay")
            same = same or item
            if not np.array_equal(item.label, same.label) or list(item.subject) != list(same.subject):
                raise UserError(f"the models were not scored on the same stays of the {split} split in the same order")
    label = np.asarray(scored[roles[0], reported].label)
    events = int(label.sum())
    if events in (0, label.size):
        raise UserError(
            f"{events} of {label.size} stays of the {reported} split have the event; an evaluation needs both outcomes"
        )
    return roles


def _cohorts(scored, settings: _Settings) -> dict[str, Any]:
    """Sizes of both splits, and how many patients they share."""
    first = {split: item for (_, split), item in scored.items() if split in (settings.pilot, settings.reported)}
    cohorts = {}
    for split in sorted(first, key=[settings.pilot, settings.reported].index):
        label = np.asarray(first[split].label)
        events, patients = int(label.sum()), len(set(first[split].subject))
        cohorts[split] = {"n": label.size, "patients": patients, "events": events, "prevalence": events / label.size}
    both = set.intersection(*(set(item.subject) for item in first.values()))
    return {"cohorts": cohorts, "patients_in_both": len(both) if settings.pilot in first else None}


def _model(settings: _Settings, test: Scored, tuned: Scored | None) -> tuple[dict[str, Any], Drawn]:
    """One model's part of the evaluation, and its metrics on each resample for the comparisons."""
    score, label, _, _ = calibration.check_probabilities(test.probability, test.label, None)
    chosen = _threshold(settings, tuned)
    kinds: dict[str, Any] = {"raw": None, **_recalibrations(settings, tuned)}
    metrics: dict[Any, Metric] = _RANKING | {("at", name): metric for name, metric in _SPECIFICITIES.items()}
    fits: dict[Any, Metric] = {}
    probabilities = {}
    for kind, fit in kinds.items():
        if kind == "raw" or callable(fit):
            probabilities[kind] = score if fit is None else fit(score)
            metrics |= _on(probabilities[kind], kind, _MEANS) | _on(probabilities[kind], (kind, "benefit"), _BENEFITS)
            of_fit = _FITS | smooth_metrics() | {"ece": partial(calibration.ece, bins=settings.bins)}
            fits |= _on(probabilities[kind], kind, of_fit)
    if chosen["value"] is not None:
        metrics |= {("threshold", k): partial(m, threshold=chosen["value"]) for k, m in _AT_THRESHOLD.items()}
    result, drawn = estimates(metrics, score, label, test.subject, **settings.bootstrap)
    fewer = settings.bootstrap | {"resamples": min(settings.bootstrap["resamples"], FIT_RESAMPLES)}
    result |= estimates(fits, score, label, test.subject, **fewer)[0]
    at_threshold = {key[1]: item for key, item in result.items() if key[0] == "threshold"}
    shown = {
        "discrimination": {
            **{name: result[name] for name in _RANKING},
            "sensitivity_at_specificity": {name: result["at", name] for name in _SPECIFICITIES},
            "roc": ranking.roc_curve(score, label),
            "pr": ranking.pr_curve(score, label),
        },
        "calibration": {
            kind: _calibration(kind, fit, probabilities[kind], label, result, settings)
            if kind in probabilities
            else fit
            for kind, fit in kinds.items()
        },
        "at_the_edge": int(((score == 0) | (score == 1)).sum()),
        "threshold": chosen | at_threshold | settings.rule.described(at_threshold),
        "decision_curve": {kind: decision_curve(item, label) for kind, item in probabilities.items()},
        "net_benefit": {kind: {risk: result[(kind, "benefit"), risk] for risk in _BENEFITS} for kind in probabilities},
        "distribution": _distribution(score, label),
        "subgroups": subgroups(
            score, label, test.subject, settings.groups, threshold=chosen["value"],
            min_events=settings.min_events, min_rows=settings.min_rows, intersections=settings.intersections,
            **settings.bootstrap,
        ) if settings.groups else {},
        "abstention": None if test.mass is None else abstention(test.mass),
    }  # fmt: skip
    raw = {name: drawn["raw", name] for name in COMPARED if ("raw", name) in drawn}
    return shown, raw | {name: drawn[name] for name in _RANKING}


def _on(score: NDArray[np.float64], kind: Any, metrics: Mapping[str, Metric]) -> dict[Any, Metric]:
    """The metrics of these probabilities, by (kind, name)."""
    return {(kind, name): on_scores(metric, score) for name, metric in metrics.items()}


def _without_pilot(settings: _Settings) -> str:
    if settings.pilot is None:
        return "no pilot split was given to fit it on"
    return f"there are no scores of this model on the {settings.pilot} split to fit it on"


def _threshold(settings: _Settings, tuned: Scored | None) -> dict[str, Any]:
    """The threshold with the rule that chose it, or why there is none."""
    if tuned is None:
        return absent(_without_pilot(settings))
    try:
        value = settings.rule.choose(tuned.probability, tuned.label)
    except ValueError as error:
        return absent(f"on {settings.pilot}: {error}")
    return {"value": value, "rule": settings.rule.name, "chosen_on": settings.pilot}


def _recalibrations(settings: _Settings, tuned: Scored | None) -> dict[str, Any]:
    """Each kind fitted on pilot, or the estimate that says why not."""
    kinds: dict[str, Any] = {}
    for kind, fit in _RECALIBRATIONS.items():
        try:
            kinds[kind] = absent(_without_pilot(settings)) if tuned is None else fit(tuned.probability, tuned.label)
        except ValueError as error:
            kinds[kind] = absent(f"on {settings.pilot}: {error}")
    return kinds


def _calibration(kind: str, fit, score, label, result, settings: _Settings) -> dict[str, Any]:
    """The estimates of one kind of probabilities with their curve; fitted kinds also say by what."""
    shown = {name: result[kind, name] for name in (*_MEANS, *_FITS, "ece", *SMOOTH)}
    try:
        shown["ece_if_calibrated"] = calibration.ece_if_calibrated(
            score, bins=settings.bins, seed=settings.bootstrap["seed"]
        )
    except ValueError:
        shown["ece_if_calibrated"] = None
    shown["curve"] = calibration.calibration_curve(score, label, bins=settings.bins, level=settings.bootstrap["level"])
    if fit is not None:
        shown |= {"fitted_on": settings.pilot, "fit": asdict(fit)}
    return shown


def _distribution(score, label) -> dict[str, list]:
    """How many stays with and without the event have a probability in each of equal steps from lowest to highest."""
    low, high = float(score.min()), float(score.max())
    if low == high:
        low, high = max(0.0, low - 0.01), min(1.0, high + 0.01)
    edges = np.linspace(low, high, _HISTOGRAM_BINS + 1)
    counts = (np.histogram(side, edges)[0].tolist() for side in (score[label], score[~label]))
    return {"edges": edges.tolist(), **dict(zip(("events", "others"), counts, strict=True))}


def _comparisons(scored, settings: _Settings, roles: list[str], models, drawn) -> list[dict[str, Any]]:
    """The difference a - b of each pair and metric, with intervals by patient; of the AUROC by DeLong's test too."""
    merged = [("merged", role) for role in roles if role != "merged"]
    pairs = merged if "merged" in roles else list(combinations(roles, 2))
    comparisons = []
    for a, b in pairs:
        comparison: dict[str, Any] = {"a": a, "b": b}
        first, second = scored[a, settings.reported], scored[b, settings.reported]
        patients = np.unique(np.asarray(first.subject)).size
        for name in COMPARED:
            value_a, value_b = (_value(models[role], name) for role in (a, b))
            comparison[name] = paired.difference_of(
                value_a - value_b, drawn[a][name], drawn[b][name], patients, settings.bootstrap["level"]
            )
        try:
            level = settings.bootstrap["level"]
            test = paired.delong(first.probability, second.probability, first.label, level=level)
            comparison["delong"] = {
                "value": test.difference, "low": test.low, "high": test.high, "p_value": test.p_value,
                "rows_independent": len(set(first.subject)) == len(first.subject),
            }  # fmt: skip
        except ValueError as error:
            comparison["delong"] = absent(str(error))
        comparisons.append(comparison)
    for name in (*COMPARED, "delong"):
        known = {
            i: comparison[name]["p_value"]
            for i, comparison in enumerate(comparisons)
            if comparison[name].get("p_value") is not None
        }
        for index, corrected in paired.holm(known).items():
            comparisons[index][name]["p_holm"] = corrected
    return comparisons


def _value(model: Mapping[str, Any], name: str) -> float:
    part = model["discrimination"] if name in _RANKING else model["calibration"]["raw"]
    return part[name]["value"]
