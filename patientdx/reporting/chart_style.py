"""What the charts of a report share: colours, fonts, keys, and the way from a chart to text in a page.

A chart is made by Altair and drawn here and now by vl-convert, Vega's own renderer in a wheel, so that the page holds
its lines and needs no script for them. Colours are those of a light page; the page's style sheet has another for each
on a dark one (`DARK`), found by its value.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

WIDTH, HEIGHT, SIDE = 400, 250, 340  # of the plot itself, in the units of the drawing
INK, GREY, GRID, PALE = "#333333", "#666666", "#e4e4e4", "#7a7a7a"
EVENT, OTHER = "#d55e00", "#4a90c2"
# After Okabe and Ito, told apart with every common colour vision; two are darker, to be seen on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#a67c00", "#4a90c2")
PARENTS = {"base": "square", "pivot": "diamond"}
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3))
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
    "#aa4499": "#e39ad4",
    "#a67c00": "#e8bf45",
    "#4a90c2": "#9ccdf2",
}


class Look(NamedTuple):
    """How a series is drawn: colour, dashes of its line (None: no line), shape of its markers (None: none)."""

    colour: str
    dash: tuple[int, ...] | None = (1, 0)
    shape: str | None = None


def method_look(index: int) -> Look:
    """The look of the method with that number: a colour each, then other dashes."""
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
    """The style rules that give the charts their colours on a dark page."""
    rules = [
        f'svg [{kind}="{light}"] {{ {kind}: {dark}; }}' for light, dark in DARK.items() for kind in ("stroke", "fill")
    ]
    return "@media screen and (prefers-color-scheme: dark) {\n" + "\n".join(rules) + "\n}"


def drawn(chart: Any, name: str, summary: str) -> str:
    """The chart as an SVG element; `name` sets its ids apart from those of other charts, `summary` is read out.

    The same chart gives the same text.
    """
    import altair as alt
    import vl_convert

    chart = chart.configure(
        background="transparent",
        font="sans-serif",
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(
            labelColor=INK, titleColor=INK, gridColor=GRID, domainColor=GREY, tickColor=GREY, labelFontSize=12,
            titleFontSize=12.5, titleFontWeight="normal", titlePadding=8, tickSize=4, labelLimit=220,
        ),
        legend=alt.LegendConfig(labelColor=INK, titleColor=INK, labelFontSize=12, titleFontSize=12),
        text=alt.MarkConfig(fill=INK, fontSize=12),
    )  # fmt: skip
    text = vl_convert.vegalite_to_svg(
        chart.to_dict(), vl_version=".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    )
    # Vega counts ids through all it has drawn in a process.
    for number, given in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]+)"', text)), start=1):
        own = f"{name}-{number}"
        text = text.replace(f'id="{given}"', f'id="{own}"').replace(f"url(#{given})", f"url(#{own})")
    box = re.search(r'viewBox="([^"]*)"', text)[1]
    head = f'<svg viewBox="{box}" role="img" aria-label="{html.escape(summary)}" style="max-width:{_width(box)}px">'
    return head + text[text.index(">") + 1 :]


def _width(box: str) -> int:
    """At most so many pixels wide: letters of 12 units stay near the size of the page's own."""
    return round(1.25 * float(box.split()[2]))
