"""Who was studied: characteristics by split and outcome (a paper's Table 1), and how much is missing.

Nothing small is shown: medians of fewer than `min_rows` values, and groups with fewer rows or events in a split, are
suppressed, and with these the groups from which they could be worked out (see `patientdx.metrics.suppression`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patientdx.metrics.suppression import hidden

SUPPRESSED = {"suppressed": True}


def columns(split: Sequence[str], label: Sequence[int], splits: Sequence[str]) -> list[dict[str, Any]]:
    """The columns of the table: each split without and with the event, and how many rows each has."""
    pairs = list(zip(split, label, strict=True))
    return [{"split": name, "event": event, "n": pairs.count((name, event))} for name in splits for event in (0, 1)]


def numbers(
    values: Mapping[str, NDArray[np.float64]], split: Sequence[str], label: Sequence[int], splits: Sequence[str],
    min_rows: int,
) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """By name a cell for each of `columns`: `median`, `low` and `high` (quartiles), `missing` (share of rows).

    `values` (n,) by name, NaN where missing.
    """
    of = _rows(split, label, splits)
    return {name: [_quartiles(column[rows], min_rows) for rows in of] for name, column in values.items()}


def groups(
    values: Mapping[str, Sequence[str]], split: Sequence[str], label: Sequence[int], splits: Sequence[str],
    min_rows: int, withheld: Mapping[tuple[str, str], set[str]],
) -> dict[str, dict[str, list[dict[str, Any]]]]:  # fmt: skip
    """By grouping and group a cell for each of `columns`: `n` and `share` of the column.

    `withheld`: by (split, grouping) the groups that another table of that split suppresses.
    """
    of = _rows(split, label, splits)
    made: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for grouping, groups_of_rows in values.items():
        column = np.asarray(list(groups_of_rows), dtype=str)
        cells: dict[str, list[dict[str, Any]]] = {group: [] for group in np.unique(column).tolist()}
        for number, name in enumerate(splits):
            counts = {group: [int((column[rows] == group).sum()) for rows in of[2 * number : 2 * number + 2]]
                      for group in cells}  # fmt: skip
            other = withheld.get((name, grouping), set())

            def too_small(key: tuple[str, ...], counts=counts, other=other) -> str | None:
                without, events = counts[key[0]]
                small = without + events < min_rows or events < min_rows or key[0] in other
                return "small" if small and without + events else None

            why = hidden({(group,): sum(pair) for group, pair in counts.items()}, too_small, min_rows)
            sizes = [max(1, rows.size) for rows in of[2 * number : 2 * number + 2]]
            for group, pair in counts.items():
                shown = [{"n": n, "share": n / size} for n, size in zip(pair, sizes, strict=True)]
                cells[group] += [SUPPRESSED, SUPPRESSED] if (group,) in why else shown
        made[grouping] = cells
    return made


def missing(
    values: Mapping[str, NDArray[np.float64]], split: Sequence[str], splits: Sequence[str]
) -> dict[str, dict[str, float]]:
    """The share of rows without a value, by name and split."""
    of = {name: np.flatnonzero(np.asarray(split) == name) for name in splits}
    return {
        name: {part: float(np.isnan(column[rows]).mean()) for part, rows in of.items() if rows.size}
        for name, column in values.items()
    }


def _rows(split: Sequence[str], label: Sequence[int], splits: Sequence[str]) -> list[NDArray[np.int64]]:
    parts, outcome = np.asarray(split), np.asarray(label)
    return [np.flatnonzero((parts == name) & (outcome == event)) for name in splits for event in (0, 1)]


def _quartiles(values: NDArray[np.float64], min_rows: int) -> dict[str, Any]:
    known = values[~np.isnan(values)]
    if known.size < min_rows:
        return SUPPRESSED
    low, median, high = np.quantile(known, [0.25, 0.5, 0.75]).tolist()
    return {"median": median, "low": low, "high": high, "missing": 1 - known.size / values.size}
