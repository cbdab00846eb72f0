"""Charts of a report as Altair has them, from plain rows or the results of a clinical evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from patientdx.core.tables import format_interval, metric_title
from patientdx.reporting.chart_style import (
    DASHES,
    EVENT,
    GREY,
    GRID,
    HEIGHT,
    INK,
    OTHER,
    PALE,
    PARENT_COLOURS,
    PARENTS,
    SIDE,
    WIDTH,
    Look,
    scales,
)

OUTSIDE = "–"  # layer of a tensor that belongs to no layer
TREATED = {"treat all": Look(GREY, (2, 3)), "treat none": Look(INK, (1, 0))}
OUTCOMES = {"no event": Look(OTHER, None, "square"), "event": Look(EVENT, None, "square")}
_DISCRIMINATION = {"roc": ("1 − specificity", "sensitivity"), "pr": ("recall (sensitivity)", "precision (PPV)")}


def other_looks(roles: Sequence[str]) -> dict[str, Look]:
    """The looks of models that are not merged, parents first."""
    looks = {}
    for index, role in enumerate(sorted(roles, key=lambda role: role not in PARENTS)):
        dash = DASHES[(index + 1) % len(DASHES)]
        looks[role] = Look(PARENT_COLOURS.get(role, PALE), dash, PARENTS.get(role, "circle"))
    return looks


def forest(
    rows: Sequence[Mapping[str, Any]], metric: str, looks: Mapping[str, Look], *, chance: float | None = None
) -> Any:
    """One line a model: value, interval, and both as text. `rows` have name, value, low and high."""
    import altair as alt

    data = []
    for row in rows:
        shown = format_interval(row["value"], row["low"], row["high"], 3)
        data.append({**row, "shown": shown, "description": f"{row['name']}: {metric_title(metric)} {shown}"})
    order = [row["name"] for row in rows]
    ends = [row[key] for row in rows for key in ("value", "low", "high") if row[key] is not None]
    x = alt.X("value:Q", title=metric_title(metric), axis=alt.Axis(tickCount=5, grid=True),
              scale=alt.Scale(domain=_domain([*ends, *([chance] if chance is not None else [])])))  # fmt: skip
    y = alt.Y("name:N", sort=order, title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=8))
    scale = scales({name: looks[name] for name in order})
    by_model = alt.Color("name:N", legend=None, scale=scale["colour"])
    shapes = alt.Shape("name:N", legend=None, scale=scale["shape"])
    points, wide = data_of(data), 215
    layers = [] if chance is None else [level_line(chance, "x", _domain([*ends, chance]))]
    layers += [
        points.mark_rule(strokeWidth=2, opacity=0.6, aria=False).encode(
            x=alt.X("low:Q"), x2="high:Q", y=y, color=by_model
        ),
        points.mark_point(size=75, filled=True, opacity=1).encode(
            x, y, by_model, shapes, alt.Description("description:N")
        ),
        points.mark_text(align="left", aria=False).encode(y=y, text="shown:N", x=alt.value(wide + 15)),
    ]
    # Room at both sides: on a phone letters are larger than Vega assumes.
    room = {"left": 16, "right": 26, "top": 5, "bottom": 5}
    return alt.layer(*layers).properties(width=wide, height=max(60, 26 * len(rows)), padding=room)


def discrimination(
    name: str,
    results: Mapping[str, Mapping[str, Any]],
    looks: Mapping[str, Look],
    *,
    descriptions: Mapping[str, str],
    prevalence: float | None = None,
) -> Any:
    """ROC (`name` is "roc") or precision against recall ("pr") of each model, from its `discrimination`.

    descriptions: the text for each curve. prevalence: precision by chance, None where it is not known.
    """
    import altair as alt

    data = [
        {"x": x, "y": y, "step": step, "model": model, "description": descriptions[model]}
        for model, result in results.items()
        for step, (x, y) in enumerate(result[name])
    ]
    scale = scales({model: looks[model] for model in results})
    x, y = _DISCRIMINATION[name]
    if name == "roc":
        layers = [_diagonal([[0, 0], [1, 1]])]
    else:
        layers = [] if prevalence is None else [level_line(prevalence, "y", [0, 1])]
    unit, axis = alt.Scale(domain=[0, 1]), alt.Axis(tickCount=5, labelFlush=False)
    layers.append(
        data_of(data).mark_line(strokeWidth=2).encode(
            alt.X("x:Q", title=x, scale=unit, axis=axis),
            alt.Y("y:Q", title=y, scale=unit, axis=axis),
            alt.Color("model:N", scale=scale["colour"], legend=None),
            alt.StrokeDash("model:N", scale=scale["dash"], legend=None),
            alt.Order("step:Q"), alt.Description("description:N"),
        )
    )  # fmt: skip
    return alt.layer(*layers).properties(width=SIDE, height=SIDE)


def calibration(bins: Mapping[str, Sequence[Mapping[str, float]]], looks: Mapping[str, Look]) -> Any:
    """Observed rate against mean probability in bins of equal mass, with the interval of each rate."""
    import altair as alt

    data = [
        {"x": point["probability"], "y": point["observed"], "low": point["low"], "high": point["high"], "model": name,
         "description": f"{name}: predicted {point['probability']:.3f}, observed "
                        f"{format_interval(point['observed'], point['low'], point['high'], 3)}"}
        for name, points in bins.items() for point in points
    ]  # fmt: skip
    top = min(1.0, 1.05 * max((max(point["x"], point["high"]) for point in data), default=1.0))
    scale, unit = scales({name: looks[name] for name in bins}), alt.Scale(domain=[0, top], nice=False)
    x = alt.X("x:Q", title="mean predicted probability", scale=unit, axis=alt.Axis(tickCount=5, labelFlush=False))
    y = alt.Y("y:Q", title="observed rate of events", scale=unit, axis=alt.Axis(tickCount=5, labelFlush=False))
    by_model = alt.Color("model:N", scale=scale["colour"], legend=None)
    points = data_of(data)
    layers = [
        _diagonal([[0, 0], [top, top]]),
        points.mark_rule(strokeWidth=1.4, opacity=0.4, aria=False).encode(
            x, alt.Y("low:Q"), alt.Y2("high:Q"), by_model),
        points.mark_line(strokeWidth=1.6, aria=False).encode(x, y, by_model, alt.StrokeDash(
            "model:N", scale=scale["dash"], legend=None)),
        points.mark_point(size=40, filled=True, opacity=1).encode(x, y, by_model, alt.Description("description:N")),
    ]  # fmt: skip
    return alt.layer(*layers).properties(width=SIDE, height=SIDE)


def decision(lines: Mapping[str, Mapping[str, Sequence[float]]], looks: Mapping[str, Look]) -> Any:
    """Net benefit per 100 stays at each threshold, against treating all and treating none."""
    import altair as alt

    first = next(iter(lines.values()))
    every = {name: line["model"] for name, line in lines.items()}
    every |= {"treat all": first["treat_all"], "treat none": first["treat_none"]}
    top = 100 * max((max(values) for values in every.values()), default=0.01) or 1.0
    data = [
        {"x": t, "y": 100 * v, "model": name, "description": f"{name}: net benefit"}
        for name, values in every.items()
        for t, v in zip(first["threshold"], values, strict=True)
    ]
    scale = scales({name: {**looks, **TREATED}[name] for name in every})
    chart = data_of(data).mark_line(strokeWidth=1.9, clip=True).encode(
        alt.X("x:Q", title="threshold probability", axis=alt.Axis(format=".0%", tickCount=6)),
        # Treat-all has no lower bound and would flatten the rest.
        alt.Y("y:Q", title="net benefit per 100 stays", scale=alt.Scale(domain=[-0.25 * top, 1.1 * top], nice=False)),
        alt.Color("model:N", scale=scale["colour"], legend=None),
        alt.StrokeDash("model:N", scale=scale["dash"], legend=None),
        alt.Description("description:N"),
    )  # fmt: skip
    return alt.layer(chart).properties(width=WIDTH, height=HEIGHT)


def distribution(histogram: Mapping[str, Sequence[float]]) -> Any:
    """Share of stays in each step of probability, by outcome; the bars of each outcome add to 1."""
    import altair as alt

    data = []
    for side, name in (("others", "no event"), ("events", "event")):
        total = sum(histogram[side]) or 1
        for (low, high), count in zip(pairwise(histogram["edges"]), histogram[side], strict=True):
            data.append({"x": low, "x2": high, "y": count / total, "outcome": name})
    chart = data_of(data).mark_rect(opacity=0.5, aria=False).encode(
        alt.X("x:Q", title="predicted probability", scale=alt.Scale(zero=False, nice=False),
              axis=alt.Axis(tickCount=5, labelFlush=False)),
        alt.X2("x2:Q"), alt.Y("y:Q", title="share of stays", axis=alt.Axis(tickCount=4, format=".0%")),
        color=alt.Color("outcome:N", scale=alt.Scale(domain=["no event", "event"], range=[OTHER, EVENT]),
                        legend=None),
    )  # fmt: skip
    return alt.layer(chart).properties(width=250, height=150)


def layer_map(
    cells: Sequence[Mapping[str, Any]], order: Sequence[str], *, legend: str, scheme: Any = "viridis", log: bool = False
) -> Any:
    """Layers across, kinds of tensor down in that `order`, a value as colour. `cells` have layer, kind and value.

    On a log scale, cells of 0 are grey.
    """
    import altair as alt

    def position(layer: str) -> tuple[bool, int]:
        return layer == OUTSIDE, 0 if layer == OUTSIDE else int(layer)

    layers = sorted({cell["layer"] for cell in cells}, key=position)
    kinds = [kind for kind in order if any(cell["kind"] == kind for cell in cells)]
    form = ".3g" if log else ".3f"
    data = [
        {**cell, "description": f"{_where(cell['layer'])}, {cell['kind']}: {cell['value']:{form}} {legend}"}
        for cell in cells
    ]
    x = alt.X("layer:O", sort=layers, title=f"layer   ({OUTSIDE} outside the layers)", scale=alt.Scale(domain=layers),
              axis=alt.Axis(labelAngle=0, ticks=False, domain=False, labelOverlap=True))  # fmt: skip
    y = alt.Y("kind:N", sort=kinds, title=None, axis=alt.Axis(ticks=False, domain=False), scale=alt.Scale(domain=kinds))
    scale = alt.Scale(type="log", scheme=scheme, domain=_log_domain(cells)) if log else alt.Scale(scheme=scheme)
    bar = alt.Legend(title=legend, orient="right", direction="vertical", gradientLength=140, tickCount=4,
                     format=".3~g" if log else alt.Undefined)  # fmt: skip
    colour, description = alt.Color("value:Q", scale=scale, legend=bar), alt.Description("description:N")
    squares = [data_of(data, lambda cell: not log or cell["value"] > 0).mark_rect().encode(x, y, colour, description)]
    if log:
        zero = data_of(data, lambda cell: cell["value"] == 0).mark_rect(color=GRID)
        squares.append(zero.encode(x, y, description))
    width = max(260, min(860, 24 * len(layers)))
    return alt.layer(*squares).properties(width=width, height=24 * len(kinds))


def _log_domain(cells: Sequence[Mapping[str, Any]]) -> list[float]:
    """From the smallest to the largest positive value, at least a factor of 4 wide."""
    values = [cell["value"] for cell in cells if cell["value"] > 0] or [1e-4, 1.0]
    low, high = min(values), max(values)
    room = max(1.0, 2 * (low / high) ** 0.5)
    return [low / room, high * room]


def _where(layer: str) -> str:
    return "outside the layers" if layer == OUTSIDE else f"layer {layer}"


def level_line(value: float, axis: str, domain: Sequence[float]) -> Any:
    """A dashed line across the chart."""
    import altair as alt

    position = (alt.Y if axis == "y" else alt.X)("at:Q", scale=alt.Scale(domain=list(domain), zero=False, nice=False))
    return data_of([{"at": value}]).mark_rule(color=GREY, strokeDash=DASHES[1], aria=False).encode(position)


def _diagonal(points: Sequence[Sequence[float]]) -> Any:
    line = data_of([{"x": x, "y": y} for x, y in points])
    return line.mark_line(color=GREY, strokeDash=DASHES[2], strokeWidth=1.2, aria=False).encode(x="x:Q", y="y:Q")


def data_of(rows: Sequence[Mapping[str, Any]], keep: Callable[[Mapping[str, Any]], bool] = bool) -> Any:
    """A chart without marks of the rows to keep."""
    import altair as alt

    return alt.Chart(alt.Data(values=[dict(row) for row in rows if keep(row)]))


def _domain(values: Sequence[float]) -> list[float]:
    """A little wider than the values."""
    low, high = min(values), max(values)
    room = 0.04 * (high - low) or 0.05
    return [low - room, high + room]
