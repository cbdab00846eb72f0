"""The λ curve as a picture. Rows are those of `patientdx.reporting`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patientdx.core.atomic_io import write_atomically
from patientdx.core.errors import UserError

Row = dict[str, Any]

# Okabe and Ito's colours, told apart with every common colour vision.
_SPLIT_COLOURS = {"test": "#0072B2", "pilot": "#D55E00", "train": "#009E73"}
_OTHER_COLOURS = ("#56B4E9", "#E69F00", "#000000")
_CHOSEN_COLOUR = "#AA4499"
_INK, _GREY = "#333333", "#666666"
_METHOD_STYLES = (("-", "o"), ((0, (4, 1.5)), "^"), ((0, (1, 1.2)), "v"), ((0, (5, 1, 1, 1)), "P"))
_PARENT_MARKERS = {"base": "s", "pivot": "D"}
_PARENT_PLACES = {"base": 0.0, "pivot": 1.0}
_BETWEEN_BARS = 0.011  # in λ: intervals at one λ stand side by side instead of one over the other


def lambda_curve(
    points: Sequence[Row],
    path: Path,
    *,
    metric: str = "auroc",
    task: str | None = None,
    prevalence: float | None = None,
    chosen: float | None = None,
) -> None:
    """Draw the metric against λ as a PNG: a line a method and split, from the base (0) to the pivot (1).

    Intervals are bars. The parents stand at both ends with markers of their own, also for merged models at 0
    and 1. A dashed line is chance (0.5 for AUROC; for AUPRC the prevalence, of the test rows unless given), a
    dotted one the λ `chosen` on pilot. Rows without a single λ are left out. Raises UserError for rows
    of several tasks when `task` names none, and when nothing is left to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = _rows_to_draw(points, metric, task)
    figure = Figure(figsize=(7.2, 4.6), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    methods = list(dict.fromkeys(row.get("method") for row in rows if row.get("role") == "merged")) or [None]
    colours = _colours(rows)
    series = [(split, method) for split in colours for method in methods]
    for index, (split, method) in enumerate(series):
        shift = _BETWEEN_BARS * (index - (len(series) - 1) / 2)
        style, marker = _METHOD_STYLES[methods.index(method) % len(_METHOD_STYLES)]
        of_split = [row for row in rows if row.get("split") == split]
        _draw_series(axes, of_split, metric, method, shift, colours[split], style, marker)
    for index, (split, colour) in enumerate(colours.items()):
        shift = _BETWEEN_BARS * (index - (len(colours) - 1) / 2)
        _draw_parents(axes, [row for row in rows if row.get("split") == split], metric, shift, colour)
    references = _draw_references(axes, _chance(rows, metric, prevalence), chosen)
    _dress(axes, rows, metric)
    handles = [*_legend_handles(rows, colours, methods), *references]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    _save(figure, Path(path))


def _rows_to_draw(points: Sequence[Row], metric: str, task: str | None) -> list[Row]:
    rows = [row for row in points if _place(row) is not None and number(row.get(metric)) is not None]
    tasks = sorted({str(row.get("task")) for row in rows})
    if task is None and len(tasks) > 1:
        raise UserError(f"a λ curve shows one task; these rows hold {', '.join(tasks)}: name one of them")
    rows = [row for row in rows if task in (None, row.get("task"))]
    if not rows:
        of_task = f" for the task {task}" if task else ""
        raise UserError(f"there is no point with a λ and a value of {metric}{of_task} to draw")
    return rows


def _draw_series(axes, rows: Sequence[Row], metric, method, shift, colour, style, marker) -> None:
    """One line with its bars: a method on a split, joined to the parents at both ends."""
    parents = {_place(row): row for row in rows if row.get("role") in _PARENT_PLACES}
    merged = [row for row in rows if row.get("role") == "merged" and row.get("method") == method]
    merged = [row for row in merged if _place(row) not in parents]  # there they are the parent
    if not merged:
        return  # a line from parent to parent alone would show what nobody measured
    line = [(_place(row), row[metric]) for row in parents.values()]
    line += [(_place(row) + shift, row[metric]) for row in merged]
    axes.plot(*zip(*sorted(line), strict=True), color=colour, linestyle=style, linewidth=1.5, zorder=3)
    look = {"color": colour, "marker": marker, "markersize": 5.5}
    _draw_points(axes, merged, metric, shift, **look)


def _draw_parents(axes, rows: Sequence[Row], metric: str, shift: float, colour: str) -> None:
    for role, marker in _PARENT_MARKERS.items():
        found = [row for row in rows if row.get("role") == role][:1]
        look = {"color": colour, "marker": marker, "markersize": 8, "markerfacecolor": "white"}
        _draw_points(axes, found, metric, shift, markeredgewidth=1.6, **look)


def _draw_points(axes, rows: Sequence[Row], metric: str, shift: float, **look) -> None:
    """Markers with their intervals as bars; without a bar where a row has no interval."""
    for row in rows:
        low, high = (number(row.get(f"{metric}_ci_{end}")) for end in ("low", "high"))
        if low is not None and high is not None:
            axes.vlines(_place(row) + shift, low, high, color=look["color"], linewidth=1.4, alpha=0.5, zorder=2)
    place = [_place(row) + shift for row in rows]
    axes.plot(place, [row[metric] for row in rows], linestyle="none", zorder=4, **look)


def _draw_references(axes, chance: float | None, chosen: float | None) -> list:
    """Chance and the chosen λ; their handles for the legend."""
    handles = []
    if chance is not None:
        handles.append(axes.axhline(chance, color=_INK, linestyle="--", linewidth=1, zorder=1))
        handles[-1].set_label(f"chance ({chance:.3g})")
    if chosen is not None:
        handles.append(axes.axvline(chosen, color=_CHOSEN_COLOUR, linestyle=":", linewidth=1.8, zorder=1))
        handles[-1].set_label(f"λ chosen on pilot ({chosen:g})")
    return handles


def _dress(axes, rows: Sequence[Row], metric: str) -> None:
    """Titles, labels and grid."""
    task, shown = rows[0].get("task"), title_of(metric)
    axes.set_title(f"{task}: {shown} from base to pivot" if task else shown, loc="left", color=_INK, pad=21)
    sizes = []
    for split in _colours(rows):
        row = next(row for row in rows if row.get("split") == split)
        if row.get("n") is not None and row.get("events") is not None:
            sizes.append(f"{split or 'all'}: n = {row['n']}, events = {row['events']}")
    bars = any(number(row.get(f"{metric}_ci_low")) is not None for row in rows)
    note = "     ".join([*sizes, *(["bars: interval by patient bootstrap"] if bars else [])])
    axes.text(0, 1.02, note, transform=axes.transAxes, fontsize=8.5, color=_GREY, va="bottom")
    axes.set_xlabel("λ   (0 = base, 1 = pivot)", color=_INK)
    axes.set_ylabel(shown, color=_INK)
    axes.set_xlim(-0.04, 1.04)
    axes.set_xticks([tick / 10 for tick in range(11)])
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#999999")


def _legend_handles(rows: Sequence[Row], colours: dict, methods: list) -> list:
    from matplotlib.lines import Line2D

    named = [(split, colour) for split, colour in colours.items() if split is not None]
    handles = [Line2D([], [], color=colour, linewidth=3, label=split) for split, colour in named]
    for index, method in enumerate(methods):
        if method is not None:
            style, marker = _METHOD_STYLES[index % len(_METHOD_STYLES)]
            look = {"linestyle": style, "marker": marker, "markersize": 5}
            handles.append(Line2D([], [], color=_GREY, label=method, **look))
    for role, marker in _PARENT_MARKERS.items():
        if any(row.get("role") == role for row in rows):
            look = {"markersize": 7, "markerfacecolor": "white", "markeredgewidth": 1.5}
            handles.append(Line2D([], [], color=_GREY, linestyle="none", marker=marker, label=role, **look))
    return handles


def _save(figure, path: Path) -> None:
    """The picture appears whole or not at all."""
    write_atomically(path, lambda aside: figure.savefig(aside, format="png", metadata={"Software": None}))


def _chance(rows: Sequence[Row], metric: str, prevalence: float | None) -> float | None:
    if metric == "auroc":
        return 0.5
    if metric != "auprc" or prevalence is not None:
        return prevalence if metric == "auprc" else None
    known = [row for row in rows if number(row.get("prevalence")) is not None]
    tested = [row for row in known if row.get("split") == "test"]
    return next((row["prevalence"] for row in tested or known), None)


def _place(row: Row) -> float | None:
    """Where the row stands on the curve: parents at its ends, whatever their λ says."""
    return _PARENT_PLACES.get(row.get("role"), number(row.get("lambda")))


def _colours(rows: Sequence[Row]) -> dict[str | None, str]:
    """The splits that occur, test first, each with its colour."""
    present = list(dict.fromkeys(row.get("split") for row in rows))
    colours = {split: colour for split, colour in _SPLIT_COLOURS.items() if split in present}
    others = [split for split in present if split not in colours]
    return colours | {split: _OTHER_COLOURS[index % len(_OTHER_COLOURS)] for index, split in enumerate(others)}


def number(value: Any) -> float | None:
    """The value if it is a number that can be drawn or compared, else None."""
    if isinstance(value, bool) or not hasattr(value, "__float__") or math.isnan(float(value)):
        return None
    return float(value)


def title_of(metric: str) -> str:
    """A metric's name as a reader writes it."""
    return metric.upper() if metric in ("auroc", "auprc") else metric
