"""Uncertainty of a metric, by drawing patients.

Rows of one patient are not independent, so patients are drawn with replacement, each with all rows (the cluster
bootstrap; Field and Welsh, J. R. Stat. Soc. B 2007). The weight of a row is how often its patient was drawn. Metrics
take all resamples of a block at once as weights (resamples, n), see `patientdx.metrics.specification`: scores are
sorted once a block and never copied.

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
from patientdx.metrics.specification import Metric

# Weights held at once, in numbers: small enough for the cache, and the bound on memory however many rows.
_BLOCK = 1 << 18

Seed = int | Sequence[int]
Name = TypeVar("Name", bound=Hashable)


class BootstrapOptions(TypedDict, total=False):
    """The keyword arguments of `Bootstrap`, for functions that pass them on."""

    resamples: int
    level: float
    seed: int


@dataclass(frozen=True)
class Bootstrap:
    """How many resamples are drawn from which seed, and the level of the interval.

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
    """A value with its percentile interval.

    `n` rows, `events` of them positive, of `patients`; `resamples` were used, `dropped` had only one class.
    """

    value: float
    low: float
    high: float
    n: int
    events: int
    patients: int
    resamples: int
    dropped: int
    level: float


def interval(
    metric: Metric, score: ArrayLike, label: ArrayLike, subject: ArrayLike, **options: Unpack[BootstrapOptions]
) -> Interval:
    """The metric and its percentile interval under the patient bootstrap.

    `score` (n,) or (n, k) and `label` (n,) as the metric takes them; `subject` (n,) is one id per row, of a type that
    can be sorted; `options` as in `Bootstrap`. A resample that lacks a class has no value: it is dropped and counted.
    Raises ValueError as the metric does, and UserError for settings or sizes that give no interval.
    """
    return intervals({"": metric}, score, label, subject, **options)[""]


def intervals(
    metrics: Mapping[Name, Metric],
    score: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    **options: Unpack[BootstrapOptions],
) -> dict[Name, Interval]:
    """`interval` for several metrics, which share the resamples. Same arguments, same errors."""
    bootstrap, label = Bootstrap(**options), np.asarray(label)
    values = {name: metric(score, label) for name, metric in metrics.items()}
    drawn = replicates(metrics, score, label, subject, resamples=bootstrap.resamples, seed=bootstrap.seed)
    return {name: _interval(values[name], drawn[name], label, subject, bootstrap.level) for name in metrics}


def paired_difference(
    metric: Metric,
    score_a: ArrayLike,
    score_b: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    **options: Unpack[BootstrapOptions],
) -> Interval:
    """The metric of model a minus that of model b on the same rows, both on the same resamples.

    Arguments and errors as in `interval`. An interval that leaves out 0 means that the models differ.
    """
    bootstrap, label = Bootstrap(**options), np.asarray(label)
    value, drawn_a, drawn_b = paired_replicates(metric, score_a, score_b, label, subject, bootstrap)
    return _interval(value, drawn_a - drawn_b, label, subject, bootstrap.level)


def paired_replicates(
    metric: Metric,
    score_a: ArrayLike,
    score_b: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    bootstrap: Bootstrap,
) -> tuple[Any, NDArray[np.float64], NDArray[np.float64]]:
    """The metric of model a minus that of b, and of each model on the same resamples, (resamples,)."""
    value = metric(score_a, label) - metric(score_b, label)
    drawn_a, drawn_b = (
        replicates({"": metric}, score, label, subject, resamples=bootstrap.resamples, seed=bootstrap.seed)[""]
        for score in (score_a, score_b)
    )
    return value, drawn_a, drawn_b


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
    if not np.asarray(score).shape[:1] == np.asarray(label).shape == np.asarray(subject).shape:
        raise ValueError("score, label and subject must be of one shape (n,); score alone may be (n, k)")
    drawn = {name: np.empty(resamples) for name in metrics}
    done = 0
    for weight in patient_weights(subject, resamples, seed):
        for name, metric in metrics.items():
            value = np.asarray(metric(score, label, weight))
            if value.shape != (len(weight),):
                raise UserError(
                    f"the metric {getattr(metric, '__name__', metric)} gave shape {value.shape} for weights "
                    f"{weight.shape}; a metric must return one per resample (see patientdx.metrics.specification)"
                )
            drawn[name][done : done + len(weight)] = value
        done += len(weight)
    return drawn


def patient_weights(subject: ArrayLike, resamples: int, seed: Seed) -> Iterator[NDArray[np.float64]]:
    """Blocks of (some resamples, n): how often each row's patient was drawn."""
    _, patient = np.unique(np.asarray(subject), return_inverse=True)
    patients = int(patient.max()) + 1 if patient.size else 0
    if patients < 2:
        raise UserError(f"a bootstrap by patient needs at least 2 patients; there are {patients}")
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


def _interval(value: Any, drawn: NDArray[np.float64], label: NDArray, subject: ArrayLike, level: float) -> Interval:
    low, high, used = percentile_interval(drawn, level)
    if not used:
        raise UserError(f"none of {drawn.size} resamples held both classes: too few patients for an interval")
    return Interval(
        value=float(value),
        low=low,
        high=high,
        n=int(label.size),
        events=int(label.sum()),
        patients=int(np.unique(np.asarray(subject)).size),
        resamples=used,
        dropped=drawn.size - used,
        level=level,
    )
