"""The trade-off of `experiments.forgetting` as a picture: general score against domain score, a line a method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from patientdx.core.atomic_io import write_atomically

if TYPE_CHECKING:
    from experiments.forgetting import Curves, Model

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9")  # Okabe and Ito's
_INK, _GREY = "#333333", "#999999"
_PARENTS = {"base": ("s", "base"), "pivot": ("D", "domain model")}


def draw(found: Curves, path: Path, split: str = "test") -> None:
    """A panel for each general task as a PNG: points are λ, from the base to the domain model; a ring is λ chosen.

    Intervals are crosses, of the parents and of the chosen λ alone.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(found.general), 4.8), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(found.general), squeeze=False)[0]
    for axes, task in zip(panels, found.general, strict=True):
        _panel(axes, found, task, split)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    write_atomically(path, lambda aside: figure.savefig(aside, format="png", metadata={"Software": None}))


def _panel(axes, found: Curves, task: str, split: str) -> None:
    for colour, (method, models) in zip(_COLOURS, found.methods.items(), strict=False):
        between = [model for model in models if 0 < model.weight < 1]  # the ends are the parents
        line = [found.base, *between, found.domain_model]
        axes.plot(*_places(found, line, task, split), color=colour, linewidth=1.2, alpha=0.7, zorder=2)
        axes.plot(*_places(found, between, task, split), "o", color=colour, markersize=4, label=method, zorder=3)
        for model in between:
            axes.annotate(f"{model.weight:g}", _place(found, model, task, split), color=colour, fontsize=6.5,
                          xytext=(3, 3), textcoords="offset points")  # fmt: skip
        chosen = found.chosen(method)
        _cross(axes, found, chosen, task, split, colour)
        axes.plot(*_places(found, [chosen], task, split), "o", markersize=10, markerfacecolor="none",
                  markeredgecolor=colour, zorder=4)  # fmt: skip
    for parent in (found.base, found.domain_model):
        marker, label = _PARENTS[parent.role]
        _cross(axes, found, parent, task, split, _INK)
        axes.plot(*_places(found, [parent], task, split), marker, color=_INK, markersize=7, markerfacecolor="white",
                  linestyle="none", label=label, zorder=5)  # fmt: skip
    axes.set_xlabel(f"{found.domain}: {found.metrics[found.domain]} (domain)", color=_INK)
    axes.set_ylabel(f"{task}: {found.metrics[task]} (general)", color=_INK)
    axes.set_title("λ from the base to the domain model; ring: λ chosen on pilot", loc="left", fontsize=9, color=_GREY)
    axes.grid(color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_GREY)


def _place(found: Curves, model: Model, task: str, split: str) -> tuple[float, float]:
    return found.score(model, found.domain, split), found.score(model, task, split)


def _places(found: Curves, models, task: str, split: str) -> tuple[list[float], list[float]]:
    places = [_place(found, model, task, split) for model in models]
    return [x for x, _ in places], [y for _, y in places]


def _cross(axes, found: Curves, model: Model, task: str, split: str, colour: str) -> None:
    x, y = _place(found, model, task, split)
    for name, draw_line, at in ((found.domain, axes.hlines, y), (task, axes.vlines, x)):
        row, metric = model.rows[name, split], found.metrics[name]
        draw_line(
            at, row[f"{metric}_ci_low"], row[f"{metric}_ci_high"], color=colour, linewidth=1, alpha=0.35, zorder=1
        )
