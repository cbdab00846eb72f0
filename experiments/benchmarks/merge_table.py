"""The tables of merge.py, from its rows (one a run, as in the CSV)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

FLOOR, OURS, MERGEKIT, ASYNC = "floor", "ours", "mergekit", "mergekit --async-write"
OUR_SWEEP, THEIR_SWEEP = "ours, sweep", "mergekit, sweep"
POINTS = 11  # of a sweep

Row = dict[str, Any]


def speed_table(rows: Sequence[Row]) -> Table:
    """Merging to disk: medians over the rounds (least - most).

    wall / floor and x ours are ratios within one round, whose runs follow one another.
    """
    numbers = ("wall s", "CPU s", "wall / floor", "wall x ours", "CPU x ours")
    table = _table("Merging to disk: medians over the rounds (least - most)", ("size", "method", "way"), numbers)
    for size, method, way, runs, own in _ways(rows):
        table.add_row(
            size,
            method,
            way,
            spread([row["wall"] for row in own]),
            spread([row["cpu"] for row in own]),
            "" if way == FLOOR else spread(ratios(runs, way, FLOOR, "wall")),
            "" if way in (FLOOR, OURS) else spread(ratios(runs, way, OURS, "wall")),
            "" if way in (FLOOR, OURS) else spread(ratios(runs, way, OURS, "cpu")),
            end_section=way == runs[-1]["way"],
        )
    return table


def quality_table(rows: Sequence[Row]) -> Table:
    """Merging to disk: largest peak of anonymous memory, medians of when a parent was first open and the first weights
    were written, and the elements that are not the float64 formula rounded once.
    """
    numbers = ("anon. MiB", "parent open at s", "first write at s", "misrounded", "largest, steps")
    table = _table("Merging to disk: memory, start-up, rounding", ("size", "method", "way"), numbers)
    for size, method, way, _, own in _ways(rows):
        times = [[row[key] for row in own if row[key] is not None] for key in ("opened", "wrote")]
        peak = max(row["peak"] for row in own) / 2**20
        shown = [f"{median(values):.2f}" if values else "" for values in times]
        table.add_row(size, method, way, f"{peak:.0f}", *shown, *_rounding(own))
    return table


def memory_table(rows: Sequence[Row]) -> Table:
    """A further λ, and a sweep of 11, for each size. A sum of fewer than 11 mergekit runs is scaled, and says so."""
    table = _table(
        "SLERP in memory: medians (least - most)", ("size", "what", "way"), ("wall s", "x a plain copy", "x ours")
    )
    for size in dict.fromkeys(row["size"] for row in rows):
        runs = {}
        for row in rows:
            if row["size"] == size:
                runs.setdefault(row["way"], []).append(row)
        copies = [each for row in runs[OURS] for each in row["copies"]]
        points = [each for row in runs[OURS] for each in row["points"]]
        theirs = [each for row in runs[MERGEKIT] for each in row["points"]]
        first = [row["curve"][0] for row in runs[OURS]]
        sweeps = [row["wall"] for row in runs[OUR_SWEEP]]
        walls = [row["wall"] for row in runs[THEIR_SWEEP]]
        copy, point, sweep = median(copies), median(points), median(sweeps)
        for what, way, found, of_copy, of_ours in (
            ("the same bytes once more", "copy", copies, 1.0, copy / point),
            ("a further λ", "ours", points, point / copy, 1.0),
            ("a further λ", "mergekit's in-memory API", theirs, median(theirs) / copy, median(theirs) / point),
            ("once for all λ", "ours", first, median(first) / copy, median(first) / point),
        ):
            table.add_row(size, what, way, spread(found), f"{of_copy:.2f}", f"{of_ours:.2f}")
        scaled = sum(walls) * POINTS / len(walls)
        said = "" if len(walls) == POINTS else f", scaled from {len(walls)}"
        table.add_row(size, f"sweep of {POINTS}, whole process", "ours", spread(sweeps), "", "1.00")
        table.add_row(size, f"{POINTS} runs to disk{said}", "mergekit", f"{scaled:.3g}", "", f"{scaled / sweep:.2f}")
        table.add_section()
    return table


def ratios(rows: Sequence[Row], way: str, to: str, column: str) -> list[float]:
    """The column of one way over that of another, round by round."""
    of = {(row["way"], row["round"]): row[column] for row in rows}
    rounds = sorted({row["round"] for row in rows})
    return [of[way, r] / of[to, r] for r in rounds if (way, r) in of and (to, r) in of]


def spread(values: Sequence[float]) -> str:
    """Median, and the least and the most if there are several: 2.1 (1.9 - 2.4)."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.3g}"
    return f"{median(values):.3g} ({min(values):.3g} - {max(values):.3g})"


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


def _table(title: str, names: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, title=title)
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table
