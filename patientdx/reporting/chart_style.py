"""Style and rendering of charts: colours, fonts, keys, a chart as an SVG element of a page or as a file.

Charts are Altair's; vl-convert, Vega's renderer in a wheel, renders them when the page is made, so that the page needs
no script for them. Colours are those of a light page; the page's style sheet replaces each on a dark one (`DARK`).
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from patientdx.core.atomic_io import write_atomically

WIDTH, HEIGHT, SIDE = 400, 250, 340  # of the plot, in units of the chart
INK, GREY, GRID, PALE = "#333333", "#666666", "#e4e4e4", "#7a7a7a"
EVENT, OTHER = "#d55e00", "#4a90c2"
# After Okabe and Ito, distinct with every common colour vision; two are darker, to be visible on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#a67c00", "#4a90c2")
PARENTS = {"base": "square", "pivot": "diamond"}
PARENT_COLOURS = {"base": INK, "pivot": "#5500cc"}  # of no method
_PIXELS = 2  # of a PNG for each unit of the chart
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (12, 4), (8, 3, 2, 3, 2, 3), (1, 4))
SHAPES = ("circle", "triangle-up", "triangle-down", "cross")
_OUTLINES = {
    "circle": "M4,0A4,4,0,1,1,-4,0A4,4,0,1,1,4,0",
    "square": "M-4,-4H4V4H-4Z",
    "diamond": "M0,-5.5L4.5,0L0,5.5L-4.5,0Z",
    "triangle-up": "M0,-5L5,4H-5Z",
    "triangle-down": "M0,5L5,-4H-5Z",
    "cross": "M-5,-1.8H-1.8V-5H1.8V-1.8H5V1.8H1.8V5H-1.8V1.8H-5Z",
}
DARK = {
    INK: "#e8e8e8",
    GREY: "#a8a8a8",
    GRID: "#3a3d42",
    "#7a7a7a": "#b4b4b4",
    "#0072b2": "#58aef0",
    "#d55e00": "#ff9a52",
    "#009e73": "#35cf9f",
    "#5500cc": "#9a6bff",
    "#a67c00": "#e8bf45",
    "#4a90c2": "#9ccdf2",
}


class Look(NamedTuple):
    """The look of a series: colour, dashes of its line (None: no line), shape of its markers (None: no markers)."""

    colour: str
    dash: tuple[int, ...] | None = (1, 0)
    shape: str | None = None


def method_look(index: int) -> Look:
    """The look of the method with that number: its colour, and other dashes once all colours are used."""
    shape, dash = SHAPES[index % len(SHAPES)], DASHES[index // len(COLOURS) % len(DASHES)]
    return Look(COLOURS[index % len(COLOURS)], dash, shape)


def scales(looks: Mapping[str, Look]) -> dict[str, Any]:
    """Altair's scales that give each series its look: by `colour`, `dash` and `shape`."""
    import altair as alt

    names = list(looks)
    ranges = {
        "colour": [look.colour for look in looks.values()],
        "dash": [list(look.dash or (1, 0)) for look in looks.values()],
        "shape": [look.shape or "circle" for look in looks.values()],
    }
    return {kind: alt.Scale(domain=names, range=values) for kind, values in ranges.items()}


def swatch(look: Look) -> str:
    """A sample of a series for the key beside a chart, as an SVG element."""
    parts = []
    if look.dash is not None:
        dash = "" if look.dash == (1, 0) else f' stroke-dasharray="{" ".join(map(str, look.dash))}"'
        parts.append(f'<path d="M1,7H31" stroke="{look.colour}" stroke-width="2"{dash}/>')
    if look.shape == "ring":
        parts.append(f'<circle cx="16" cy="7" r="5.5" fill="none" stroke="{look.colour}" stroke-width="1.6"/>')
    elif look.shape is not None:
        parts.append(f'<path transform="translate(16,7)" d="{_OUTLINES[look.shape]}" fill="{look.colour}"/>')
    return f'<svg viewBox="0 0 32 14" aria-hidden="true">{"".join(parts)}</svg>'


def dark_style() -> str:
    """The style rules with the colours of charts on a dark page."""
    rules = [
        f'svg [{kind}="{light}"] {{ {kind}: {dark}; }}' for light, dark in DARK.items() for kind in ("stroke", "fill")
    ]
    return "@media screen and (prefers-color-scheme: dark) {\n" + "\n".join(rules) + "\n}"


def svg_element(chart: Any, name: str, summary: str) -> str:
    """The chart as an SVG element; its ids start with `name`, and `summary` is its text alternative.

    The same chart gives the same text.
    """
    import vl_convert

    text = vl_convert.vegalite_to_svg(_styled(chart, "transparent"), vl_version=_version())
    # Vega counts ids through all that it renders in a process.
    for number, old in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]+)"', text)), start=1):
        text = text.replace(f'id="{old}"', f'id="{name}-{number}"').replace(f"url(#{old})", f"url(#{name}-{number})")
    match = re.search(r'viewBox="([^"]*)"', text)
    assert match is not None  # Vega writes one
    box = match[1]
    head = f'<svg viewBox="{box}" role="img" aria-label="{html.escape(summary)}" style="max-width:{_width(box)}px">'
    return head + text[text.index(">") + 1 :]


def _width(box: str) -> int:
    """The largest width in pixels: letters of 12 units stay near the size of the page's text."""
    return round(1.25 * float(box.split()[2]))


def write_chart(chart: Any, path: Path) -> None:
    """Write a chart, Altair's or as Vega-Lite has it, as PNG, SVG or PDF, by the path's suffix, atomically.

    The same chart gives the same PNG.
    """
    import vl_convert

    spec, version = _styled(chart, "white"), _version()
    if path.suffix == ".png":
        content = vl_convert.vegalite_to_png(spec, vl_version=version, scale=_PIXELS)
    elif path.suffix == ".pdf":
        content = vl_convert.vegalite_to_pdf(spec, vl_version=version)
    else:
        content = vl_convert.vegalite_to_svg(spec, vl_version=version).encode()
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def _version() -> str:
    """The version of Vega-Lite that Altair writes, as vl-convert names it."""
    import altair as alt

    return ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


def _styled(chart: Any, background: str) -> dict[str, Any]:
    """The chart as Vega-Lite has it, with the style of all charts."""
    import altair as alt

    spec = chart if isinstance(chart, dict) else chart.to_dict(validate=False)  # its parts were, when they were made
    style = alt.Config(
        background=background,
        font="sans-serif",
        view=alt.ViewConfig(stroke=None, continuousWidth=300, continuousHeight=300),
        axis=alt.AxisConfig(
            labelColor=INK, titleColor=INK, gridColor=GRID, domainColor=GREY, tickColor=GREY, labelFontSize=12,
            titleFontSize=12.5, titleFontWeight="normal", titlePadding=8, tickSize=4, labelLimit=220,
        ),
        legend=alt.LegendConfig(labelColor=INK, titleColor=INK, labelFontSize=12, titleFontSize=12),
        text=alt.MarkConfig(fill=INK, fontSize=12),
        title=alt.TitleConfig(color=INK, subtitleColor=GREY, fontSize=13, subtitleFontSize=11.5, fontWeight="normal",
                              anchor="start"),
    )  # fmt: skip
    return {**spec, "config": style.to_dict()}
