"""The same model in different groups of patients: sex, age band, insurance and the like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import comb
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.core.errors import UserError
from patientdx.metrics.bootstrap import Bootstrap, BootstrapOptions, difference_ends, spreads, subtracted
from patientdx.metrics.calibration import observed_minus_expected
from patientdx.metrics.decision import sensitivity
from patientdx.metrics.intervals import Drawn, Estimate, absent, estimates, on_rows, with_ends
from patientdx.metrics.jackknife import check_patients
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
    events is only `{"suppressed": reason}`: too little to judge, and a risk to privacy. A patient in two
    cells changes both sides of a gap.

    `gaps`, by metric: `value` with interval, and `highest` and `lowest`, the cells. These two are
    the furthest apart of k, so the interval's level is raised for all k (k - 1) / 2 `pairs` (Bonferroni).

    Scores are probabilities (n,). Raises UserError for a grouping of another length and for fewer than 2 patients.
    """
    score, label = np.asarray(score, dtype=np.float64), np.asarray(label).astype(bool)
    metrics: dict[str, Metric] = {"auroc": auroc, "observed_minus_expected": observed_minus_expected}
    if threshold is not None:
        metrics["sensitivity"] = partial(sensitivity, threshold=threshold)
    bootstrap, subject = Bootstrap(**options), np.asarray(subject)
    check_patients(np.unique(subject).size)
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    measured: dict[tuple[str, str, str], Estimate] = {}
    by_cell: dict[tuple[str, str, str], Metric] = {}
    for name in groups:
        if len(groups[name]) != label.size:
            raise UserError(
                f"the grouping {name} has {len(groups[name])} values for {label.size} rows; it needs one per row"
            )
        cells[name] = _cells(np.asarray(groups[name], dtype=str), label, min_events, min_rows)
        for value, cell in cells[name].items():
            rows = cell.pop("rows", None)
            if rows is None:
                continue
            cell |= _cell(metrics, score[rows], label[rows], subject[rows], bootstrap)
            measured |= {(name, value, metric): cell[metric] for metric in metrics}
            by_cell |= {
                (name, value, metric): on_rows(metrics[metric], rows)
                for metric in metrics
                if cell[metric]["value"] is not None
            }
    # The gap of two cells comes from all patients, an interval of a cell from its own.
    drawn = spreads(by_cell, score, label, subject, bootstrap)
    gap = partial(_gap, measured=measured, drawn=drawn, patients=np.unique(subject).size, level=bootstrap.level)
    return {name: {"cells": cells[name], "gaps": {metric: gap(name, metric) for metric in metrics}} for name in groups}


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


def _cell(metrics: Mapping[str, Metric], score, label, subject, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """The estimates of one cell's rows; without an interval where they are of one patient."""
    if np.unique(subject).size < 2:
        return dict.fromkeys(metrics, absent("all stays of the group are of one patient"))
    return estimates(metrics, score, label, subject, **bootstrap.keywords)[0]


def _gap(
    name: str, metric: str, measured: Mapping[tuple, Estimate], drawn: Drawn, patients: int, level: float
) -> Estimate:
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
    spread = subtracted(drawn[highest], drawn[lowest])
    low, high, _ = difference_ends(values[highest] - values[lowest], spread, patients, 1 - (1 - level) / pairs)
    gap = with_ends(values[highest] - values[lowest], low, high, spread)
    return gap | {"highest": highest[1], "lowest": lowest[1], "pairs": pairs}
