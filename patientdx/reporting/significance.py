"""Which model of a table is best, where the paired test can tell.

The best value of a column is compared with every other model of the same task, setting and split: paired, by patient,
with Holm's correction over the comparisons. It counts as best where all p-values are below the level.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from patientdx.core.errors import UserError
from patientdx.core.tables import Row, as_number, metric_names
from patientdx.reporting.runs import Predictions, Run


@dataclass(frozen=True)
class Best:
    """(fingerprint of a row, metric) of what is printed in bold, and notes for below the table."""

    bold: frozenset[tuple[str, str]] = frozenset()
    notes: tuple[str, ...] = ()


class _Test(NamedTuple):
    """Fingerprints of the rows that are best, and the level of the test."""

    best: Sequence[str]
    alpha: float


Source = Mapping[tuple[str, str], tuple[Run, str]]  # by fingerprint and role of a row: its run and split


def best(rows: Sequence[Row], folders: Iterable[Path]) -> Best:
    """The best of each metric in the rows' tasks and splits, by the predictions in the result folders.

    Models with the same scores count as one. Nothing is best where there is one model, where predictions are missing,
    or where the models were not scored on the same stays.
    """
    return best_of(rows, [Run(Path(folder)) for folder in folders])


def best_of(rows: Sequence[Row], runs: Sequence[Run]) -> Best:
    """The same from runs that are open."""
    sources = {(row["fingerprint"], row["role"]): (run, row["split"]) for run in runs for row in run.rows}
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.get("task"), row.get("setting", ""), row.get("split")), []).append(row)
    bold: set[tuple[str, str]] = set()
    tests: list[_Test] = []
    untested = False
    for group in groups.values():
        for metric in metric_names(group):
            known = [row for row in group if as_number(row.get(metric)) is not None]
            if _is_undirected(known, metric, sources):
                continue
            test = _tested(known, metric, sources)
            if test is None:
                untested |= len({row["fingerprint"] for row in known}) > 1
            else:
                bold |= {(fingerprint, metric) for fingerprint in test.best}
                tests.append(test)
    return Best(frozenset(bold), tuple(_notes(bool(bold), tests, untested)))


def _is_undirected(rows: Sequence[Row], metric: str, sources: Source) -> bool:
    """Whether neither more nor less of the metric is better, so that no model can be best."""
    run, _ = sources.get((rows[0]["fingerprint"], rows[0]["role"]), (None, None)) if rows else (None, None)
    return run is not None and run.higher_is_better(metric) is None


def _tested(rows: Sequence[Row], metric: str, sources: Source) -> _Test | None:
    """The test of the best row against the others; None where none could be made."""
    import numpy as np

    from patientdx.metrics.bootstrap import Bootstrap, difference_ends, spreads, subtracted
    from patientdx.metrics.paired import holm
    from patientdx.metrics.specification import higher_is_better, metric_spec

    scored: dict[str, Predictions] = {}
    for row in rows:
        run, split = sources.get((row["fingerprint"], row["role"]), (None, ""))
        predictions = None if run is None else run.predictions.get((row["role"], split))
        if predictions is None:
            return None
        scored[row["fingerprint"]] = predictions
    if len(scored) < 2:
        return None
    first = next(iter(scored.values()))
    if not all(first.is_paired_with(other, metric) for other in scored.values()):
        return None
    models: dict[bytes, list[Row]] = {}
    for row in rows:
        models.setdefault(scored[row["fingerprint"]].of(metric)[0].tobytes(), []).append(row)
    run = sources[rows[0]["fingerprint"], rows[0]["role"]][0]
    function = run.metric_functions.get(metric)
    if function is None:
        return None
    draws, others = Bootstrap(**run.bootstrap), len(models) - 1
    alpha = 1 - draws.level
    if not others:  # as the same: no answer was empty, for example
        return _Test([], alpha)
    if not metric_spec(function).is_smooth:
        # The smallest p of resamples is 2 / (resamples + 1), and Holm multiplies it by the number of comparisons.
        draws = replace(draws, resamples=max(draws.resamples, math.ceil(5 * others / alpha)))
    try:
        kinds = [
            spreads({metric: function}, *scored[same[0]["fingerprint"]].of(metric), first.subject, draws)[metric]
            for same in models.values()
        ]
    except (UserError, ValueError):  # too few patients, or a metric of other scores than these
        return None
    values = [same[0][metric] for same in models.values()]
    top = int(np.argmax(values) if higher_is_better(function) else np.argmin(values))
    patients = np.unique(np.asarray(first.subject)).size
    tests = {
        i: difference_ends(values[top] - values[i], subtracted(kinds[top], kinds[i]), patients, draws.level)[2]
        for i in range(len(kinds))
        if i != top
    }
    p_values = {i: p for i, p in tests.items() if p is not None}
    if len(p_values) < len(tests) or max(holm(p_values).values()) >= alpha:
        return _Test([], alpha)
    return _Test([row["fingerprint"] for row in list(models.values())[top]], alpha)


def _notes(any_bold: bool, tests: Sequence[_Test], untested: bool) -> list[str]:
    """What the bold type of the table means."""
    notes = []
    if tests:
        alpha = max(test.alpha for test in tests)
        result = (
            "bold: better than every other model" if any_bold else "nothing is bold: no model differs from all others"
        )
        notes.append(f"{result} (paired, by patient, Holm's correction, p < {alpha:.3g})")
    if untested:
        notes.append("not all models could be compared: other stays, or no predictions.parquet")
    return notes
