"""The same model in different groups of patients: sex, age band, insurance and the like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.core.errors import UserError
from patientdx.metrics.bootstrap import Metric
from patientdx.metrics.calibration import observed_minus_expected
from patientdx.metrics.intervals import Drawn, Estimate, absent, estimate, estimates, on_rows
from patientdx.metrics.ranking import auroc
from patientdx.metrics.threshold import sensitivity


def subgroups(
    score: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    groups: Mapping[str, Sequence[str]],
    *,
    threshold: float | None = None,
    min_events: int = 20,
    min_rows: int = 10,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Per grouping (one value a row, by name) its `cells` and, per metric, the largest gap between two of them.

    A cell, by value: `n`, `events` and estimates of `auroc`, `observed_minus_expected` (rate of events minus mean
    probability) and, with a common `threshold`, `sensitivity`. A cell with fewer than `min_rows` rows or `min_events`
    events is only `{"suppressed": reason}`: too little to judge, and too near to a person. All patients
    are drawn in each resample, so that one who is in two cells moves both.

    `gaps`, by metric: `value` with interval, and `highest` and `lowest`, the cells. The two were picked for being
    furthest apart out of k; the interval's level is raised for all k (k - 1) / 2 `pairs` (Bonferroni).

    Scores are probabilities (n,). Raises UserError for a grouping of another length and for fewer than 2 patients.
    """
    score, label = np.asarray(score, dtype=np.float64), np.asarray(label).astype(bool)
    metrics: dict[str, Metric] = {"auroc": auroc, "observed_minus_expected": observed_minus_expected}
    if threshold is not None:
        metrics["sensitivity"] = partial(sensitivity, threshold=threshold)
    cells, asked = {}, {}
    for name in groups:
        if len(groups[name]) != label.size:
            raise UserError(
                f"the grouping {name} has {len(groups[name])} values for {label.size} rows; it needs one a row"
            )
        cells[name] = _cells(np.asarray(groups[name], dtype=str), label, min_events, min_rows)
        for value, cell in cells[name].items():
            rows = cell.pop("rows", None)
            if rows is not None:
                asked |= {(name, value, metric): on_rows(metrics[metric], rows) for metric in metrics}
    found, drawn = estimates(asked, score, label, subject, resamples=resamples, level=level, seed=seed)
    for (name, value, metric), one in found.items():
        cells[name][value][metric] = one
    return {
        name: {"cells": cells[name], "gaps": {metric: _gap(name, metric, found, drawn, level) for metric in metrics}}
        for name in groups
    }


def _cells(values: NDArray[np.str_], label, min_events: int, min_rows: int) -> dict[str, dict[str, Any]]:
    """By value, in order: its size and rows, or why it is left out."""
    cells: dict[str, dict[str, Any]] = {}
    for value in np.unique(values).tolist():
        rows = np.flatnonzero(values == value)
        events = int(label[rows].sum())
        if rows.size < min_rows:
            cells[value] = {"suppressed": f"fewer than {min_rows} stays"}
        elif events < min_events:
            cells[value] = {"suppressed": f"fewer than {min_events} events"}
        else:
            cells[value] = {"n": int(rows.size), "events": events, "rows": rows}
    return cells


def _gap(name: str, metric: str, found: Mapping[tuple, Estimate], drawn: Drawn, level: float) -> Estimate:
    """The two cells of a grouping that are furthest apart, and by how much."""
    keys = [key for key, one in found.items() if key[0] == name and key[2] == metric and one["value"] is not None]
    if len(keys) < 2:
        return absent("fewer than two groups can be compared")
    highest = max(keys, key=lambda key: found[key]["value"])
    lowest = min((key for key in keys if key != highest), key=lambda key: found[key]["value"])
    pairs = len(list(combinations(keys, 2)))
    gap = estimate(
        found[highest]["value"] - found[lowest]["value"],
        drawn[highest] - drawn[lowest],
        1 - (1 - level) / pairs,
    )
    return gap | {"highest": highest[1], "lowest": lowest[1], "pairs": pairs}
