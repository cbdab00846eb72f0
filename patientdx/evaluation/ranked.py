"""What a run leaves of a task of kind ranking: rows, comparisons of models, groups of queries, and the rankings.

The counterpart of `patientdx.evaluation.graded`: a model's yes/no margin puts a query's candidates in order, and the first stage
that found them is a line of the table like any model. Everything is counted in queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from patientdx.core.functions import dotted
from patientdx.evaluation.config.sections import RunConfig
from patientdx.evaluation.plan import Plan
from patientdx.evaluation.results import Found, parent_names, placed
from patientdx.evaluation.store import fingerprint, hashed
from patientdx.metrics import bootstrap, paired
from patientdx.metrics.retrieval import per_query

FIRST_STAGE = "bm25"  # role and method of the first stage's own order
Values = Mapping[str, NDArray[np.float64]]


def lists(asked: Plan, found: Found, role: str, split: str) -> list[list[int]]:
    """Example numbers of each query's candidates, best first, query after query, as one model (or `bm25`) has them.

    Ties keep the first stage's order.
    """
    ranking, rows = asked.data.ranking, asked.rows[split]
    if role == FIRST_STAGE:
        score = {i: ranking.first_stage[i] for i in rows}
    else:
        score = dict(zip(rows, found[role, split].margin.tolist(), strict=True))
    queries = (list(own) for _, own in groupby(rows, key=ranking.query.__getitem__))
    return [sorted(own, key=lambda i: -score[i]) for own in queries]


def values(config: RunConfig, asked: Plan, ordered: Sequence[Sequence[int]]) -> Values:
    """Each of the task's metrics for each query, (m,), of such lists."""
    ranking = asked.data.ranking
    grades = [[ranking.grade[i] for i in own] for own in ordered]
    missed = [ranking.missed[ranking.query[own[0]]] for own in ordered]
    return per_query([name for name, _ in config.task.metrics], grades, missed)


def measure(config: RunConfig, asked: Plan, found: Found) -> list[dict[str, Any]]:
    """One row a model and split, as `report` takes them, the first stage last: metrics with intervals over queries."""
    rows, points = [], {point.role: point for point in asked.points}
    for role, split in _told(asked):
        ordered = lists(asked, found, role, split)
        row = {"task": config.task.name, "split": split}
        if role == FIRST_STAGE:
            row |= {"method": FIRST_STAGE, "lambda": None, "role": role, "base": None, "pivot": None}
        else:
            row |= {**placed(points[role]), "role": role, **parent_names(config)}
        own, clusters = values(config, asked, ordered), _clusters(asked, ordered)
        for name, metric in _metrics(config).items():
            one = bootstrap.interval(metric, own[name], np.ones(len(ordered)), clusters, **config.bootstrap.keywords)
            row |= {name: one.value, f"{name}_ci_low": one.low, f"{name}_ci_high": one.high}
        row |= {"n": len(ordered), "candidates": len(asked.rows[split]), "abstention_mass": None,
                "dtype": "float32" if role == FIRST_STAGE else config.inference.dtype,
                "data": "open" if asked.data.open_data else "credentialed",
                "fingerprint": _fingerprint(asked, role, split)}  # fmt: skip
        if role != FIRST_STAGE:
            row["abstention_mass"] = float(found[role, split].mass.mean())
        rows.append(row)
    return rows


def compared(config: RunConfig, asked: Plan, found: Found) -> dict[str, Any]:
    """The reported split, model against model and group by group; goes into metrics.json as `graded`.

    `comparisons`: the run's own model less each other one, and each other model less the first stage: every metric with
    interval and p-value by paired bootstrap over queries. `groups` as `patientdx.evaluation.graded.compared` has them.
    """
    split, metrics, draws = config.inference.reported, _metrics(config), config.bootstrap.keywords
    roles = [role for role, one in _told(asked) if one == split]
    ordered = {role: lists(asked, found, role, split) for role in roles}
    held = {role: values(config, asked, ordered[role]) for role in roles}
    queries = ordered[roles[0]]
    clusters, ones = _clusters(asked, queries), np.ones(len(queries))
    pairs = [(roles[0], other) for other in roles[1:]] + [(other, FIRST_STAGE) for other in roles[1:-1]]
    comparisons = [
        {"a": a, "b": b, "metric": name,
         "difference": paired.paired_estimate(metric, held[a][name], held[b][name], ones, clusters, **draws)}
        for a, b in pairs for name, metric in metrics.items()
    ]  # fmt: skip
    grouped: dict[str, Any] = {}
    for grouping, column in asked.data.groups.items():
        group_of = np.array([column[own[0]] for own in queries])
        for group in dict.fromkeys(group_of.tolist()):
            inside = np.flatnonzero(group_of == group)
            models = {
                role: {name: _within(metric, held[role][name][inside], clusters[inside], draws)
                       for name, metric in metrics.items()}
                for role in roles
            }  # fmt: skip
            grouped.setdefault(grouping, {})[group] = {"n": int(inside.size), "models": models}
    return {"split": split, "comparisons": comparisons, "groups": grouped}


def predictions(config: RunConfig, asked: Plan, found: Found) -> pa.Table:
    """One row a query and model: hashed ids, by metric the query's value beside 1, and the list; no text.

    The list, best first: `documents` (hashed ids), their `grades`, and `p_yes`, null for the first stage.
    """
    parts, ranking, named = [], asked.data.ranking, {"open_data": asked.data.open_data, "cache": config.cache}
    documents = hashed(ranking.documents, **named)
    for role, split in _told(asked):
        ordered = lists(asked, found, role, split)
        columns: dict[str, Any] = {
            "id": hashed([ranking.queries[ranking.query[own[0]]] for own in ordered], **named),
            "subject": hashed(_clusters(asked, ordered).tolist(), **named),
            "split": [split] * len(ordered),
            "role": [role] * len(ordered),
        }
        for name, value in values(config, asked, ordered).items():
            columns |= {name: value, f"{name}_right": np.ones(len(ordered))}
        columns["documents"] = [[documents[ranking.document[i]] for i in own] for own in ordered]
        columns["grades"] = [[ranking.grade[i] for i in own] for own in ordered]
        probable = {}
        if role != FIRST_STAGE:
            probable = dict(zip(asked.rows[split], found[role, split].probability.tolist(), strict=True))
        said = [[probable[i] for i in own] if probable else None for own in ordered]
        parts.append(pa.table(columns | {"p_yes": pa.array(said, pa.list_(pa.float64()))}))
    return pa.concat_tables(parts)


def _told(asked: Plan) -> list[tuple[str, str]]:
    """(role, split) of every row: the models', then the first stage's."""
    return [*asked.keys, *((FIRST_STAGE, split) for split in asked.rows)]


def _fingerprint(asked: Plan, role: str, split: str) -> str:
    if role == FIRST_STAGE:
        return fingerprint({"first_stage": FIRST_STAGE, "task": asked.data.fingerprint, "split": split})
    return asked.keys[role, split]


def _clusters(asked: Plan, ordered: Sequence[Sequence[int]]) -> NDArray[np.str_]:
    return np.array([asked.data.examples[own[0]].subject for own in ordered])


def _within(metric: bootstrap.Metric, own: NDArray[np.float64], clusters: NDArray[np.str_], draws) -> dict[str, Any]:
    if len(set(clusters.tolist())) < 2:
        value, reason = float(own.mean()), "one query gives no interval"
        return {"value": value, "low": None, "high": None, "dropped": 0, "reason": reason}
    one = bootstrap.interval(metric, own, np.ones(own.size), clusters, **draws)
    return {"value": one.value, "low": one.low, "high": one.high, "dropped": one.dropped}


def _metrics(config: RunConfig) -> dict[str, bootstrap.Metric]:
    return {name: dotted(target) for name, target in config.task.metrics}
