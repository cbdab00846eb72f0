"""Features that give the label away: a copy of the label, or something written down after the outcome."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from patientdx.core.errors import UserError
from patientdx.metrics.ranking import auroc
from patientdx.records.features import Features

LEAST = 10  # events and non-events without which a perfect separation may be chance


def check_leaks(features: Features, labels: Sequence[int], key: str) -> None:
    """UserError for the features whose values, or whose missing values, separate all events from all non-events.

    features: of all rows. labels: 0 or 1 of each row. key: of the configuration, where a column can be left out.
    """
    label = np.asarray(labels, dtype=int)
    leaking = [name for name, column in zip(features.names, features.values.T, strict=True) if _leaks(column, label)]
    if leaking:
        raise UserError(
            f"{', '.join(leaking)}: this feature alone separates every event from every non-event. Such a column is a "
            f"copy of the label or was recorded after the outcome. Leave it out of {key}."
        )


def _leaks(column: NDArray[np.float64], label: NDArray[np.int_]) -> bool:
    missing = np.isnan(column)
    known = column[~missing], label[~missing]
    return any(_separates(values, outcome) for values, outcome in (known, (missing.astype(float), label)))


def _separates(values: NDArray[np.float64], label: NDArray[np.int_]) -> bool:
    """Whether a threshold on the values is right for every row; false where there are too few rows to say so."""
    events = int(label.sum())
    return min(events, len(label) - events) >= LEAST and auroc(values, label) in (0.0, 1.0)
