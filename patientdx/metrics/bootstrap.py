"""Uncertainty of a metric by patients, whose rows are not independent.

Intervals come from the values of a metric without each patient, see `patientdx.metrics.jackknife`. A metric that is not
smooth or not declared gets the percentile interval of a bootstrap: patients are drawn with replacement, each with all
rows (the cluster bootstrap; Field and Welsh, J. R. Stat. Soc. B 2007). Metrics take all resamples, or patients left
out, of a block at once as weights (resamples, n), see `patientdx.metrics.specification`: scores are sorted once a block
and never copied.

The draws depend on nothing but the seed and the patients: metrics and models with the same seed and the same rows get
the same resamples, which is what makes a difference between two models paired.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict, TypeVar, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.core.errors import UserError
from patientdx.metrics.jackknife import Deletion, Jackknife, check_patients
from patientdx.metrics.specification import Metric, declared

# Weights held at once, in numbers: small enough for the cache, and the bound on memory however many rows.
_BLOCK = 1 << 18

Seed = int | Sequence[int]
Name = TypeVar("Name", bound=Hashable)
# What an interval comes from; of two models on the same rows, a - b is that of their difference.
Spread = Jackknife | NDArray[np.float64]


class BootstrapOptions(TypedDict, total=False):
    """The keyword arguments of `Bootstrap`, for functions that pass them on."""

    resamples: int
    level: float
    seed: int


@dataclass(frozen=True)
class Bootstrap:
    """The level of intervals, and how many resamples are drawn from which seed where they come from resamples; a
    jackknife leaves out patients in at most as many groups.

    UserError for fewer than 1 resample or a level outside (0, 1).
    """

    resamples: int = 2000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        check_level(self.level)
        _check_resamples(self.resamples)

    @property
    def keywords(self) -> dict[str, Any]:
        """As the functions of `patientdx.metrics` take them."""
        return asdict(self)


@dataclass(frozen=True)
class Interval:
    """A value with its interval, whose ends are NaN where patients are too few for one.

    `n` rows, `events` of them positive, of `patients`.
    """

    value: float
    low: float
    high: float
    n: int
    events: int
    patients: int
    level: float

    @property
    def ends(self) -> tuple[float, float] | tuple[None, None]:
        """Both ends, None where there is no interval."""
        return (None, None) if np.isnan(self.low) else (self.low, self.high)


def interval(
    metric: Metric, score: ArrayLike, label: ArrayLike, subject: ArrayLike, **options: Unpack[BootstrapOptions]
) -> Interval:
    """The metric and its interval by patients.

    `score` (n,) or (n, k) and `label` (n,) as the metric takes them; `subject` (n,) is one id per row, of a type that
    can be sorted; `options` as in `Bootstrap`. Raises ValueError as the metric does, and UserError for settings or
    sizes that give no interval.
    """
    return intervals({"": metric}, score, label, subject, **options)[""]


def intervals(
    metrics: Mapping[Name, Metric],
    score: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    **options: Unpack[BootstrapOptions],
) -> dict[Name, Interval]:
    """`interval` for several metrics. Same arguments, same errors."""
    bootstrap, label = Bootstrap(**options), np.asarray(label)
    values = {name: metric(score, label) for name, metric in metrics.items()}
    by_name = spreads(metrics, score, label, subject, bootstrap)
    sizes = label.size, int(label.sum()), np.unique(np.asarray(subject)).size
    return {
        name: Interval(
            float(values[name]), *ends(values[name], by_name[name], bootstrap.level, metric), *sizes, bootstrap.level
        )
        for name, metric in metrics.items()
    }


def paired_difference(
    metric: Metric,
    score_a: ArrayLike,
    score_b: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    **options: Unpack[BootstrapOptions],
) -> Interval:
    """The metric of model a minus that of model b on the same rows, with the interval of the difference.

    Arguments and errors as in `interval`. An interval that leaves out 0 means that the models differ.
    """
    bootstrap, label = Bootstrap(**options), np.asarray(label)
    value, spread = paired_spread(metric, score_a, score_b, label, subject, bootstrap)
    patients = np.unique(np.asarray(subject)).size
    low, high, _ = difference_ends(value, spread, patients, bootstrap.level)
    return Interval(value, low, high, label.size, int(label.sum()), patients, bootstrap.level)


def paired_spread(
    metric: Metric,
    score_a: ArrayLike,
    score_b: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    bootstrap: Bootstrap,
) -> tuple[float, Spread]:
    """The metric of model a minus that of b, and what the interval of that difference comes from."""
    value = float(metric(score_a, label) - metric(score_b, label))
    a, b = (spreads({"": metric}, score, label, subject, bootstrap)[""] for score in (score_a, score_b))
    return value, subtracted(a, b)


def subtracted(a: Spread, b: Spread) -> Spread:
    """What the interval of a difference comes from. ValueError for a jackknife and a bootstrap."""
    if isinstance(a, Jackknife) and isinstance(b, Jackknife):
        return a - b
    if isinstance(a, Jackknife) or isinstance(b, Jackknife):
        raise ValueError("a difference needs two metrics with the same kind of interval")
    return a - b


def spreads(
    metrics: Mapping[Name, Metric], score: ArrayLike, label: ArrayLike, subject: ArrayLike, bootstrap: Bootstrap
) -> dict[Name, Spread]:
    """What the interval of each metric comes from: its values without each patient, or those of resamples.

    Patients are left out in at most `bootstrap.resamples` groups.
    """
    label, made = np.asarray(label), {}
    specs = {name: declared(metric) for name, metric in metrics.items()}
    _check_rows(score, label, subject)
    check_patients(np.unique(np.asarray(subject)).size)
    for has_events in (True, False):
        smooth = {
            name: metrics[name]
            for name, spec in specs.items()
            if spec is not None and spec.is_smooth and spec.has_events == has_events
        }
        if smooth:
            event = label.astype(bool) if has_events else np.zeros(label.size, dtype=bool)
            deletion = Deletion.of(subject, event, bootstrap.resamples)
            without = _on_weights(smooth, score, label, deletion.weights(), deletion.has_event.size)
            made |= {name: Jackknife(values, deletion) for name, values in without.items()}
    others = {name: metric for name, metric in metrics.items() if name not in made}
    if others:
        made |= replicates(others, score, label, subject, resamples=bootstrap.resamples, seed=bootstrap.seed)
    return made


def ends(value: Any, spread: Spread, level: float, metric: Metric) -> tuple[float, float]:
    """Ends of the interval of a value of this metric; NaN where there is none."""
    spec = declared(metric)
    if isinstance(spread, Jackknife) and spec is not None:
        return spread.interval(float(value), level, spec)
    return percentile_interval(np.asarray(spread), level)[:2]


def difference_ends(value: float, spread: Spread, patients: int, level: float) -> tuple[float, float, float | None]:
    """Ends of the interval of a difference, NaN where there is none, and the p-value of "no difference" or None."""
    if isinstance(spread, Jackknife):
        low, high, p_value = spread.difference(value, level)
        return low, high, None if np.isnan(p_value) else p_value
    return *percentile_interval(spread, level)[:2], bootstrap_p(spread, patients)


def replicates(
    metrics: Mapping[Name, Metric],
    score: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    *,
    resamples: int = 2000,
    seed: Seed = 0,
) -> dict[Name, NDArray[np.float64]]:
    """Each metric on each resample, (resamples,), NaN where a resample has only one class.

    Entry i of every metric, and of every model with the same seed and rows, comes from the same patients.
    """
    _check_resamples(resamples)
    _check_rows(score, label, subject)
    return _on_weights(metrics, score, label, patient_weights(subject, resamples, seed), resamples)


def _check_rows(score: ArrayLike, label: ArrayLike, subject: ArrayLike) -> None:
    if not np.asarray(score).shape[:1] == np.asarray(label).shape == np.asarray(subject).shape:
        raise ValueError("score, label and subject must be of one shape (n,); score alone may be (n, k)")


def _on_weights(
    metrics: Mapping[Name, Metric], score: ArrayLike, label: ArrayLike, weights: Iterator[Any], count: int
) -> dict[Name, NDArray[np.float64]]:
    """Each metric on `count` rows of weights that come in blocks (some, n)."""
    values, done = {name: np.empty(count) for name in metrics}, 0
    for weight in weights:
        for name, metric in metrics.items():
            value = np.asarray(metric(score, label, weight))
            if value.shape != (len(weight),):
                raise UserError(
                    f"the metric {getattr(metric, '__name__', metric)} gave shape {value.shape} for weights "
                    f"{weight.shape}; a metric must return one per resample (see patientdx.metrics.specification)"
                )
            values[name][done : done + len(weight)] = value
        done += len(weight)
    return values


def patient_weights(subject: ArrayLike, resamples: int, seed: Seed) -> Iterator[NDArray[np.float64]]:
    """Blocks of (some resamples, n): how often each row's patient was drawn."""
    _, patient = np.unique(np.asarray(subject), return_inverse=True)
    patients = int(patient.max()) + 1 if patient.size else 0
    check_patients(patients)
    one_row_each = patients == patient.size and np.array_equal(patient, np.arange(patients))
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK // patient.size)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        draw = random.integers(0, patients, size=(rows, patients), dtype=np.int64)
        draw += np.arange(rows)[:, None] * patients
        count = np.bincount(draw.ravel(), minlength=rows * patients).reshape(rows, patients)
        count = count.astype(np.float64)
        yield count if one_row_each else count[:, patient]


def percentile_interval(drawn: NDArray[np.float64], level: float) -> tuple[float, float, int]:
    """Ends of the percentile interval of replicates (resamples,), and how many were used: NaN are left out.

    Without any replicate left, the ends are NaN.
    """
    usable = drawn[~np.isnan(drawn)]
    if not usable.size:
        return np.nan, np.nan, 0
    low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high), int(usable.size)


def bootstrap_p(drawn: NDArray[np.float64], patients: int) -> float | None:
    """Two-sided p-value of "no difference" from differences (resamples,) resampled by patient, NaN left out.

    Twice the fraction of resamples on the rarer side of 0, counting one more than was drawn so that it is never
    0 (Davison and Hinkley 1997, section 4.2.5); the percentile interval of level 1 - p just reaches 0. None without
    a resample. The smallest possible is 2 / (resamples + 1), and 2 / 2^n of n patients: where all n point one way, an
    exact test of their signs cannot give less, and resamples of a few patients all look alike.
    """
    usable = drawn[~np.isnan(drawn)]
    if not usable.size:
        return None
    rarer = min(int((usable <= 0).sum()), int((usable >= 0).sum()))
    return min(1.0, max(2 * (rarer + 1) / (usable.size + 1), 2.0 ** (1 - patients)))


def check_level(level: float) -> None:
    """UserError for a level outside (0, 1)."""
    if not 0 < level < 1:
        raise UserError(f"level={level} is not valid: an interval's level lies between 0 and 1, such as 0.95")


def _check_resamples(resamples: int) -> None:
    if resamples < 1:
        raise UserError(f"resamples={resamples} is not valid: a bootstrap needs at least 1")
