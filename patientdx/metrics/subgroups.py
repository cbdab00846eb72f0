"""The same model in different groups of patients: sex, age band, insurance and the like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import comb
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.core.errors import UserError
from patientdx.metrics.bootstrap import Bootstrap, BootstrapOptions
from patientdx.metrics.calibration import observed_minus_expected
from patientdx.metrics.decision import sensitivity
from patientdx.metrics.intervals import Drawn, Estimate, absent, estimate, estimates, on_rows
from patientdx.metrics.ranking import auroc
from patientdx.metrics.specification import Metric


def subgroups(
    score: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    groups: Mapping[str, Sequence[str]],
    *,
    threshold: float | None = None,
    min_events: int = 20,
    min_rows: int = 10,
    **options: Unpack[BootstrapOptions],
) -> dict[str, dict[str, Any]]:
    """Per grouping (one value per row, by name) its `cells` and, per metric, the largest gap between two of them.

    A cell, by value: `n`, `events` and estimates of `auroc`, `observed_minus_expected` (rate of events minus mean
    probability) and, with a common `threshold`, `sensitivity`. A cell with fewer than `min_rows` rows or `min_events`
    events is only `{"suppressed": reason}`: too little to judge, and a risk to privacy. All patients
    are drawn in each resample, so that a patient in two cells changes both.

    `gaps`, by metric: `value` with interval, and `highest` and `lowest`, the cells. These two are
    the furthest apart of k, so the interval's level is raised for all k (k - 1) / 2 `pairs` (Bonferroni).

    Scores are probabilities (n,). Raises UserError for a grouping of another length and for fewer than 2 patients.
    """
    score, label = np.asarray(score, dtype=np.float64), np.asarray(label).astype(bool)
    metrics: dict[str, Metric] = {"auroc": auroc, "observed_minus_expected": observed_minus_expected}
    if threshold is not None:
        metrics["sensitivity"] = partial(sensitivity, threshold=threshold)
    cells, by_cell = {}, {}
    for name in groups:
        if len(groups[name]) != label.size:
            raise UserError(
                f"the grouping {name} has {len(groups[name])} values for {label.size} rows; it needs one per row"
            )
        cells[name] = _cells(np.asarray(groups[name], dtype=str), label, min_events, min_rows)
        for value, cell in cells[name].items():
            rows = cell.pop("rows", None)
            if rows is not None:
                by_cell |= {(name, value, metric): on_rows(metrics[metric], rows) for metric in metrics}
    measured, drawn = estimates(by_cell, score, label, subject, **options)
    for (name, value, metric), result in measured.items():
        cells[name][value][metric] = result
    level = options.get("level", Bootstrap.level)
    return {
        name: {"cells": cells[name], "gaps": {metric: _gap(name, metric, measured, drawn, level) for metric in metrics}}
        for name in groups
    }


def _cells(values: NDArray[np.str_], label, min_events: int, min_rows: int) -> dict[str, dict[str, Any]]:
    """By value, in order: its size and rows, or why it is suppressed."""
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


def _gap(name: str, metric: str, measured: Mapping[tuple, Estimate], drawn: Drawn, level: float) -> Estimate:
    """The two cells of a grouping that are furthest apart, and by how much."""
    values = {
        key: result["value"]
        for key, result in measured.items()
        if key[0] == name and key[2] == metric and result["value"] is not None
    }
    if len(values) < 2:
        return absent("fewer than two groups can be compared")
    highest = max(values, key=values.__getitem__)
    lowest = min((key for key in values if key != highest), key=values.__getitem__)
    pairs = comb(len(values), 2)
    gap = estimate(values[highest] - values[lowest], drawn[highest] - drawn[lowest], 1 - (1 - level) / pairs)
    return gap | {"highest": highest[1], "lowest": lowest[1], "pairs": pairs}
