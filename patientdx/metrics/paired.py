"""Two models on the same rows: is one better, and is that still so when many are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from scipy.stats import binomtest, norm, rankdata

from patientdx.metrics.bootstrap import (
    Bootstrap,
    BootstrapOptions,
    Name,
    Spread,
    check_level,
    difference_ends,
    paired_spread,
    subtracted,
)
from patientdx.metrics.intervals import Estimate, estimate, with_ends
from patientdx.metrics.jackknife import Jackknife
from patientdx.metrics.ranking import check_scores
from patientdx.metrics.specification import Metric


@dataclass(frozen=True)
class DeLong:
    """AUROC of models a and b, a - b with its normal interval, its standard error, and the two-sided p-value."""

    auroc_a: float
    auroc_b: float
    difference: float
    low: float
    high: float
    standard_error: float
    p_value: float


def delong(score_a: ArrayLike, score_b: ArrayLike, label: ArrayLike, *, level: float = 0.95) -> DeLong:
    """DeLong's test of two correlated AUROCs (DeLong et al., Biometrics 1988), in O(n log n) by ranks.

    Scores and labels (n,) as in `patientdx.metrics.ranking`; midranks as in Sun and Xu, IEEE Signal Proc. Let. 2014.
    Rows are taken as independent: with several stays per patient the interval is too narrow, and `paired_estimate` is
    to be used. Raises ValueError as metrics do, for fewer than two events or non-events, and where the standard error
    is 0 though the areas differ.
    """
    check_level(level)
    score_a, label, _, _ = check_scores(score_a, label, None)
    score_b, _, _, _ = check_scores(score_b, label, None)
    events = int(label.sum())
    if min(events, label.size - events) < 2:
        raise ValueError(f"DeLong's test needs two events and two non-events; {events} of {label.size} rows are events")
    above_a, below_a = _placements(score_a, label)
    above_b, below_b = _placements(score_b, label)
    auroc_a, auroc_b = float(above_a.mean()), float(above_b.mean())
    difference = auroc_a - auroc_b
    variance = np.var(above_a - above_b, ddof=1) / events + np.var(below_a - below_b, ddof=1) / (label.size - events)
    error = float(np.sqrt(variance))
    if error == 0 and difference != 0:
        raise ValueError("DeLong's test has no answer: both models rank without any spread")
    p_value = 1.0 if error == 0 else float(2 * norm.sf(abs(difference) / error))
    reach = float(ndtri((1 + level) / 2)) * error
    return DeLong(auroc_a, auroc_b, difference, difference - reach, difference + reach, error, p_value)


@dataclass(frozen=True)
class McNemar:
    """Rows that only a, and only b, has right, and the two-sided p-value of "both are right equally often"."""

    only_a: int
    only_b: int
    p_value: float


def mcnemar(right_a: ArrayLike, right_b: ArrayLike) -> McNemar:
    """McNemar's exact test of two models on the same rows (McNemar, Psychometrika 1947, with the binomial).

    `right_a` and `right_b` (n,): whether each model has a row right, 0 or 1. Rows on which both agree carry no
    information; of the others half are a's under the null. Rows are taken as independent. Raises ValueError for arrays
    of other shapes or values.
    """
    a, b = np.asarray(right_a), np.asarray(right_b)
    if a.ndim != 1 or a.shape != b.shape or not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise ValueError("both models need one answer a row, right (1) or wrong (0), on the same rows")
    only_a, only_b = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    discordant = only_a + only_b
    return McNemar(only_a, only_b, 1.0 if not discordant else float(binomtest(only_a, discordant).pvalue))


def paired_estimate(
    metric: Metric,
    score_a: ArrayLike,
    score_b: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    **options: Unpack[BootstrapOptions],
) -> Estimate:
    """The metric of model a minus that of b as an estimate with `p_value`, None where there is none.

    Arguments and errors as in `bootstrap.paired_difference`; the p-value is that of `jackknife.Jackknife.difference`,
    or of `bootstrap.bootstrap_p` for a metric whose interval comes from resamples.
    """
    bootstrap = Bootstrap(**options)
    value, spread = paired_spread(metric, score_a, score_b, label, subject, bootstrap)
    return _difference(value, spread, np.unique(np.asarray(subject)).size, bootstrap.level)


def difference_of(value: float, a: Spread, b: Spread, patients: int, level: float) -> Estimate:
    """The same from a difference and what each model's interval comes from, on the same rows of `patients`."""
    return _difference(value, subtracted(a, b), patients, level)


def _difference(value: float, spread: Spread, patients: int, level: float) -> Estimate:
    low, high, p_value = difference_ends(value, spread, patients, level)
    made = with_ends(value, low, high, spread) if isinstance(spread, Jackknife) else estimate(value, spread, level)
    return made | {"p_value": p_value}


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """p-values of a family, corrected so that the chance of any false claim stays below the level (Holm 1979)."""
    ordered = sorted(p_values, key=p_values.__getitem__)
    corrected, least = {}, 0.0
    for index, name in enumerate(ordered):
        p = p_values[name]
        if not 0 <= p <= 1:
            raise ValueError(f"p-values lie between 0 and 1; {name} has {p}")
        least = max(least, min(1.0, (len(ordered) - index) * p))
        corrected[name] = least
    return {name: corrected[name] for name in p_values}


def _placements(score, label) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per event the fraction of non-events below it, per non-event the fraction of events above; ties one half."""
    overall = rankdata(score)
    pos, neg = score[label], score[~label]
    above = (overall[label] - rankdata(pos)) / neg.size
    below = 1 - (overall[~label] - rankdata(neg)) / pos.size
    return above, below
