"""The λ curve: a metric from the base (λ = 0) to the pivot (λ = 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from patientdx.core.tables import Row, as_number, format_interval, format_value, metric_title, model_name
from patientdx.reporting.chart_style import (
    DASHES,
    GREY,
    HEIGHT,
    PARENT_COLOURS,
    PARENTS,
    WIDTH,
    Look,
    method_look,
    scales,
)
from patientdx.reporting.charts import data_of, level_line

ENDS = {"base": 0.0, "pivot": 1.0}
_SHIFT = 0.012  # in λ: intervals at one λ are side by side
_STEP = 0.1  # in λ: a line joins what was measured at most that far apart


def on_curve(rows: Sequence[Row], metric: str) -> list[Row]:
    """The rows with a position on the curve and a value of the metric: parents and merges at a single λ."""
    valued = [row for row in rows if as_number(row.get(metric)) is not None]
    return [row for row in valued if row.get("role") in ENDS or
            (row.get("role") == "merged" and as_number(row.get("lambda")) is not None)]  # fmt: skip


def panels(
    rows: Sequence[Row], metric: str, looks: Mapping[str, Look], rings: Mapping[str, float], *, title: str | None = None
) -> dict[str, Any]:
    """One chart a split, all with one scale of the metric; empty where no merged model is on the curve.

    rows: those of `on_curve`. rings: the λ that is marked, by series.
    """
    if not any(row["role"] == "merged" for row in rows):
        return {}
    splits = {split: [row for row in rows if str(row.get("split")) == split] for split in _splits(rows)}
    chances = {split: chance(metric, members) for split, members in splits.items()}
    domain = _domain([*_values(rows, metric), *(value for value in chances.values() if value is not None)])
    title = title or metric_title(metric)
    return {
        split: lambda_curve(members, metric, looks, title=title, domain=domain, chance=chances[split], rings=rings)
        for split, members in splits.items()
    }


def _splits(rows: Sequence[Row]) -> list[str]:
    """The splits that occur, pilot first."""
    return sorted(dict.fromkeys(str(row.get("split")) for row in rows), key=lambda split: split != "pilot")


def chance(metric: str, rows: Sequence[Row]) -> float | None:
    """What a model without information has: 0.5 for AUROC, the prevalence for AUPRC, else None."""
    if metric == "auroc":
        return 0.5
    known = (as_number(row.get("prevalence")) for row in rows) if metric == "auprc" else ()
    return next((value for value in known if value is not None), None)


def _values(rows: Sequence[Row], metric: str) -> list[float]:
    """Values and the ends of their intervals."""
    keys = (metric, f"{metric}_ci_low", f"{metric}_ci_high")
    return [value for row in rows for key in keys if (value := as_number(row.get(key))) is not None]


def _domain(values: Sequence[float]) -> list[float]:
    room = 0.03 * (max(values) - min(values)) or 0.01
    return [min(values) - room, max(values) + room]


def curve_looks(rows: Sequence[Row]) -> dict[str, Look]:
    """The look of each series of merged models."""
    names = dict.fromkeys(series(row) for row in rows if row["role"] == "merged")
    return {name: method_look(index) for index, name in enumerate(names)}


def key_looks(
    rows: Sequence[Row], metric: str, looks: Mapping[str, Look], rings: Mapping[str, float]
) -> dict[str, Look]:
    """The key of a curve: its series, the parents, the ring and chance."""
    key = {series(row): looks[series(row)] for row in rows if row["role"] == "merged"}
    parents = [row["role"] for row in rows if row["role"] in PARENTS]
    key |= {role: Look(PARENT_COLOURS[role], None, PARENTS[role]) for role in parents}
    key |= {"chosen on pilot": Look(GREY, None, "ring")} if rings else {}
    level = chance(metric, rows)
    return key if level is None else key | {f"chance ({format_value(level, '.3f')})": Look(GREY, DASHES[1])}


def lambda_curve(
    rows: Sequence[Row],
    metric: str,
    looks: Mapping[str, Look],
    *,
    title: str,
    domain: Sequence[float],
    chance: float | None = None,
    rings: Mapping[str, float] | None = None,
) -> Any:
    """A metric of one split against λ: marks a method (`series`) from base (0) to pivot (1), bars for intervals.

    A line joins neighbours of a method at most 0.1 apart, and no others: between them nothing was measured. The
    metric's axis has `title` and the ends `domain`; a dashed line is `chance`, `rings` are marked λ by series.
    """
    import altair as alt

    names = list(dict.fromkeys(series(row) for row in rows if row["role"] == "merged"))
    line, points = _curve_data(rows, metric, title, names, rings or {})
    scale = scales({name: looks[name] for name in names})
    x = alt.X("x:Q", title="λ   (0 = base, 1 = pivot)", scale=alt.Scale(domain=[-0.03, 1.03], nice=False),
              axis=alt.Axis(values=[i / 10 for i in range(11)], grid=False, format=".1f"))  # fmt: skip
    y, low = (
        alt.Y(f"{key}:Q", title=title, axis=alt.Axis(tickCount=6),
              scale=alt.Scale(domain=list(domain), zero=False, nice=False)) for key in ("y", "low")
    )  # fmt: skip
    by_model = alt.Color("model:N", scale=scale["colour"], legend=None)
    dash = alt.StrokeDash("model:N", scale=scale["dash"], legend=None)
    shape, description = alt.Shape("model:N", scale=scale["shape"], legend=None), alt.Description("description:N")
    bars, ringed = data_of(points, lambda row: row["low"] is not None), data_of(points, lambda row: row["ring"])
    layers = [] if chance is None else [level_line(chance, "y", domain)]
    layers += [
        data_of(line).mark_line(strokeWidth=2, aria=False).encode(x, y, by_model, dash, alt.Detail("piece:Q")),
        bars.mark_rule(strokeWidth=1.6, opacity=0.55, aria=False).encode(x, low, alt.Y2("high:Q"), by_model),
        ringed.mark_point(size=270, strokeWidth=2, aria=False).encode(x, y, by_model),
        data_of(points).mark_point(size=60, filled=True, opacity=1).encode(x, y, by_model, shape, description),
    ]
    for role, form in PARENTS.items():
        here = [_point(row, metric, title, ENDS[role]) | {"model": role} for row in rows if row["role"] == role]
        ends = data_of(here)
        colour = PARENT_COLOURS[role]
        bar = ends.mark_rule(strokeWidth=1.6, opacity=0.55, color=colour, aria=False)
        end = ends.mark_point(size=90, shape=form, filled=True, color=colour, opacity=1)
        layers += [bar.encode(x, low, alt.Y2("high:Q")), end.encode(x, y, description)]
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)


def _curve_data(
    rows: Sequence[Row], metric: str, title: str, names: Sequence[str], rings: Mapping[str, float]
) -> tuple[list[dict], list[dict]]:
    """The ends of the pieces of lines, and the points; a merged model at λ=0 or 1 is the parent there."""
    parents = {ENDS[row["role"]]: row for row in rows if row["role"] in ENDS}
    line, points = [], []
    for index, name in enumerate(names):
        shift = _SHIFT * (index - (len(names) - 1) / 2)
        corners = {end: {"x": end, "y": row[metric], "model": name} for end, row in parents.items()}
        for row in (row for row in rows if row["role"] == "merged" and series(row) == name):
            ring = rings.get(name) == row["lambda"]
            if row["lambda"] not in parents:
                points.append(_point(row, metric, title, row["lambda"] + shift) | {"model": name, "ring": ring})
                corners[row["lambda"]] = {key: points[-1][key] for key in ("x", "y", "model")}
            elif ring:
                points.append(_point(row, metric, title, row["lambda"]) | {"model": name, "ring": True, "low": None})
        for piece, (weight, following) in enumerate(pairwise(sorted(corners))):
            if following - weight <= _STEP + 1e-9:
                line += [corners[weight] | {"piece": piece}, corners[following] | {"piece": piece}]
    return line, points


def series(row: Row) -> str:
    """The line that a merged model's row belongs to."""
    return f"{row['method']} {row.get('variant') or ''}".strip()


def _point(row: Row, metric: str, title: str, x: float) -> dict[str, Any]:
    low, high = (as_number(row.get(f"{metric}_ci_{end}")) for end in ("low", "high"))
    description = f"{model_name(row)}, {row.get('split')}: {title} {format_interval(row[metric], low, high, 3)}"
    weight = ENDS.get(str(row["role"]), row.get("lambda"))
    return {"lambda": weight, "x": x, "y": row[metric], "low": low, "high": high, "description": description}
