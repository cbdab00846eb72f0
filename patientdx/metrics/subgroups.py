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
from patientdx.metrics.decision import false_positive_rate, ppv, sensitivity
from patientdx.metrics.intervals import Drawn, Estimate, absent, estimates, on_rows, with_ends
from patientdx.metrics.jackknife import check_patients
from patientdx.metrics.ranking import auroc
from patientdx.metrics.specification import Metric
from patientdx.metrics.suppression import hidden

TIMES = " × "  # between the two groupings, and the two groups, of an intersection
AT_THRESHOLD = {"sensitivity": sensitivity, "false_positive_rate": false_positive_rate, "ppv": ppv}


def subgroups(
    score: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    groups: Mapping[str, Sequence[str]],
    *,
    threshold: float | None = None,
    min_events: int = 20,
    min_rows: int = 10,
    intersections: Sequence[Sequence[str]] = (),
    **options: Unpack[BootstrapOptions],
) -> dict[str, dict[str, Any]]:
    """Per grouping (one value per row, by name) its `cells` and, per metric, the largest gap between two of them.

    A cell, by value: `n`, `events` and estimates of `auroc`, `observed_minus_expected` (rate of events minus mean
    probability) and, with a common `threshold`, `sensitivity`, `false_positive_rate` and `ppv`. A cell with fewer than
    `min_rows` rows or `min_events` events is only `{"suppressed": reason}`: too little to judge, and a risk to privacy;
    so is a cell from which such a one could be worked out, see `patientdx.metrics.suppression`. A patient in two cells
    changes both sides of a gap. `intersections`: pairs of groupings, each of which becomes a grouping of its own, by
    "sex × race"; pairs of which one is not there are left out.

    `gaps`, by metric: `value` with interval, and `highest` and `lowest`, the cells. These two are
    the furthest apart of k, so the interval's level is raised for all k (k - 1) / 2 `pairs` (Bonferroni).

    Scores are probabilities (n,). Raises UserError for a grouping of another length and for fewer than 2 patients.
    """
    score, label = np.asarray(score, dtype=np.float64), np.asarray(label).astype(bool)
    metrics: dict[str, Metric] = {"auroc": auroc, "observed_minus_expected": observed_minus_expected}
    if threshold is not None:
        metrics |= {name: partial(metric, threshold=threshold) for name, metric in AT_THRESHOLD.items()}
    bootstrap, subject = Bootstrap(**options), np.asarray(subject)
    check_patients(np.unique(subject).size)
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    measured: dict[tuple[str, str, str], Estimate] = {}
    by_cell: dict[tuple[str, str, str], Metric] = {}
    for names in [*((name,) for name in groups), *_pairs(groups, intersections)]:
        columns = [_column(groups, name, label.size) for name in names]
        margins = {value: "suppressed" in cell for name in names for value, cell in cells.get(name, {}).items()}
        title = TIMES.join(names)
        cells[title] = _cells(columns, label, min_events, min_rows, margins)
        for value, cell in cells[title].items():
            rows = cell.pop("rows", None)
            if rows is None:
                continue
            cell |= _cell(metrics, score[rows], label[rows], subject[rows], bootstrap)
            measured |= {(title, value, metric): cell[metric] for metric in metrics}
            by_cell |= {
                (title, value, metric): on_rows(metrics[metric], rows)
                for metric in metrics
                if cell[metric]["value"] is not None
            }
    # The gap of two cells comes from all patients, an interval of a cell from its own.
    drawn = spreads(by_cell, score, label, subject, bootstrap)
    gap = partial(_gap, measured=measured, drawn=drawn, patients=np.unique(subject).size, level=bootstrap.level)
    return {name: {"cells": cells[name], "gaps": {metric: gap(name, metric) for metric in metrics}} for name in cells}


def _column(groups: Mapping[str, Sequence[str]], name: str, rows: int) -> NDArray[np.str_]:
    if len(groups[name]) != rows:
        raise UserError(f"the grouping {name} has {len(groups[name])} values for {rows} rows; it needs one per row")
    return np.asarray(list(groups[name]), dtype=str)


def _pairs(groups: Mapping[str, Sequence[str]], intersections: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    return [tuple(pair) for pair in intersections if all(name in groups for name in pair)]


def _cells(
    columns: Sequence[NDArray[np.str_]], label, min_events: int, min_rows: int, margins: Mapping[str, bool]
) -> dict[str, dict[str, Any]]:
    """By value, in order: its size and rows, or why it is suppressed."""
    keys = np.array([TIMES.join(values) for values in zip(*columns, strict=True)])
    rows = {tuple(value.split(TIMES)): np.flatnonzero(keys == value) for value in np.unique(keys).tolist()}
    events = {key: int(label[rows[key]].sum()) for key in rows}

    def too_small(key: tuple[str, ...]) -> str | None:
        if rows[key].size < min_rows:
            return f"fewer than {min_rows} stays"
        return f"fewer than {min_events} events" if events[key] < min_events else None

    why = hidden({key: rows[key].size for key in rows}, too_small, min_rows, margins if len(columns) > 1 else None)
    return {
        TIMES.join(key): {"suppressed": why[key]}
        if key in why
        else {"n": int(rows[key].size), "events": events[key], "rows": rows[key]}
        for key in rows
    }


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
