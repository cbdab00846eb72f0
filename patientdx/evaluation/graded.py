"""What a run leaves of a task whose answers are right or wrong: rows, comparisons of models, groups, predictions.

The counterpart of `patientdx.evaluation.results` for tasks of kind multiple_choice and generate: there is no yes/no probability,
and a question is its own cluster unless the task says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from patientdx.core.errors import UserError
from patientdx.core.functions import dotted
from patientdx.evaluation.config.sections import RunConfig
from patientdx.evaluation.generated import BERTSCORE, numbers
from patientdx.evaluation.kinds.names import MULTIPLE_CHOICE
from patientdx.evaluation.plan import Plan
from patientdx.evaluation.results import NAMES, Found, parent_names, placed, subjects_of
from patientdx.evaluation.store import hashed
from patientdx.metrics import bootstrap, intervals, paired

# How an option is chosen: the largest sum of log-probabilities, or the largest per character, byte or token of the
# option. The first three are lm-evaluation-harness' own names.
CHOSEN = ("acc", "acc_norm", "acc_bytes", "acc_tokens")
Marks = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


def marks(config: RunConfig, asked: Plan, found: Found, role: str, split: str) -> Marks:
    """For each of the task's metrics what one model answered, (n,) or (n, k), and what is right, (n,), as it takes it.

    Raises UserError for a metric by a name that tasks of this kind do not have.
    """
    scores, rows = found[role, split].option, asked.rows[split]
    known = _chosen(asked, scores, rows) if asked.data.kind == MULTIPLE_CHOICE else _judged(asked, scores)
    names = [name for name, _ in _named(config, asked)]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UserError(
            f"task.metrics names {', '.join(unknown) or 'nothing'}; task={config.task.name} has {', '.join(known)}."
        )
    return {name: known[name] for name in names}


def _named(config: RunConfig, asked: Plan) -> list[tuple[str, str]]:
    """The task's metrics, without the one that takes an encoder where none is given."""
    how = asked.data.generation
    return [one for one in config.task.metrics if one[0] != BERTSCORE or how is None or how.encoder is not None]


def _chosen(asked: Plan, scores: NDArray[np.float64], rows: list[int]) -> Marks:
    right = np.array([asked.data.examples[i].gold for i in rows], dtype=np.float64)
    texts = [[text for (text,) in asked.data.examples[i].options] for i in rows]
    sizes = {
        "acc": [[1] * len(own) for own in texts],
        "acc_norm": [[len(text) for text in own] for own in texts],
        "acc_bytes": [[len(text.encode()) for text in own] for own in texts],
        "acc_tokens": [[len(tokens) for tokens in asked.tokens.continuations[i]] for i in rows],
    }
    return {name: (_largest(scores, sizes[name]), right) for name in CHOSEN}


def _largest(scores: NDArray[np.float64], sizes: list[list[int]]) -> NDArray[np.float64]:
    """The number of each row's largest score by size, the first where several are."""
    width = scores.shape[1]
    size = np.array([own + [1] * (width - len(own)) for own in sizes], dtype=np.float64)
    return np.where(np.isnan(scores), -np.inf, scores / size).argmax(axis=1).astype(np.float64)


def _judged(asked: Plan, scores: NDArray[np.float64]) -> Marks:
    found, place = {}, 0
    for name, count in numbers(asked.data).items():
        *own, right = scores[:, place : place + count].T
        found[name] = (own[0] if len(own) == 1 else np.stack(own, axis=1), right)
        place += count
    return found | {"cut_off": (1 - scores[:, -1], np.ones(len(scores)))}


def measure(config: RunConfig, asked: Plan, found: Found) -> list[dict[str, Any]]:
    """One row a model and split, as `report` takes them: every metric with its interval by bootstrap of questions."""
    rows, points = [], {point.role: point for point in asked.points}
    for role, split in asked.keys:
        subjects, own = subjects_of(asked, split), {}
        for name, (answer, right) in marks(config, asked, found, role, split).items():
            one = bootstrap.interval(
                _metrics(config, asked)[name], answer, right, subjects, **config.bootstrap.keywords
            )
            own |= {name: one.value, f"{name}_ci_low": one.low, f"{name}_ci_high": one.high}
        row = {
            "task": config.task.name,
            "split": split,
            **placed(points[role]),
            "role": role,
            **parent_names(config),
            **own,
        }
        row |= {"n": len(subjects), "dtype": config.inference.dtype, "data": "open" if asked.data.open_data else "credentialed",
                "fingerprint": asked.keys[role, split]}  # fmt: skip
        if asked.data.kind != MULTIPLE_CHOICE:
            length, ended = found[role, split].option[:, -2:].T
            row |= {"mean_tokens": float(length.mean()), "ended": float(ended.mean())}
            row.setdefault("empty", float((length == 0).mean()))
        rows.append(row)
    return rows


def compared(config: RunConfig, asked: Plan, found: Found) -> dict[str, Any]:
    """The reported split, model against model and group by group; goes into metrics.json as `graded`.

    `comparisons`: the run's own model less each other one, every metric with interval and p-value by paired bootstrap;
    where a question is wholly right or wrong also McNemar's exact test (`only_a`, `only_b`, `p_value`), which takes the
    `rows` for independent, though they may be of fewer `subjects`.
    `groups`: of each grouping and group `n` and, by model, every metric as an estimate.
    """
    split, metrics, draws = config.inference.reported, _metrics(config, asked), config.bootstrap.keywords
    roles = [role for role, one in asked.keys if one == split]
    held = {role: marks(config, asked, found, role, split) for role in roles}
    own, subjects = roles[0], subjects_of(asked, split)
    comparisons = []
    for other in roles[1:]:
        for name, metric in metrics.items():
            (a, right), (b, _) = held[own][name], held[other][name]
            one = {"a": own, "b": other, "metric": name}
            one["difference"] = paired.paired_estimate(metric, a, b, right, subjects, **draws)
            if metric.__name__ == "accuracy":
                one["mcnemar"] = vars(paired.mcnemar(a == right, b == right))
            comparisons.append(one)
    grouped: dict[str, Any] = {}
    for grouping, values in asked.data.groups.items():
        column = np.array([values[i] for i in asked.rows[split]])
        for group in dict.fromkeys(column.tolist()):
            inside = np.flatnonzero(column == group)
            models = {
                role: {name: _within(metrics[name], *one, subjects, inside, draws) for name, one in held[role].items()}
                for role in roles
            }
            grouped.setdefault(grouping, {})[group] = {"n": int(inside.size), "models": models}
    counts = {"rows": len(subjects), "subjects": len(set(subjects))}
    return {"split": split, "comparisons": comparisons, "groups": grouped, **counts}


def _within(metric, answer, right, subjects: list[str], inside: NDArray[np.int64], draws: Mapping[str, Any]) -> dict:
    clusters = [subjects[i] for i in inside]
    if len(set(clusters)) < 2:
        reason = "one question gives no interval"
        value = float(metric(answer[inside], right[inside]))
        return {"value": value, "low": None, "high": None, "dropped": 0, "reason": reason}
    return intervals.estimates({"": metric}, answer[inside], right[inside], clusters, **draws)[0][""]


def headline(config: RunConfig, asked: Plan, rows: list[dict]) -> dict[str, float | int | str]:
    """For a tracker, of the run's own model: numbers by `medqa/acc`; other splits than the reported one say which."""
    summary: dict[str, float | int | str] = {}
    for row in (row for row in rows if row["role"] == asked.points[0].role):
        stem = row["task"] if row["split"] == config.inference.reported else f"{row['task']}_{row['split']}"
        summary |= {f"{stem}/{key}": value for key, value in row.items() if key not in NAMES and value is not None}
    return summary


def predictions(config: RunConfig, asked: Plan, found: Found) -> pa.Table:
    """One row a question and model: hashed ids, what is right, and by metric what was answered (or the numbers that it
    is made of, a list); no text.

    `log_p`: of multiple choice the log-probability of each option, in nats.
    """
    parts = []
    for (role, split), scores in found.items():
        names = {"open_data": asked.data.open_data, "cache": config.cache}
        uids = [asked.data.examples[i].uid for i in asked.rows[split]]
        columns = {
            "id": hashed(uids, **names),
            "subject": hashed(subjects_of(asked, split), **names),
            "split": [split] * len(uids),
            "role": [role] * len(uids),
        }
        for name, (answer, right) in marks(config, asked, found, role, split).items():
            columns |= {name: list(answer), f"{name}_right": right}
        if asked.data.kind == MULTIPLE_CHOICE:
            columns["log_p"] = [row[~np.isnan(row)] for row in scores.option]
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def _metrics(config: RunConfig, asked: Plan) -> dict[str, bootstrap.Metric]:
    return {name: dotted(target) for name, target in _named(config, asked)}
