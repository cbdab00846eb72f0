"""The learning curves of `experiments.fewshot` as a picture: a panel for equal epochs, and one for equal steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from patientdx.core.atomic_io import write_atomically

if TYPE_CHECKING:
    from experiments.fewshot import Curves

_PARENTS = {"base": ("#0072B2", "s"), "pivot": ("#009E73", "D")}
# Okabe and Ito's; a fifth merge begins again.
_MERGES = (("#D55E00", "o"), ("#CC79A7", "^"), ("#E69F00", "v"), ("#56B4E9", "P"))
_INK, _GREY = "#333333", "#999999"


def draw(found: Sequence[Curves], path: Path) -> None:
    """Score on test against the number of examples, a line a start with its intervals as bars, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * len(found), 4.4), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    for axes, one in zip(panels, found, strict=True):
        _panel(axes, one)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    write_atomically(path, lambda aside: figure.savefig(aside, format="png", metadata={"Software": None}))


def _panel(axes, found: Curves) -> None:
    places = {examples: place for place, examples in enumerate(found.examples)}
    merges = {start: _MERGES[place % len(_MERGES)] for place, start in enumerate(found.merges)}
    for k, start in enumerate(found.starts):
        colour, marker = merges.get(start) or _PARENTS[start.role]
        own = sorted((point for point in found.points.values() if point.start == start), key=lambda one: one.examples)
        at = [places[point.examples] + 0.06 * (k - 1) for point in own]
        low, high = ([point.row[f"{found.metric}_ci_{end}"] for point in own] for end in ("low", "high"))
        axes.vlines(at, low, high, color=colour, linewidth=1.3, alpha=0.5)
        values = [point.row[found.metric] for point in own]
        axes.plot(at, values, color=colour, marker=marker, markersize=5, label=found.title(start))
    axes.set_xticks(list(places.values()), [str(examples) for examples in places])
    axes.set_xlabel("examples", color=_INK)
    axes.set_ylabel(found.metric, color=_INK)
    axes.set_title(found.rule, loc="left", color=_INK)
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_GREY)
