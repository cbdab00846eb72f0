"""What a metric is called, which direction is better and what it takes, declared with its function.

Every metric of this package is one function `metric(score, label, weight=None)`:

- `score`: (n,) float64, or (n, k) where a row has several numbers; what they are is `MetricSpec.takes`.
- `label`: (n,), what is right for each row.
- `weight`: None, (n,) or (resamples, n), not negative: how often each row counts. With (resamples, n) the answer is
  an array (resamples,), NaN where the metric is not defined for a resample; else it is a float.

All raise ValueError for arrays that do not fit together or hold what is not a number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    """A metric's function name, its name in tables, its direction (None: neither is better) and its kind of score."""

    name: str
    verbose_name: str
    greater_is_better: bool | None
    takes: Input


def metric(verbose_name: str, *, greater_is_better: bool | None, takes: Input) -> Callable[[Function], Function]:
    """Declare a function as a metric; `metric_spec` reads the declaration."""

    def declare(function: Function) -> Function:
        setattr(function, _ATTRIBUTE, MetricSpec(function.__name__, verbose_name, greater_is_better, takes))
        return function

    return declare


def metric_spec(function: Metric) -> MetricSpec:
    """The declaration of a metric. Raises UserError for a function that `metric` does not declare."""
    spec = getattr(function, _ATTRIBUTE, None)
    if spec is None:
        raise UserError(
            f"{function.__module__}.{getattr(function, '__name__', function)} does not declare whether higher is "
            "better; declare it with patientdx.metrics.specification.metric"
        )
    return spec


def higher_is_better(function: Metric) -> bool:
    """The direction of a metric. Raises UserError where it has none, so that no model can be best by it."""
    spec = metric_spec(function)
    if spec.greater_is_better is None:
        raise UserError(f"of {spec.name} neither more nor less is better: choose by another metric")
    return spec.greater_is_better
