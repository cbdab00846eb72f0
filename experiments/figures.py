"""Pictures of the studies: panels of series with intervals, drawn by Altair and written as PNG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patientdx.core.atomic_io import write_atomically
from patientdx.reporting.chart_style import COLOURS, GREY, GRID, INK, PARENTS, SHAPES

if TYPE_CHECKING:
    import altair as alt

_SCALE = 2  # pixels of the PNG for each unit of the drawing


@dataclass(frozen=True)
class Series:
    """One line of a panel, or one group of points.

    points: mappings with `x` and `y`, and where they apply `low` and `high` (ends of the interval of y), `x_low` and
    `x_high` (of x), `text` (written beside the point) and `ring` (the point is marked).
    """

    name: str
    points: Sequence[Mapping[str, Any]]
    colour: str
    shape: str = "circle"
    line: bool = True


@dataclass(frozen=True)
class Panel:
    """One plot: its series, titles of the axes, Vega-Lite's type and scale of x, and dashed reference lines.

    levels: values of y with a dashed line, and its colour. marks_at_x: values of x with a dashed line. order: of a
    nominal y, the names from the top. points: whether points are marked. width, height: of the plot, in units.
    """

    series: Sequence[Series]
    x: str
    y: str | None
    title: str = ""
    x_type: str = "quantitative"
    x_scale: Mapping[str, Any] = field(default_factory=dict)
    levels: Mapping[float, str] = field(default_factory=dict)
    marks_at_x: Sequence[float] = ()
    order: Sequence[str] | None = None
    points: bool = True
    width: int = 380
    height: int = 260


def parent_look(role: str) -> tuple[str, str]:
    """Colour and marker of a parent."""
    return INK, PARENTS[role]


def merge_look(index: int) -> tuple[str, str]:
    """Colour and marker of the merge with that number; the colours of the page's λ curves."""
    return COLOURS[index % len(COLOURS)], SHAPES[index % len(SHAPES)]


def save_figure(panels: Sequence[Panel], path: Path, *, note: str = "") -> None:
    """Write the panels side by side as a PNG with one legend, and `note` above them."""
    write_atomically(path, lambda aside: aside.write_bytes(draw_figure(panels, note=note)))


def draw_figure(panels: Sequence[Panel], *, note: str = "") -> bytes:
    """The same picture as the bytes of a PNG."""
    import altair as alt

    looks = {series.name: series for panel in panels for series in panel.series}
    chart = alt.hconcat(*(_chart(panel, looks) for panel in panels))
    return as_png(
        chart.properties(title=alt.TitleParams(note, anchor="start", fontSize=11, fontWeight="normal", color=GREY))
    )


def as_png(chart: alt.TopLevelMixin) -> bytes:
    """A chart in the style of the studies as the bytes of a PNG."""
    import altair as alt
    import vl_convert

    chart = chart.configure(
        background="white",
        font="sans-serif",
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(gridColor=GRID, domainColor=GREY, tickColor=GREY, labelLimit=260, titleFontWeight="normal"),
    )
    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    return vl_convert.vegalite_to_png(chart.to_dict(), vl_version=version, scale=_SCALE)


def _chart(panel: Panel, looks: Mapping[str, Series]) -> alt.LayerChart:
    """The panel as layers: reference lines, lines, intervals, points, rings, texts."""
    points = [dict(point) | {"series": one.name} for one in panel.series for point in one.points]
    steps = [dict(point) | {"series": one.name, "step": step}
             for one in panel.series if one.line for step, point in enumerate(one.points)]  # fmt: skip
    layers = [_level(value, tint, "y") for value, tint in panel.levels.items()]
    layers += [_level(value, GREY, "x") for value in panel.marks_at_x]
    return _layered(panel, looks, layers, points, steps)


def _layered(
    panel: Panel, looks: Mapping[str, Series], layers: list[Any], points: list[dict], steps: list[dict]
) -> alt.LayerChart:
    import altair as alt

    x, y, colour, shape = _encodings(panel, looks)

    def having(key: str) -> list[dict]:
        return [point for point in points if point.get(key) is not None]

    rule = {"opacity": 0.5, "strokeWidth": 1.5}
    if steps:
        layers.append(_data(steps).mark_line(strokeWidth=1.5, opacity=0.8).encode(x, y, colour, order="step:Q"))
    if having("low"):
        layers.append(_data(having("low")).mark_rule(**rule).encode(x, alt.Y("low:Q"), alt.Y2("high"), colour))
    if having("x_low"):
        layers.append(_data(having("x_low")).mark_rule(**rule).encode(alt.X("x_low:Q"), alt.X2("x_high"), y, colour))
    if panel.points:
        layers.append(_data(points).mark_point(filled=True, size=50, opacity=1).encode(x, y, colour, shape))
    rings = [point for point in points if point.get("ring")]
    if rings:
        layers.append(_data(rings).mark_point(size=220, strokeWidth=1.5).encode(x, y, colour))
    if having("text"):
        layers.append(_data(having("text")).mark_text(dy=-9, fontSize=9).encode(x, y, text="text:N"))
    title = alt.TitleParams(panel.title, anchor="start", fontSize=12, fontWeight="normal")
    return alt.layer(*layers).properties(width=panel.width, height=panel.height, title=title)


def _encodings(panel: Panel, looks: Mapping[str, Series]) -> tuple[Any, Any, Any, Any]:
    """Altair's x, y, colour and shape of a panel."""
    import altair as alt

    legend = alt.Legend(orient="bottom") if len(looks) > 1 else None
    colours = alt.Scale(domain=list(looks), range=[look.colour for look in looks.values()])
    shapes = alt.Scale(domain=list(looks), range=[look.shape for look in looks.values()])
    x = alt.X("x", type=panel.x_type, title=panel.x, scale=alt.Scale(zero=False, **panel.x_scale))
    if panel.x_type == "ordinal":
        x = alt.X("x:O", title=panel.x, axis=alt.Axis(labelAngle=0))
    y = alt.Y("y:Q", title=panel.y, scale=alt.Scale(zero=False))
    if panel.order is not None:
        y = alt.Y("y:N", title=panel.y, sort=list(panel.order), scale=alt.Scale(domain=list(panel.order)))
    return (
        x,
        y,
        alt.Color("series:N", title=None, legend=legend, scale=colours),
        alt.Shape("series:N", title=None, legend=legend, scale=shapes),
    )


def _level(value: float, colour: str, channel: str) -> Any:
    """A dashed line at `value` of x or y."""
    rule = _data([{channel: value}]).mark_rule(color=colour, strokeDash=[5, 3])
    return rule.encode(**{channel: f"{channel}:Q"})


def _data(rows: Iterable[Mapping[str, Any]]) -> Any:
    import altair as alt

    return alt.Chart(alt.Data(values=list(rows)))
