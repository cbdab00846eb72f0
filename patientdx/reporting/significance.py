"""Which model of a table is best, where the paired test can tell.

The best value of a column is compared with every other model of the same task, setting and split: a paired bootstrap
by patient, corrected after Holm over the comparisons. It counts as best where all of them are below the level.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patientdx.core.errors import UserError
from patientdx.core.tables import Row, as_number, metric_names
from patientdx.reporting.runs import Answers, Run

if TYPE_CHECKING:
    from patientdx.metrics.specification import Metric


@dataclass(frozen=True)
class Best:
    """(fingerprint of a row, metric) of what is printed in bold, and what is to be said below the table."""

    bold: frozenset[tuple[str, str]] = frozenset()
    notes: tuple[str, ...] = ()


def best(rows: Sequence[Row], folders: Iterable[Path]) -> Best:
    """The best of each metric in the rows' tasks and splits, by the predictions that lie in the result folders.

    Models with the same scores count as one. Nothing is best where there is one model, where predictions are missing,
    or where the models were not asked about the same stays.
    """
    return best_of(rows, [Run(Path(folder)) for folder in folders])


def best_of(rows: Sequence[Row], runs: Sequence[Run]) -> Best:
    """The same from runs that are open."""
    where = {(row["fingerprint"], row["role"]): (run, row["split"]) for run in runs for row in run.rows}
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.get("task"), row.get("setting", ""), row.get("split")), []).append(row)
    bold: set[tuple[str, str]] = set()
    tested: list[tuple[int, float]] = []
    untested = False
    for these in groups.values():
        for metric in metric_names(these):
            known = [row for row in these if as_number(row.get(metric)) is not None]
            if _undirected(known, metric, where):
                continue
            found, said = _leaders(known, metric, where)
            bold |= {(fingerprint, metric) for fingerprint in found}
            tested += [said] if said else []
            untested |= said is None and len({row["fingerprint"] for row in known}) > 1
    return Best(frozenset(bold), tuple(_notes(bool(bold), tested, untested)))


def functions(run: Run) -> dict[str, Metric]:
    """The metrics of a run's task by the names that its rows use; one that was not asked for (BERTScore) is none."""
    from patientdx.core.functions import dotted

    named = run.config.get("task", {}).get("metrics", {})
    return {name: dotted(target) for name, target in named.items() if name in run.own}


def direction(run: Run, metric: str) -> bool | None:
    """Whether more of the metric is better; None where neither is. A metric that the run does not name is taken so."""
    from patientdx.metrics.specification import metric_spec

    function = functions(run).get(metric)
    return True if function is None else metric_spec(function).greater_is_better


def draws(run: Run) -> dict[str, Any]:
    """How the run drew its intervals: resamples, level and seed."""
    asked = run.config.get("bootstrap", {})
    return {"resamples": asked.get("resamples", 2000), "level": asked.get("level", 0.95),
            "seed": run.config.get("seed", 0)}  # fmt: skip


def _undirected(rows: Sequence[Row], metric: str, where: Mapping) -> bool:
    """Whether neither more nor less of the metric is better, so that no model can be best."""
    run, _ = where.get((rows[0]["fingerprint"], rows[0]["role"]), (None, None)) if rows else (None, None)
    return run is not None and direction(run, metric) is None


def _leaders(rows: Sequence[Row], metric: str, where: Mapping) -> tuple[list[str], tuple[int, float] | None]:
    """Fingerprints of the rows that are best, and the test's resamples and level; None where none could be made."""
    import numpy as np

    from patientdx.metrics.bootstrap import bootstrap_p, replicates
    from patientdx.metrics.paired import holm
    from patientdx.metrics.specification import higher_is_better

    scored = {row["fingerprint"]: _answers(row, where) for row in rows}
    if len(scored) < 2 or None in scored.values():
        return [], None
    first = next(iter(scored.values()))
    if not all(first.fits(one, metric) for one in scored.values()):
        return [], None
    models: dict[bytes, list[Row]] = {}
    for row in rows:
        models.setdefault(scored[row["fingerprint"]].of(metric)[0].tobytes(), []).append(row)
    run = where[rows[0]["fingerprint"], rows[0]["role"]][0]
    function = functions(run).get(metric)
    if function is None:
        return [], None
    settings, others = draws(run), len(models) - 1
    alpha = 1 - settings["level"]
    if not others:  # as the same: no answer was empty, say
        return [], (settings["resamples"], alpha)
    # The smallest p is 2 / (resamples + 1), and Holm multiplies it by the number of comparisons.
    resamples = max(settings["resamples"], math.ceil(5 * others / alpha))
    try:
        drawn = [
            replicates({metric: function}, *scored[these[0]["fingerprint"]].of(metric), first.subject,
                       resamples=resamples, seed=settings["seed"])[metric]
            for these in models.values()
        ]  # fmt: skip
    except (UserError, ValueError):  # too few patients, or a metric of other scores than these
        return [], None
    values = [these[0][metric] for these in models.values()]
    lead = int(np.argmax(values) if higher_is_better(function) else np.argmin(values))
    patients = np.unique(np.asarray(first.subject)).size
    p_values = {i: bootstrap_p(drawn[lead] - drawn[i], patients) for i in range(len(drawn)) if i != lead}
    if None in p_values.values() or max(holm(p_values).values()) >= alpha:
        return [], (resamples, alpha)
    return [row["fingerprint"] for row in list(models.values())[lead]], (resamples, alpha)


def _answers(row: Row, where: Mapping) -> Answers | None:
    run, split = where.get((row["fingerprint"], row["role"]), (None, None))
    return None if run is None else run.answers.get((row["role"], split))


def _notes(any_bold: bool, tested: Sequence[tuple[int, float]], untested: bool) -> Iterator[str]:
    """What the table says of its bold type; lines fit a terminal of 80 characters."""
    if tested:
        resamples, alpha = max(tested)
        yield "bold: better than every other model" if any_bold else "nothing is bold: no model differs from all others"
        yield f"(paired bootstrap by patient, {resamples} resamples, Holm, p < {alpha:.3g})"
    if untested:
        yield "not all models could be compared: other stays, or no predictions.parquet"
