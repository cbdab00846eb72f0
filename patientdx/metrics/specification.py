"""What a metric is called, which direction is better and what it takes, declared with its function.

Every metric of this package is one function `metric(score, label, weight=None)`:

- `score`: (n,) float64, or (n, k) where a row has several numbers; what they are is `MetricSpec.takes`.
- `label`: (n,), what is right for each row.
- `weight`: None, (n,) or (resamples, n), not negative: how often each row counts. With (resamples, n) the answer is
  an array (resamples,), NaN where the metric is not defined for a resample; else it is a float.

All raise ValueError for arrays that do not fit together or hold what is not a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from patientdx.core.errors import UserError

Values = float | NDArray[np.float64]
Metric = Callable[..., Values]
Function = TypeVar("Function", bound=Metric)

# scores: any scale, higher means that the event is more likely. probabilities: scores between 0 and 1.
# answers: the same code as the label where right. counts: sums over rows are taken, of `score` and of `label`.
Input = Literal["scores", "probabilities", "answers", "counts"]

_ATTRIBUTE = "metric_spec"


@dataclass(frozen=True)
class MetricSpec:
    """A metric's function name, its name in tables, its direction (None: neither is better) and its kind of score.

    low, high: ends of the range of its values, which decide the scale of its interval. is_smooth: whether it changes
    little with one patient; of others a jackknife has no meaning. ranks: whether it is a mean over pairs of an event
    and a non-event. is_biased: whether its value is too high or too low on average where events are few.
    """

    name: str
    verbose_name: str
    greater_is_better: bool | None
    takes: Input
    low: float = -math.inf
    high: float = math.inf
    is_smooth: bool = True
    ranks: bool = False
    is_biased: bool = False

    @property
    def has_events(self) -> bool:
        """Whether its labels are 0 and 1, the event."""
        return self.takes in ("scores", "probabilities")


def metric(
    verbose_name: str,
    *,
    greater_is_better: bool | None,
    takes: Input,
    low: float = -math.inf,
    high: float = math.inf,
    is_smooth: bool = True,
    ranks: bool = False,
    is_biased: bool = False,
) -> Callable[[Function], Function]:
    """Declare a function as a metric; `metric_spec` reads the declaration. Arguments: see `MetricSpec`."""

    def declare(function: Function) -> Function:
        spec = MetricSpec(
            function.__name__, verbose_name, greater_is_better, takes, low, high, is_smooth, ranks, is_biased
        )
        setattr(function, _ATTRIBUTE, spec)
        return function

    return declare


def metric_spec(function: Metric) -> MetricSpec:
    """The declaration of a metric, also of one with arguments set. UserError for a function that `metric` does not
    declare."""
    spec = declared(function)
    if spec is None:
        raise UserError(
            f"{function.__module__}.{getattr(function, '__name__', function)} does not declare whether higher is "
            "better; declare it with patientdx.metrics.specification.metric"
        )
    return spec


def declared(function: Metric) -> MetricSpec | None:
    """The declaration of a metric, read through `functools.partial` and `functools.wraps`; None without one."""
    inner: Metric | None = function
    while inner is not None:
        spec = getattr(inner, _ATTRIBUTE, None)
        if spec is not None:
            return spec
        inner = inner.func if isinstance(inner, partial) else getattr(inner, "__wrapped__", None)
    return None


def higher_is_better(function: Metric) -> bool:
    """The direction of a metric. Raises UserError where it has none, so that no model can be best by it."""
    spec = metric_spec(function)
    if spec.greater_is_better is None:
        raise UserError(f"of {spec.name} neither more nor less is better: choose by another metric")
    return spec.greater_is_better
