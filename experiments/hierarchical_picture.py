"""The forest plot of the study of merge methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.figures import Panel, Series, save_figure
from patientdx.metrics.bootstrap import Interval
from patientdx.reporting.chart_style import COLOURS, INK

_FAMILIES = {
    "parents": INK, "averaging": COLOURS[0], "pruning": COLOURS[1], "aligned heads": COLOURS[2], "other": COLOURS[3],
}  # fmt: skip
_FAMILY = {
    None: "parents", "linear": "averaging", "task_arithmetic": "averaging", "dare_ties": "pruning", "della": "pruning",
    "breadcrumbs": "pruning", "hierarchical": "aligned heads",
}  # fmt: skip


def draw(models: Sequence[tuple[str, str | None, Interval, Interval | None]], path: Path) -> None:
    """Accuracy of each model (left) and its difference to linear averaging (right) with intervals, as a PNG.

    models: (title, merge method or None for a parent, accuracy, difference to linear averaging or None for itself).
    """
    order = [title for title, *_ in models]
    linear = next(value.value for _, method, value, _ in models if method == "linear")
    height = 22 * len(models)
    panels = [
        Panel(_series([(title, method, value) for title, method, value, _ in models]), "accuracy", None,
              marks_at_x=[linear], order=order, height=height),
        Panel(_series([(title, method, over) for title, method, _, over in models if over is not None]),
              "difference to linear averaging, paired", None, marks_at_x=[0.0], order=order, height=height),
    ]  # fmt: skip
    save_figure(panels, path, note=f"{models[0][2].level:.0%} intervals by question; dashed: linear averaging")


def _series(models: Sequence[tuple[str, str | None, Interval]]) -> list[Series]:
    """One series for each family of methods."""
    points: dict[str, list[dict]] = {}
    for title, method, value in models:
        point = {"y": title, "x": value.value, "x_low": value.low, "x_high": value.high}
        points.setdefault(_FAMILY.get(method, "other"), []).append(point)
    return [
        Series(family, points[family], colour, "diamond" if family == "parents" else "circle", line=False)
        for family, colour in _FAMILIES.items()
        if family in points
    ]
