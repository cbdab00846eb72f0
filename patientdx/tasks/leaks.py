"""Features that give the label away: a copy of the label, or something written down after the outcome."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from patientdx.core.errors import UserError
from patientdx.metrics.ranking import auroc
from patientdx.records.features import Features
from patientdx.records.splits import WITHHELD
from patientdx.tasks.labelled_rows import LabelledRow

LEAST = 10  # events and non-events without which a perfect separation may be chance


def check_leaks(features: Features, rows: Sequence[LabelledRow], key: str) -> None:
    """UserError for the features whose values, or whose missing values, separate all events from all non-events.

    features: of all rows. rows: with the label of each; those of the pilot are not looked at. key: of the
    configuration, where a column can be left out.
    """
    is_checked = np.array([row.split != WITHHELD for row in rows], dtype=bool)
    label, values = np.array([row.label for row in rows], dtype=int)[is_checked], features.values[is_checked]
    leaking = [name for name, column in zip(features.names, values.T, strict=True) if _leaks(column, label)]
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
