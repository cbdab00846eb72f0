"""Terminal tables of a task whose answers are right or wrong: group by group, and model against model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from patientdx.core.tables import (
    Row,
    format_estimate,
    format_interval,
    format_p_value,
    format_value,
    metric_names,
    model_name,
)
from patientdx.reporting.terminal import GAP, WIDTH, framed, width


def tables(found: Mapping[str, Any]) -> list[Table]:
    """What `patientdx.evaluation.graded.compared` found, in 80 columns: the first metric of each group, then every comparison."""
    shown = [table for name, groups in found["groups"].items() for table in _groups(name, groups, found["split"])]
    return [*shown, _comparisons(found)] if found["comparisons"] else shown


def models(rows: Sequence[Row]) -> list[Table]:
    """The rows of one run in 80 columns: a line a metric, a column a model, one table or more a split."""
    found = []
    for split in dict.fromkeys(row["split"] for row in rows):
        own = [row for row in rows if row["split"] == split]
        metrics = metric_names(own)
        columns = {
            model_name(row): [
                format_interval(*(row[f"{metric}{end}"] for end in ("", "_ci_low", "_ci_high"))) for metric in metrics
            ]
            for row in own
        }
        first = {"metric": list(map(_breakable, metrics))}
        tables = list(_side_by_side(columns, WIDTH - max(map(len, " ".join(first["metric"]).split()))))
        caption = [f"task {own[0]['task']}, {split}: n {own[0]['n']}"]
        for part in tables:
            title = f"\nModels, {split}" if part is tables[0] else None
            below = caption if part is tables[-1] else ()
            found.append(framed(first | part, wraps=("metric",), left=("metric",), title=title, caption=below))
    return found


def _side_by_side(columns: Mapping[str, list[str]], room: int) -> Iterator[dict[str, list[str]]]:
    """The columns in their order, as many at a time as fit beside each other."""
    part, taken = {}, 0
    for name, column in columns.items():
        more = width(name, column) + GAP
        if part and taken + more > room:
            yield part
            part, taken = {}, 0
        part[name], taken = column, taken + more
    yield part


def _groups(name: str, groups: Mapping[str, Any], split: str) -> Iterator[Table]:
    first = next(iter(groups.values()))["models"]
    metric = next(iter(next(iter(first.values()))))
    left = {
        name: [group.replace("_", " ") for group in groups],
        "n": [format_value(one["n"]) for one in groups.values()],
    }
    columns = {role: [format_estimate(one["models"][role][metric]) for one in groups.values()] for role in first}
    word = max(map(len, " ".join([name, *left[name]]).split()))
    parts = list(_side_by_side(columns, WIDTH - word - GAP - width("n", left["n"]) - GAP))
    for part in parts:
        title = f"\n{metric} by {name}, {split}" if part is parts[0] else None
        yield framed(left | part, wraps=(name,), left=(name,), title=title)


def _breakable(metric: str) -> str:
    """A long name as words, which a narrow column can break."""
    return metric.replace("_", " ") if len(metric) > 12 else metric


def _comparisons(found: Mapping[str, Any]) -> Table:
    exact = any("mcnemar" in one for one in found["comparisons"])
    headings = (
        "models",
        "metric",
        "difference",
        "p",
        *(("only\nfirst", "only\nsecond", "McNemar\np") if exact else ()),
    )
    columns: dict[str, list[str]] = {heading: [] for heading in headings}
    for one in found["comparisons"]:
        right = one.get("mcnemar", {})
        cells = (
            f"{one['a']} less {one['b']}", _breakable(one["metric"]), format_estimate(one["difference"]),
            format_p_value(one["difference"].get("p_value")), format_value(right.get("only_a")), format_value(right.get("only_b")),
            format_p_value(right.get("p_value")),
        )  # fmt: skip
        for column, cell in zip(columns.values(), cells, strict=False):
            column.append(cell)
    caption = ["difference and p by paired bootstrap" + ("; McNemar: what only one has right" if exact else "")]
    if exact and found.get("subjects", 0) < found.get("rows", 0):
        caption.append(
            f"McNemar takes the {found['rows']} questions for independent; they are of {found['subjects']} subjects "
            "(patients, or questions that differ), by which the bootstrap draws"
        )
    left = ("models", "metric")
    return framed(columns, wraps=left, left=left, title=f"\nModels compared, {found['split']}", caption=caption)
