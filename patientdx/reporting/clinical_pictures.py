"""The curves of a clinical evaluation as pictures. What `patientdx.evaluation.clinical.evaluate` found is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from patientdx.core.atomic_io import write_atomically

Found = Mapping[str, Any]

# Okabe and Ito's colours, told apart with every common colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1, 1, 1)))
_EVENT, _OTHER = "#D55E00", "#56B4E9"
_INK, _GREY = "#333333", "#666666"


def draw(found: Found, folder: Path) -> list[Path]:
    """Four PNGs in `folder`, which is made: calibration, decision_curve, roc_pr and distribution; their paths.

    All models in each, told apart by colour and dashes; the distribution has a panel a model.
    """
    pictures: dict[str, Callable[[Found], Any]] = {
        "calibration": _calibration,
        "decision_curve": _decision_curve,
        "roc_pr": _roc_pr,
        "distribution": _distribution,
    }
    paths = []
    for name, picture in pictures.items():
        paths.append(Path(folder) / f"{name}.png")
        figure = picture(found)
        write_atomically(
            paths[-1], lambda aside, figure=figure: figure.savefig(aside, format="png", metadata={"Software": None})
        )
    return paths


def _calibration(found: Found):
    """Observed rate against mean probability in bins, raw and, where there is a pilot split, recalibrated."""
    kinds = _kinds(found)
    figure, panels = _panels(len(kinds), width=4.6, height=4.6)
    for kind, axes in zip(kinds, panels, strict=True):
        top = 0.0
        for look, model in _looks(found):
            bins = model["calibration"][kind].get("curve", [])
            x, y = [one["probability"] for one in bins], [one["observed"] for one in bins]
            axes.vlines(x, [one["low"] for one in bins], [one["high"] for one in bins], color=look["color"], alpha=0.35)
            axes.plot(x, y, marker="o", markersize=4, linewidth=1.4, **look)
            top = max([top, *x, *(one["high"] for one in bins)])
        top = min(1.0, 1.05 * top) or 1.0
        axes.plot([0, top], [0, top], color=_GREY, linewidth=1, linestyle=":", label="ideal", zorder=1)
        axes.set(xlim=(0, top), ylim=(0, top), aspect="equal")
        _dress(axes, _title(kind, found), "mean predicted probability", "observed rate of events")
    return _finished(figure, panels[0])


def _decision_curve(found: Found):
    kinds = _kinds(found)
    figure, panels = _panels(len(kinds), width=4.9, height=4.2)
    for kind, axes in zip(kinds, panels, strict=True):
        curve: Found = {}
        top = 0.0
        for look, model in _looks(found):
            if kind in model["decision_curve"]:
                curve = model["decision_curve"][kind]
                axes.plot(curve["threshold"], curve["model"], linewidth=1.6, **look)
                top = max([top, *curve["model"], *curve["treat_all"]])
        for line, style in (("treat_all", (0, (2, 3))), ("treat_none", "-")):
            label = line.replace("_", " ")
            axes.plot(curve["threshold"], curve[line], color=_INK, linewidth=1, linestyle=style, label=label, zorder=4)
        axes.set_ylim(
            -0.25 * (top or 1.0), 1.1 * (top or 1.0)
        )  # treat-all falls without end and would flatten the rest
        axes.xaxis.set_major_formatter("{x:.0%}")
        _dress(axes, _title(kind, found), "threshold probability", "net benefit")
    return _finished(figure, panels[0])


def _kinds(found: Found) -> list[str]:
    """As predicted, and recalibrated where that could be fitted for any model."""
    models = found["models"].values()
    return ["raw", *(["logistic"] if any("logistic" in model["decision_curve"] for model in models) else [])]


def _title(kind: str, found: Found) -> str:
    return "as predicted" if kind == "raw" else f"{kind} recalibration on {found['pilot']}"


def _roc_pr(found: Found):
    figure, (roc, pr) = _panels(2, width=4.6, height=4.6)
    for look, model in _looks(found):
        part = model["discrimination"]
        roc.plot(*zip(*part["roc"], strict=True), linewidth=1.6, **look)
        pr.plot(*zip(*part["pr"], strict=True), linewidth=1.6, **look)
    prevalence = found["cohorts"][found["reported"]]["prevalence"]
    roc.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle=":", label="chance", zorder=1)
    pr.axhline(prevalence, color=_GREY, linewidth=1, linestyle=":", zorder=1)
    for axes in (roc, pr):
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    _dress(roc, "ROC", "1 − specificity", "sensitivity")
    _dress(pr, "Precision and recall", "recall (sensitivity)", "precision (PPV)")
    return _finished(figure, roc)


def _distribution(found: Found):
    """Share of stays in each step of probability, by what happened; each outcome's shares add to 1."""
    roles = list(found["models"])
    figure, panels = _panels(len(roles), width=4.2, height=3.2, across=min(2, len(roles)))
    for role, axes in zip(roles, panels, strict=True):
        part = found["models"][role]["distribution"]
        for side, colour, label in (("others", _OTHER, "no event"), ("events", _EVENT, "event")):
            counts = part[side]
            shares = [count / sum(counts) for count in counts]
            axes.stairs(shares, part["edges"], fill=True, alpha=0.35, color=colour)
            axes.stairs(shares, part["edges"], color=colour, linewidth=1.2, label=label)
        _dress(axes, role, "predicted probability", "share of stays")
    return _finished(figure, panels[0])


def _looks(found: Found) -> list[tuple[dict[str, Any], Found]]:
    """Each model with the look of its line."""
    return [
        ({"color": _COLOURS[i % len(_COLOURS)], "linestyle": _STYLES[i % len(_STYLES)], "label": role}, model)
        for i, (role, model) in enumerate(found["models"].items())
    ]


def _panels(count: int, *, width: float, height: float, across: int | None = None):
    """A figure with `count` panels of that size in inches, `across` to a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = across or count
    down = -(-count // across)
    figure = Figure(figsize=(width * across, height * down + 0.8), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(down, across, index + 1) for index in range(count)]


def _dress(axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", color=_INK, fontsize=11)
    axes.set_xlabel(x, color=_INK)
    axes.set_ylabel(y, color=_INK)
    axes.grid(color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#999999")


def _finished(figure, legend_of):
    """One legend for all panels, below them."""
    handles, labels = legend_of.get_legend_handles_labels()
    ncols = max(2, int(figure.get_figwidth() / 1.7))
    figure.legend(handles, labels, loc="outside lower center", ncols=ncols, frameon=False, fontsize=9)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    return figure
