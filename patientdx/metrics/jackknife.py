"""The interval of a metric from its values without each patient (the jackknife; Efron and Stein, Ann. Stat. 1981).

All rows of a patient are left out together. docs/intervals.md has the simulation by which this method was chosen: a
percentile interval of 11 events covers 81 to 91 %, for three reasons that are met here. The values of a metric have a
range, so the interval is symmetric on a scale without ends: the logit between two ends, the logarithm above one. The
standard error comes from few patients with an event, so a t distribution takes the place of the normal, with degrees
of freedom by Welch and Satterthwaite over patients with and without an event. And an area close to 1 shows too little
of its own error: it is not taken as less than that of `_EFFECTIVE` draws for each patient of the rarer kind, within the
interval of Wilson for `_AT_THE_END` draws for each. A metric that few events bias (AUPRC) has its interval around the
value less half of the jackknife's bias, with the values without each patient taken on the scale of logits too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from scipy.stats import t

from patientdx.core.errors import UserError
from patientdx.metrics.specification import MetricSpec

INTERVALS = 3  # of the method: part of a result's fingerprint; raise it where the same rows get other intervals
_EFFECTIVE = 9.0  # by simulation, docs/intervals.md; an exact model of an area of 1 has 2
_AT_THE_END = 2.0  # of an area of 0 or 1, which shows no error at all (Hanley and McNeil 1982, where the area nears 1)
_BIAS = 0.5  # of the bias that is taken off, by simulation: all of it moves the misses to the other side
_BLOCK = 1 << 18  # weights held at once, in numbers


@dataclass(frozen=True)
class Deletion:
    """Patients in groups that are left out in turn: one a group, or several where there are more than `most` patients.

    group: (n,) of each row, from 0. has_event: (g,) whether a patient of the group has an event. patients: how many.
    rarer: patients with an event, or those with a row without, whichever are fewer; all patients where no row is an
    event. events: the same of rows, None where no row is an event.
    """

    group: NDArray[np.int64]
    has_event: NDArray[np.bool_]
    patients: int
    rarer: int
    events: int | None

    @classmethod
    def of(cls, subject: ArrayLike, event: NDArray[np.bool_], most: int) -> Deletion:
        """At most `most` groups of the patients of rows, `subject` (n,) and `event` (n,); patients with an event are
        spread over the groups first. UserError for fewer than 2 patients."""
        _, patient = np.unique(np.asarray(subject), return_inverse=True)
        patients = int(patient.max()) + 1 if patient.size else 0
        check_patients(patients)
        ill = np.zeros(patients, dtype=bool)
        ill[patient[event]] = True
        groups = min(patients, max(2, most))
        number = np.empty(patients, dtype=np.int64)
        number[np.argsort(~ill, kind="stable")] = np.arange(patients) % groups
        has_event = np.zeros(groups, dtype=bool)
        has_event[number[ill]] = True
        if not event.any():
            return cls(number[patient], has_event, patients, patients, None)
        rarer = min(int(ill.sum()), np.unique(patient[~event]).size)
        return cls(number[patient], has_event, patients, rarer, int(min(event.sum(), (~event).sum())))

    def weights(self) -> Iterator[NDArray[np.float64]]:
        """Blocks of (some groups, n): 0 for the rows of the group, 1 for the others."""
        block = max(1, _BLOCK // self.group.size)
        for start in range(0, self.has_event.size, block):
            numbers = np.arange(start, min(start + block, self.has_event.size))
            yield (self.group != numbers[:, None]).astype(np.float64)


@dataclass(frozen=True)
class Jackknife:
    """A metric without each group of patients, (g,), NaN where it has no value then.

    The difference of two, of models on the same rows or of groups of the same patients, is their paired difference.
    """

    without: NDArray[np.float64]
    deletion: Deletion

    def __sub__(self, other: Jackknife) -> Jackknife:
        return Jackknife(self.without - other.without, self.deletion)

    @property
    def standard_error(self) -> float:
        """NaN where a group that is left out leaves no value."""
        return math.sqrt(float(self._parts.sum()))

    @property
    def _parts(self) -> NDArray[np.float64]:
        """(g,) what each group adds to the variance."""
        groups = self.without.size
        return (groups - 1) / groups * (self.without - self.without.mean()) ** 2

    def degrees_of_freedom(self) -> float:
        """Of the variance of one value: Welch and Satterthwaite over groups with and without an event."""
        parts, ill = self._parts, self.deletion.has_event
        kinds = [(parts[kind].sum(), int(kind.sum()) - 1) for kind in (ill, ~ill) if kind.any()]
        total = sum(variance for variance, _ in kinds)
        if not total > 0:
            return float(max(1, min(degrees for _, degrees in kinds)))
        return max(1.0, total**2 / sum(variance**2 / max(1, degrees) for variance, degrees in kinds))

    def interval(self, value: float, level: float, spec: MetricSpec) -> tuple[float, float]:
        """Ends of the interval of one value of a metric; NaN without a standard error."""
        error, low, width = self.standard_error, spec.low, spec.high - spec.low
        if math.isnan(error):
            return math.nan, math.nan
        reach = float(t.ppf((1 + level) / 2, self.degrees_of_freedom()))
        if not spec.low <= value <= spec.high:  # a metric's own function may have values outside of its range
            return value - reach * error, value + reach * error
        if math.isfinite(width):
            if spec.is_biased and spec.low < value < spec.high:
                return self._around_bias(value, level, spec)
            ends = self._between((value - low) / width, error / width, reach, spec.ranks)
            return low + width * ends[0], low + width * ends[1]
        if math.isfinite(low) and value > low:
            factor = math.exp(reach * error / (value - low))
            return low + (value - low) / factor, low + (value - low) * factor
        return max(low, value - reach * error), value + reach * error

    def _between(self, share: float, error: float, reach: float, ranks: bool) -> tuple[float, float]:
        """The interval of a share from 0 to 1, on the scale of logits; of an area also that of its rarer patients."""
        spread, at_end = share * (1 - share), share * (1 - share) <= 1e-12
        wilson = _wilson(share, _AT_THE_END * self.deletion.rarer if ranks else self.deletion.patients, reach)
        if at_end:
            return wilson
        if ranks:
            error = max(error, math.sqrt(spread / (_EFFECTIVE * self.deletion.rarer)))
        steps = reach * error / spread
        low, high = expit(logit(share) + np.array([-steps, steps]))
        low, high = float(low), float(high)
        return (max(low, wilson[0]), min(high, wilson[1])) if ranks else (low, high)

    def _around_bias(self, value: float, level: float, spec: MetricSpec) -> tuple[float, float]:
        """The interval of a metric that few events bias, from its logits without each group.

        With degrees of freedom of at most the patients of the rarer kind, whose variance is not taken as known.
        """
        width, rarer = spec.high - spec.low, self.deletion.rarer
        least = 0.5 / self.deletion.patients  # no share is taken as closer to an end than half a patient
        fractions = np.clip((np.append(self.without, value) - spec.low) / width, least, 1 - least)
        logits, middle = logit(fractions[:-1]), logit(fractions[-1])
        of_logits = Jackknife(logits, self.deletion)
        bias = (logits.size - 1) * (logits.mean() - middle)
        degrees = max(1.0, min(self.degrees_of_freedom(), rarer - 1))
        reach = float(t.ppf((1 + level) / 2, degrees)) * math.sqrt(rarer / max(1, rarer - 1)) * of_logits.standard_error
        low, high = spec.low + width * expit(middle - _BIAS * bias + np.array([-reach, reach]))
        return min(value, float(low)), max(value, float(high))

    def difference(self, value: float, level: float) -> tuple[float, float, float]:
        """Ends of the interval of a difference, and the two-sided p-value of "no difference", which is below 1 - level
        where the interval leaves out 0; NaN without a standard error.

        By t with a degree of freedom less than patients. p is at least 2 / 2^n of n patients: where all point one way,
        an exact test of their signs cannot give less.
        """
        error, patients = self.standard_error, self.deletion.patients
        if math.isnan(error):
            return math.nan, math.nan, math.nan
        reach, least = float(t.ppf((1 + level) / 2, patients - 1)), 2.0 ** (1 - patients)
        if error == 0:  # alike for every patient: no difference, or all of it
            other = value * patients / (patients + reach**2)
            return min(value, other), max(value, other), least if value else 1.0
        p_value = max(least, 2 * float(t.sf(abs(value) / error, patients - 1)))
        return value - reach * error, value + reach * error, min(1.0, p_value)


def independent_difference(value: float, a: Jackknife, b: Jackknife, level: float) -> tuple[float, float, float]:
    """Ends of the interval of a difference between values of different patients, and its p-value; NaN without one.

    By t with Welch's degrees of freedom.
    """
    variances = [jackknife.standard_error**2 for jackknife in (a, b)]
    total = sum(variances)
    if math.isnan(total):
        return math.nan, math.nan, math.nan
    if total == 0:
        return value, value, float(value == 0)
    groups = [jackknife.without.size for jackknife in (a, b)]
    degrees = total**2 / sum(variance**2 / (count - 1) for variance, count in zip(variances, groups, strict=True))
    error, reach = math.sqrt(total), float(t.ppf((1 + level) / 2, degrees))
    return value - reach * error, value + reach * error, min(1.0, 2 * float(t.sf(abs(value) / error, degrees)))


def _wilson(share: float, count: float, reach: float) -> tuple[float, float]:
    """Wilson's interval of a share of `count` draws (J. Am. Stat. Assoc. 1927), which has a width at 0 and 1 too."""
    square = reach**2 / count
    middle, far = share + square / 2, math.sqrt(square * (share * (1 - share) + square / 4))
    return max(0.0, (middle - far) / (1 + square)), min(1.0, (middle + far) / (1 + square))


def check_patients(count: int) -> None:
    """UserError for fewer than 2 patients."""
    if count < 2:
        raise UserError(f"an interval by patient needs at least 2 patients; there are {count}")
