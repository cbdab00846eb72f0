"""The forest plot of the study of merge methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from patientdx.core.atomic_io import write_atomically
from patientdx.metrics.bootstrap import Interval

_KINDS = {  # Okabe and Ito's colours, as in the λ curve
    "parents": "#333333", "averaging": "#0072B2", "pruning": "#D55E00", "aligned heads": "#009E73", "other": "#AA4499",
}  # fmt: skip
_KIND = {
    None: "parents", "linear": "averaging", "task_arithmetic": "averaging", "dare_ties": "pruning", "della": "pruning",
    "breadcrumbs": "pruning", "hierarchical": "aligned heads",
}  # fmt: skip
_GREY = "#666666"


def draw(models: Sequence[tuple[str, str | None, Interval, Interval | None]], path: Path) -> None:
    """Accuracy of each model (left) and its difference to linear averaging (right) with intervals, as a PNG.

    models: (title, merge method or None for a parent, accuracy, difference to linear averaging or None for itself).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(9.2, 1.4 + 0.27 * len(models)), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": (1.15, 1)})
    used = {}
    for place, (_, method, value, over) in enumerate(models):
        kind = _KIND.get(method, "other")
        colour = used[kind] = _KINDS[kind]
        for axes, one in ((left, value), (right, over)):
            if one is not None:
                axes.plot([one.low, one.high], [place, place], color=colour, linewidth=1.4)
                axes.plot([one.value], [place], marker="D" if method is None else "o", color=colour, markersize=5)
    linear = next(value.value for _, method, value, _ in models if method == "linear")
    for axes, at, label in ((left, linear, "accuracy"), (right, 0.0, "difference to linear averaging, paired")):
        axes.axvline(at, color=_GREY, linestyle=(0, (4, 3)), linewidth=0.9)
        axes.set_xlabel(label, fontsize=9)
        axes.tick_params(labelsize=8.5)
        axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(_GREY)
    left.set_yticks(range(len(models)), [title for title, *_ in models], fontsize=8.5)
    left.invert_yaxis()
    handles = [Line2D([], [], color=colour, marker="o", linewidth=1.4, label=kind) for kind, colour in used.items()]
    level = models[0][2].level
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8.5,
                  title=f"{level:.0%} intervals by question; dashed: linear averaging", title_fontsize=8.5)  # fmt: skip
    write_atomically(path, lambda aside: figure.savefig(aside, format="png", metadata={"Software": None}))
