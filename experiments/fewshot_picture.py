"""The learning curves of `experiments.fewshot` as a picture: a panel for equal epochs, and one for equal steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.figures import Panel, Series, merge_look, parent_look, save_figure

if TYPE_CHECKING:
    from experiments.fewshot import Curves


def draw(found: Sequence[Curves], path: Path) -> None:
    """Score on test against the number of examples, a line a start with its intervals as bars, as a PNG."""
    panels = [
        Panel(_series(curves), "examples", curves.metric, title=curves.rule, x_type="ordinal") for curves in found
    ]
    save_figure(panels, path)


def _series(curves: Curves) -> list[Series]:
    looks = {start: merge_look(index) for index, start in enumerate(curves.merges)}
    metric, series = curves.metric, []
    for start in curves.starts:
        points = sorted((point for point in curves.points.values() if point.start == start), key=lambda p: p.examples)
        values = [
            {"x": point.examples, "y": point.row[metric], "low": point.row[f"{metric}_ci_low"],
             "high": point.row[f"{metric}_ci_high"]}
            for point in points
        ]  # fmt: skip
        series.append(Series(curves.title(start), values, *(looks.get(start) or parent_look(start.role))))
    return series
