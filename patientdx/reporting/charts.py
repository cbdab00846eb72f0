"""The charts of a report, as Altair has them. Each takes plain rows or what `patientdx.evaluation.clinical` found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from patientdx.core.tables import Row, as_number, format_interval, metric_title, model_name
from patientdx.reporting.chart_style import DASHES, EVENT, GREY, HEIGHT, INK, OTHER, PARENTS, SIDE, WIDTH, Look, scales

if TYPE_CHECKING:
    import altair as alt

_ENDS = {"base": 0.0, "pivot": 1.0}
OUTSIDE = "–"  # where a tensor is that belongs to no layer
_BETWEEN = 0.012  # in λ: intervals at one λ stand side by side


def lambda_curve(
    rows: Sequence[Row],
    metric: str,
    looks: Mapping[str, Look],
    *,
    title: str,
    domain: Sequence[float],
    chance: float | None = None,
    chosen: Mapping[str, float] | None = None,
) -> alt.LayerChart:
    """A metric of one split against λ: a line a method (`series`) from base (0) to pivot (1), bars for intervals.

    The metric's axis has `title` and the ends `domain`; a dashed line is `chance`, rings are the λ `chosen` by series.
    """
    import altair as alt

    parents = [row for row in rows if row["role"] in _ENDS]
    names = list(dict.fromkeys(series(row) for row in rows if row["role"] == "merged"))
    line, points = _curve_data(rows, metric, title, names, chosen or {})
    scale = scales({name: looks[name] for name in names})
    x = alt.X("x:Q", title="λ   (0 = base, 1 = pivot)", scale=alt.Scale(domain=[-0.03, 1.03], nice=False),
              axis=alt.Axis(values=[i / 10 for i in range(11)], grid=False, format=".1f"))  # fmt: skip
    y, low = (
        alt.Y(f"{key}:Q", title=title, axis=alt.Axis(tickCount=6),
              scale=alt.Scale(domain=list(domain), zero=False, nice=False)) for key in ("y", "low")
    )  # fmt: skip
    by_model = alt.Color("model:N", scale=scale["colour"], legend=None)
    dash = alt.StrokeDash("model:N", scale=scale["dash"], legend=None)
    shape, says = alt.Shape("model:N", scale=scale["shape"], legend=None), alt.Description("says:N")
    bars, rings = _of(points, lambda one: one["low"] is not None), _of(points, lambda one: one["ring"])
    layers = [] if chance is None else [_at(chance, "y", domain)]
    layers += [
        _of(line).mark_line(strokeWidth=2, aria=False).encode(x, y, by_model, dash),
        bars.mark_rule(strokeWidth=1.6, opacity=0.55, aria=False).encode(x, low, alt.Y2("high:Q"), by_model),
        rings.mark_point(size=270, strokeWidth=2, aria=False).encode(x, y, by_model),
        _of(points).mark_point(size=60, filled=True, opacity=1).encode(x, y, by_model, shape, says),
    ]
    for role, form in PARENTS.items():
        ends = _of([_point(row, metric, title, _ENDS[role]) for row in parents if row["role"] == role])
        bar = ends.mark_rule(strokeWidth=1.6, opacity=0.55, color=INK, aria=False)
        end = ends.mark_point(size=90, shape=form, filled=True, color=INK, opacity=1)
        layers += [bar.encode(x, low, alt.Y2("high:Q")), end.encode(x, y, says)]
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)


def _curve_data(
    rows: Sequence[Row], metric: str, title: str, names: Sequence[str], chosen: Mapping[str, float]
) -> tuple[list[dict], list[dict]]:
    """The corners of the lines, parents at both ends, and the points; a merged model at an end is the parent there."""
    parents = {_ENDS[row["role"]]: row for row in rows if row["role"] in _ENDS}
    line, points = [], []
    for index, name in enumerate(names):
        shift = _BETWEEN * (index - (len(names) - 1) / 2)
        line += [{"x": place, "y": row[metric], "model": name} for place, row in parents.items()]
        for row in (row for row in rows if row["role"] == "merged" and series(row) == name):
            ring = chosen.get(name) == row["lambda"]
            if row["lambda"] not in parents:
                points.append(_point(row, metric, title, row["lambda"] + shift) | {"model": name, "ring": ring})
                line.append({key: points[-1][key] for key in ("x", "y", "model")})
            elif ring:
                points.append(_point(row, metric, title, row["lambda"]) | {"model": name, "ring": True, "low": None})
    return line, points


def series(row: Row) -> str:
    """The line that a merged model's row belongs to."""
    return f"{row['method']} {row.get('variant') or ''}".strip()


def _point(row: Row, metric: str, title: str, x: float) -> dict[str, Any]:
    low, high = (as_number(row.get(f"{metric}_ci_{end}")) for end in ("low", "high"))
    shown = format_interval(row[metric], low, high, 3)
    says = f"{model_name(row)}, {row['split']}: {title} {shown}"
    return {"x": x, "y": row[metric], "low": low, "high": high, "says": says}


def forest(
    rows: Sequence[Mapping[str, Any]], metric: str, looks: Mapping[str, Look], *, chance: float | None = None
) -> alt.LayerChart:
    """One line a model: value, interval, and both in figures. `rows` have name, value, low and high."""
    import altair as alt

    data = [
        {**row, "shown": format_interval(row["value"], row["low"], row["high"], 3),
         "says": f"{row['name']}: {metric_title(metric)} {format_interval(row['value'], row['low'], row['high'], 3)}"}
        for row in rows
    ]  # fmt: skip
    order = [row["name"] for row in rows]
    ends = [row[key] for row in rows for key in ("value", "low", "high") if row[key] is not None]
    x = alt.X("value:Q", title=metric_title(metric), axis=alt.Axis(tickCount=5, grid=True),
              scale=alt.Scale(domain=_domain([*ends, *([chance] if chance is not None else [])])))  # fmt: skip
    y = alt.Y("name:N", sort=order, title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=8))
    scale = scales({name: looks[name] for name in order})
    by_model = alt.Color("name:N", legend=None, scale=scale["colour"])
    shapes = alt.Shape("name:N", legend=None, scale=scale["shape"])
    whole, wide = _of(data), 215
    layers = [] if chance is None else [_at(chance, "x", _domain([*ends, chance]))]
    layers += [
        whole.mark_rule(strokeWidth=2, opacity=0.6, aria=False).encode(
            x=alt.X("low:Q"), x2="high:Q", y=y, color=by_model
        ),
        whole.mark_point(size=75, filled=True, opacity=1).encode(x, y, by_model, shapes, alt.Description("says:N")),
        whole.mark_text(align="left", aria=False).encode(y=y, text="shown:N", x=alt.value(wide + 15)),
    ]
    # Room at both sides: on a phone letters are larger than Vega reckons with.
    room = {"left": 16, "right": 26, "top": 5, "bottom": 5}
    return alt.layer(*layers).properties(width=wide, height=max(60, 26 * len(rows)), padding=room)


def curves(
    lines: Mapping[str, Sequence[Sequence[float]]],
    looks: Mapping[str, Look],
    *,
    x: str,
    y: str,
    says: Mapping[str, str],
    diagonal: bool = False,
    level: float | None = None,
) -> alt.LayerChart:
    """Several curves in the unit square: ROC, precision and recall. `says` is what is told of each."""
    import altair as alt

    data = [
        {"x": a, "y": b, "at": i, "model": name, "says": says[name]}
        for name, points in lines.items()
        for i, (a, b) in enumerate(points)
    ]
    scale = scales({name: looks[name] for name in lines})
    unit = alt.Scale(domain=[0, 1])
    layers = [_segment([[0, 0], [1, 1]])] if diagonal else []
    layers += [] if level is None else [_at(level, "y", [0, 1])]
    layers.append(
        _of(data).mark_line(strokeWidth=2).encode(
            alt.X("x:Q", title=x, scale=unit, axis=alt.Axis(tickCount=5, labelFlush=False)),
            alt.Y("y:Q", title=y, scale=unit, axis=alt.Axis(tickCount=5, labelFlush=False)),
            alt.Color("model:N", scale=scale["colour"], legend=None),
            alt.StrokeDash("model:N", scale=scale["dash"], legend=None),
            alt.Order("at:Q"), alt.Description("says:N"),
        )
    )  # fmt: skip
    return alt.layer(*layers).properties(width=SIDE, height=SIDE)


def calibration(bins: Mapping[str, Sequence[Mapping[str, float]]], looks: Mapping[str, Look]) -> alt.LayerChart:
    """Observed rate against mean probability in bins of equal mass, with the interval of each rate."""
    import altair as alt

    data = [
        {"x": one["probability"], "y": one["observed"], "low": one["low"], "high": one["high"], "model": name,
         "says": f"{name}: predicted {one['probability']:.3f}, observed "
                 f"{format_interval(one['observed'], one['low'], one['high'], 3)}"}
        for name, points in bins.items() for one in points
    ]  # fmt: skip
    top = min(1.0, 1.05 * max((max(one["x"], one["high"]) for one in data), default=1.0))
    scale, unit = scales({name: looks[name] for name in bins}), alt.Scale(domain=[0, top], nice=False)
    x = alt.X("x:Q", title="mean predicted probability", scale=unit, axis=alt.Axis(tickCount=5, labelFlush=False))
    y = alt.Y("y:Q", title="observed rate of events", scale=unit, axis=alt.Axis(tickCount=5, labelFlush=False))
    by_model = alt.Color("model:N", scale=scale["colour"], legend=None)
    whole = _of(data)
    layers = [
        _segment([[0, 0], [top, top]]),
        whole.mark_rule(strokeWidth=1.4, opacity=0.4, aria=False).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), by_model),
        whole.mark_line(strokeWidth=1.6, aria=False).encode(x, y, by_model, alt.StrokeDash(
            "model:N", scale=scale["dash"], legend=None)),
        whole.mark_point(size=40, filled=True, opacity=1).encode(x, y, by_model, alt.Description("says:N")),
    ]  # fmt: skip
    return alt.layer(*layers).properties(width=SIDE, height=SIDE)


def decision(lines: Mapping[str, Mapping[str, Sequence[float]]], looks: Mapping[str, Look]) -> alt.LayerChart:
    """Net benefit per 100 stays at each threshold, against treating all and treating none (both in `looks` too)."""
    import altair as alt

    first = next(iter(lines.values()))
    every = {name: one["model"] for name, one in lines.items()}
    every |= {"treat all": first["treat_all"], "treat none": first["treat_none"]}
    top = 100 * max((max(values) for values in every.values()), default=0.01) or 1.0
    data = [
        {"x": t, "y": 100 * v, "model": name, "says": f"{name}: net benefit"}
        for name, values in every.items()
        for t, v in zip(first["threshold"], values, strict=True)
    ]
    scale = scales({name: looks[name] for name in every})
    chart = _of(data).mark_line(strokeWidth=1.9, clip=True).encode(
        alt.X("x:Q", title="threshold probability", axis=alt.Axis(format=".0%", tickCount=6)),
        # Treat-all falls without end and would flatten the rest.
        alt.Y("y:Q", title="net benefit per 100 stays", scale=alt.Scale(domain=[-0.25 * top, 1.1 * top], nice=False)),
        alt.Color("model:N", scale=scale["colour"], legend=None),
        alt.StrokeDash("model:N", scale=scale["dash"], legend=None),
        alt.Description("says:N"),
    )  # fmt: skip
    return alt.layer(chart).properties(width=WIDTH, height=HEIGHT)


def distribution(found: Mapping[str, Sequence[float]]) -> alt.LayerChart:
    """Share of stays in each step of probability, by what happened; each outcome's shares add to 1."""
    import altair as alt

    data = []
    for side, name in (("others", "no event"), ("events", "event")):
        total = sum(found[side]) or 1
        for (low, high), count in zip(pairwise(found["edges"]), found[side], strict=True):
            data.append({"x": low, "x2": high, "y": count / total, "outcome": name})
    chart = _of(data).mark_rect(opacity=0.5, aria=False).encode(
        alt.X("x:Q", title="predicted probability", scale=alt.Scale(zero=False, nice=False),
              axis=alt.Axis(tickCount=5, labelFlush=False)),
        alt.X2("x2:Q"), alt.Y("y:Q", title="share of stays", axis=alt.Axis(tickCount=4, format=".0%")),
        color=alt.Color("outcome:N", scale=alt.Scale(domain=["no event", "event"], range=[OTHER, EVENT]),
                        legend=None),
    )  # fmt: skip
    return alt.layer(chart).properties(width=250, height=150)


def angle_map(cells: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> alt.LayerChart:
    """Layers across, kinds of tensor down, the angle as colour. `cells` have layer, kind and degrees."""
    import altair as alt

    layers = list(dict.fromkeys(one["layer"] for one in cells))
    data = [one | {"says": f"{_where(one['layer'])}, {one['kind']}: {one['degrees']:.3f}°"} for one in cells]
    chart = _of(data).mark_rect().encode(
        alt.X("layer:O", sort=layers, title=f"layer   ({OUTSIDE} outside the layers)",
              axis=alt.Axis(labelAngle=0, ticks=False, domain=False)),
        alt.Y("kind:N", sort=list(kinds), title=None, axis=alt.Axis(ticks=False, domain=False)),
        alt.Color("degrees:Q", scale=alt.Scale(scheme="viridis"),
                  legend=alt.Legend(title="degrees", orient="right", direction="vertical", gradientLength=140,
                                    tickCount=4)),
        alt.Description("says:N"),
    )  # fmt: skip
    wide = max(260, min(860, 24 * len(layers)))
    return alt.layer(chart).properties(width=wide, height=24 * len({one["kind"] for one in cells}))


def _where(layer: str) -> str:
    return "outside the layers" if layer == OUTSIDE else f"layer {layer}"


def _at(value: float, axis: str, domain: Sequence[float]) -> Any:
    """A dashed line across the chart."""
    import altair as alt

    place = (alt.Y if axis == "y" else alt.X)("at:Q", scale=alt.Scale(domain=list(domain), zero=False, nice=False))
    return _of([{"at": value}]).mark_rule(color=GREY, strokeDash=DASHES[1], aria=False).encode(place)


def _segment(points: Sequence[Sequence[float]]) -> Any:
    line = _of([{"x": x, "y": y} for x, y in points])
    return line.mark_line(color=GREY, strokeDash=DASHES[2], strokeWidth=1.2, aria=False).encode(x="x:Q", y="y:Q")


def _of(rows: Sequence[Mapping[str, Any]], wanted: Callable[[Mapping[str, Any]], bool] = bool) -> Any:
    """A chart of the rows, of those that are wanted."""
    import altair as alt

    return alt.Chart(alt.Data(values=[dict(row) for row in rows if wanted(row)]))


def _domain(values: Sequence[float]) -> list[float]:
    """A little wider than the values."""
    low, high = min(values), max(values)
    room = 0.04 * (high - low) or 0.05
    return [low - room, high + room]
