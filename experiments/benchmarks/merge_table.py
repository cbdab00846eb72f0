"""The tables of merge.py, from its rows (one per run, as in the CSV)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from experiments.benchmarks.harness import spread, table
from patientdx.core.tables import Table

FLOOR, OURS, MERGEKIT, ASYNC = "floor", "ours", "mergekit", "mergekit --async-write"
OUR_SWEEP, MERGEKIT_SWEEP = "ours, sweep", "mergekit, sweep"
POINTS = 11  # of a sweep

Row = dict[str, Any]


def speed_table(rows: Sequence[Row]) -> Table:
    """Merging to disk: medians over the rounds (least - most).

    wall / floor and x ours are ratios within one round, whose runs follow one another.
    """
    lines = []
    for size, method, way, runs, of_way in _ways(rows):
        numbers = [spread([row["wall"] for row in of_way]), spread([row["cpu"] for row in of_way])]
        numbers.append("" if way == FLOOR else spread(ratios(runs, way, FLOOR, "wall")))
        for clock in ("wall", "cpu"):
            numbers.append("" if way in (FLOOR, OURS) else spread(ratios(runs, way, OURS, clock)))
        lines.append((size, method, way, *numbers))
    columns = ("size", "method", "way", "wall s", "CPU s", "wall / floor", "wall x ours", "CPU x ours")
    return table("Merging to disk: medians over the rounds (least - most)", columns, lines, 3)


def quality_table(rows: Sequence[Row]) -> Table:
    """Merging to disk: largest peak of anonymous memory, medians of when a parent was first open and the first weights
    were written, and the elements that are not the float64 formula rounded once.
    """
    lines = []
    for size, method, way, _, of_way in _ways(rows):
        times = [[row[key] for row in of_way if row[key] is not None] for key in ("opened", "wrote")]
        peak = max(row["peak"] for row in of_way) / 2**20
        shown = [f"{median(values):.2f}" if values else "" for values in times]
        lines.append((size, method, way, f"{peak:.0f}", *shown, *_rounding(of_way)))
    numbers = ("anon. MiB", "parent open at s", "first write at s", "misrounded", "largest, steps")
    return table("Merging to disk: memory, start-up, rounding", ("size", "method", "way", *numbers), lines, 3)


def memory_table(rows: Sequence[Row]) -> Table:
    """A further λ, and a sweep of 11, for each size. A sum of fewer than 11 mergekit runs is scaled, and marked so."""
    lines = []
    for size in dict.fromkeys(row["size"] for row in rows):
        runs: dict[str, list[Row]] = {}
        for row in rows:
            if row["size"] == size:
                runs.setdefault(row["way"], []).append(row)
        copies, points = ([each for row in runs[OURS] for each in row[key]] for key in ("copies", "points"))
        mergekit_points = [each for row in runs[MERGEKIT] for each in row["points"]]
        first = [row["curve"][0] for row in runs[OURS]]
        sweeps, walls = ([row["wall"] for row in runs[way]] for way in (OUR_SWEEP, MERGEKIT_SWEEP))
        for part, way, values in (
            ("the same bytes once more", "copy", copies),
            ("a further λ", "ours", points),
            ("a further λ", "mergekit's in-memory API", mergekit_points),
            ("once for all λ", "ours", first),
        ):
            relative = (f"{median(values) / median(reference):.2f}" for reference in (copies, points))
            lines.append((size, part, way, spread(values), *relative))
        scaled = sum(walls) * POINTS / len(walls)
        note = "" if len(walls) == POINTS else f", scaled from {len(walls)}"
        lines.append((size, f"sweep of {POINTS}, one process", "ours", spread(sweeps), "", "1.00"))
        x_ours = f"{scaled / median(sweeps):.2f}"
        lines.append((size, f"{POINTS} runs to disk{note}", "mergekit", f"{scaled:.3g}", "", x_ours))
    columns = ("size", "part", "way", "wall s", "x a plain copy", "x ours")
    return table("SLERP in memory: medians (least - most)", columns, lines, 3)


def ratios(rows: Sequence[Row], way: str, reference: str, column: str) -> list[float]:
    """The column of one way over that of another, round by round."""
    values = {(row["way"], row["round"]): row[column] for row in rows}
    pairs = (((way, number), (reference, number)) for number in sorted({row["round"] for row in rows}))
    return [values[a] / values[b] for a, b in pairs if a in values and b in values]


def _ways(rows: Sequence[Row]) -> Iterator[tuple[str, str, str, list[Row], list[Row]]]:
    """size, method, way, all runs of that size and method, those of the way."""
    for size, method in dict.fromkeys((row["size"], row["method"]) for row in rows):
        runs = [row for row in rows if (row["size"], row["method"]) == (size, method)]
        for way in dict.fromkeys(row["way"] for row in runs):
            yield size, method, way, runs, [row for row in runs if row["way"] == way]


def _rounding(rows: Sequence[Row]) -> tuple[str, str]:
    for row in rows:
        if row.get("elements"):
            return f"{100 * row['wrong'] / row['elements']:.4f} %", str(row["steps"])
    return "", ""
