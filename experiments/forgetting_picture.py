"""The trade-off of `experiments.forgetting` as a picture: general score against domain score, a line a method."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.figures import Panel, Series, merge_look, parent_look, save_figure

if TYPE_CHECKING:
    from experiments.forgetting import Curves, Model

_PARENTS = {"base": "base", "pivot": "domain model"}
_NOTE = "λ from the base to the domain model; ring: λ chosen on pilot"


def draw(found: Curves, path: Path, split: str = "test") -> None:
    """A panel for each general task as a PNG: points are λ, from the base to the domain model; a ring is λ chosen.

    Intervals are crosses, of the parents and of the chosen λ alone.
    """
    panels = [
        Panel(
            list(_series(found, task, split)),
            f"{found.domain}: {found.metrics[found.domain]} (domain)",
            f"{task}: {found.metrics[task]} (general)",
        )
        for task in found.general
    ]
    save_figure(panels, path, note=_NOTE)


def _series(found: Curves, task: str, split: str) -> Iterator[Series]:
    for index, (method, models) in enumerate(found.methods.items()):
        chosen = found.chosen(method)
        between = [model for model in models if 0 < model.weight < 1]  # the ends are the parents
        points = [_point(found, model, task, split, cross=model is chosen) | {"text": f"{model.weight:g}",
                  "ring": model is chosen} for model in between]  # fmt: skip
        ends = [_point(found, parent, task, split, cross=False) for parent in (found.base, found.domain_model)]
        if chosen.weight in (0.0, 1.0):
            ends[int(chosen.weight)] |= {"ring": True}
        yield Series(method, [ends[0], *points, ends[1]], *merge_look(index))
    for parent in (found.base, found.domain_model):
        point = _point(found, parent, task, split, cross=True)
        yield Series(_PARENTS[parent.role], [point], *parent_look(parent.role), line=False)


def _point(found: Curves, model: Model, task: str, split: str, *, cross: bool) -> dict[str, Any]:
    """The model's scores on the domain (x) and the general task (y), with their intervals where `cross`."""
    point = {"x": found.score(model, found.domain, split), "y": found.score(model, task, split)}
    for name, low, high in ((found.domain, "x_low", "x_high"), (task, "low", "high")) if cross else ():
        row, metric = model.rows[name, split], found.metrics[name]
        point |= {low: row[f"{metric}_ci_low"], high: row[f"{metric}_ci_high"]}
    return point
