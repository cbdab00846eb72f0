"""The same models under several seeds: how much their values differ between splits, beside the intervals by patient."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev

from patientdx.core.tables import (
    Cell,
    Row,
    Table,
    as_number,
    count,
    few_events,
    interval,
    make_table,
    metric_names,
    metric_title,
    model_name,
    plain,
    word,
)
from patientdx.reporting.runs import Study

_NOTES = (
    "SD and range over seeds: how much the value changes with the seed, which draws the splits (and what is random in "
    "a method). Splits share patients, so it is no standard error",
    "interval by patient: the mean of the lower and of the upper ends of the seeds' own intervals, which say how far "
    "other patients in one test split could move the value. Neither spread contains the other",
)


def over_seeds(study: Study) -> Table | None:
    """A line a model, split and metric that several seeds have; None without such."""
    models: dict[tuple[str, ...], dict[int, Row]] = {}
    for row in study.rows:
        seed = study.run_of(row).config.get("seed")
        if seed is not None:
            models.setdefault(_key(row), {})[seed] = row
    lines = [line for by_seed in models.values() if len(by_seed) > 1 for line in _lines(list(by_seed.values()))]
    if not lines:
        return None
    columns = ["model", "split", "metric", "seeds", "mean, interval by patient", "SD over seeds", "range over seeds"]
    return make_table("seeds", "Over seeds", columns, lines, notes=_NOTES, section="seeds", keys=3)


def _key(row: Row) -> tuple[str, ...]:
    """What names a model, its task and split, but for the seed."""
    setting = [part for part in (row.get("setting") or "").split(", ") if not part.startswith("seed=")]
    names = (row.get(name) for name in ("task", "base", "pivot", "split", "role", "method", "variant", "lambda"))
    return (*map(str, names), *setting)


def _lines(rows: Sequence[Row]) -> list[list[Cell]]:
    lines = []
    for metric in metric_names(rows):
        values = [value for row in rows if (value := as_number(row.get(metric))) is not None]
        if len(values) < 2:
            continue
        low, high = (
            [end for row in rows if (end := as_number(row.get(f"{metric}_ci_{side}"))) is not None]
            for side in ("low", "high")
        )
        ends = (mean(low), mean(high)) if low and high else (None, None)
        few = any(map(few_events, rows))
        names = (f"{rows[0]['task']}: {model_name(rows[0])}", rows[0].get("split"), metric_title(metric))
        lines.append([*map(word, names), count(len(values)), interval(mean(values), *ends, few=few),
                      plain(stdev(values)), word(f"{min(values):.3f} to {max(values):.3f}")])  # fmt: skip
    return lines
