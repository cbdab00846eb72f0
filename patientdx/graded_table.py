"""Terminal tables of a task whose answers are right or wrong: group by group, and model against model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from patientdx.drawing import Row
from patientdx.report.numbers import estimate, interval, p_value, text
from patientdx.report.rows import metric_names, model_name
from patientdx.report.terminal import framed


def tables(found: Mapping[str, Any]) -> list[Table]:
    """What `patientdx.graded.compared` found, in 80 columns: the first metric of each group, then every comparison."""
    shown = [_groups(name, groups, found["split"]) for name, groups in found["groups"].items()]
    return [*shown, _comparisons(found)] if found["comparisons"] else shown


def models(rows: Sequence[Row]) -> list[Table]:
    """The rows of one run in 80 columns, a table a split: a line a metric, a column a model."""
    found = []
    for split in dict.fromkeys(row["split"] for row in rows):
        own = [row for row in rows if row["split"] == split]
        columns: dict[str, list[str]] = {"metric": []} | {model_name(row): [] for row in own}
        for metric in metric_names(own):
            columns["metric"].append(_breakable(metric))
            for row in own:
                columns[model_name(row)].append(
                    interval(*(row[f"{metric}{end}"] for end in ("", "_ci_low", "_ci_high")))
                )
        caption = [f"task {own[0]['task']}, {split}: n {own[0]['n']}"]
        found.append(framed(columns, wraps=("metric",), left=("metric",), title=f"\nModels, {split}", caption=caption))
    return found


def _groups(name: str, groups: Mapping[str, Any], split: str) -> Table:
    first = next(iter(groups.values()))["models"]
    metric = next(iter(next(iter(first.values()))))
    columns: dict[str, list[str]] = {name: [], "n": [], **{role: [] for role in first}}
    for group, one in groups.items():
        columns[name].append(group.replace("_", " "))
        columns["n"].append(text(one["n"]))
        for role, metrics in one["models"].items():
            columns[role].append(estimate(metrics[metric]))
    return framed(columns, wraps=(name,), left=(name,), title=f"\n{metric} by {name}, {split}")


def _breakable(metric: str) -> str:
    """A long name as words, which a narrow column can break."""
    return metric.replace("_", " ") if len(metric) > 12 else metric


def _comparisons(found: Mapping[str, Any]) -> Table:
    columns: dict[str, list[str]] = {
        heading: [] for heading in ("models", "metric", "difference", "p", "only\nfirst", "only\nsecond", "McNemar\np")
    }
    for one in found["comparisons"]:
        exact = one.get("mcnemar", {})
        cells = (
            f"{one['a']} less {one['b']}", _breakable(one["metric"]), estimate(one["difference"]),
            p_value(one["difference"].get("p_value")), text(exact.get("only_a")), text(exact.get("only_b")),
            p_value(exact.get("p_value")),
        )  # fmt: skip
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    caption = ["difference and p by paired bootstrap of questions; McNemar: the questions that only one has right"]
    left = ("models", "metric")
    return framed(columns, wraps=left, left=left, title=f"\nModels compared, {found['split']}", caption=caption)
