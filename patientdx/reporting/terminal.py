"""Terminal tables of a run or a sweep; they fit 80 characters."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from patientdx.core.atomic_io import write_atomically
from patientdx.core.tables import (
    ABSENT,
    Row,
    format_estimate,
    format_interval,
    format_value,
    metric_names,
    metric_title,
    model_name,
)
from patientdx.reporting.significance import Best

WIDTH = 80
GAP = 2  # blanks between columns
_NAME = 16  # characters that a model's name has at least before metrics stand one below the other
_ACT = 0.1  # risk at which net benefit is printed
_CALIBRATION = {"brier": ".3f", "slope": ".1f", "ece": ".2f"}


def table(rows: Sequence[Row], *, title: str | None = None, best: Best | None = None) -> Table:
    """The rows as a rich table, one line each, metrics as `0.71 [0.62, 0.79]`.

    Bold is what `best` says of the rows, and the caption says how it was found; without it nothing is bold.

    What is the same in every row of a split (n, events, prevalence) moves to the caption, and so does a task that
    is the same everywhere. More metrics than fit side by side stand one below the other, names and values alike.
    """
    columns: dict[str, list[str | Text]] = {
        "task": [format_value(row.get("task")) for row in rows],
        "model": [model_name(row) for row in rows],
        "split": [format_value(row.get("split")) for row in rows],
    }
    metrics = {
        metric_title(metric): [_with_interval(row, metric, best) for row in rows] for metric in metric_names(rows)
    }
    answering = {
        "yes+no\nmass": [format_value(row.get("abstention_mass"), ".3f") for row in rows],
        "distinct\nscores": [format_value(row.get("distinct_scores")) for row in rows],
    }
    # A task that is not of yes/no questions has neither.
    answering = {name: column for name, column in answering.items() if set(column) != {ABSENT}}
    shared = [name for name in ("task",) if len(set(columns[name])) == 1]
    caption = [f"{name} {columns.pop(name)[0]}" for name in shared] + _cohorts(rows)
    caption += [] if best is None else best.notes
    taken = {name: width(name, column) + GAP for name, column in (columns | answering).items()}
    taken["model"] = min(taken["model"], _NAME + GAP)
    below = stacked(metrics, WIDTH - sum(taken.values()) + GAP)
    # Two blanks between columns: with rich's usual three and its edges a long model's name would cut the last headers.
    return framed(
        columns | below | answering, wraps=("task", "model"), left=("task", "model", "split"), title=title,
        caption=caption, apart=len(below) < len(metrics),
    )  # fmt: skip


def width(name: str, cells: Sequence[str | Text]) -> int:
    """Characters of a column's longest line."""
    return max(len(line) for one in (name, *cells) for line in str(one).splitlines() or [""])


def stacked(columns: Mapping[str, Sequence[str | Text]], room: int) -> dict[str, list[str | Text]]:
    """Columns in `room` characters: as many side by side as fit, in their order line by line, the rest below them."""
    names = list(columns)
    for count in range(len(names), 1, -1):
        wide = (max(width(name, columns[name]) for name in names[place::count]) for place in range(count))
        if sum(wide) + GAP * (count - 1) <= room:
            break
    else:
        count = 1
    if count >= len(names):
        return {name: list(column) for name, column in columns.items()}
    found: dict[str, list[str | Text]] = {}
    for place in range(count):
        own = names[place::count]
        cells = zip(*(columns[name] for name in own), strict=True)
        lines = [Text("\n").join(one if isinstance(one, Text) else Text(one) for one in cell) for cell in cells]
        found["\n".join(own)] = lines
    return found


def cohort(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The attrition table in short: what was left after each step that took any away.

    Rows have `step` and counts, such as `stays`, `patients` and `events`.
    """
    names = list(dict.fromkeys(key for row in rows for key in row))
    counts = [tuple(row.get(name) for name in names if name != "step") for row in rows]
    shown = [row for i, row in enumerate(rows) if i == 0 or counts[i] != counts[i - 1]]
    columns = {name: [format_value(row.get(name)) for row in shown] for name in names}
    rest = len(rows) - len(shown)
    caption = [f"{rest} more steps took nothing away: cohort.csv"] if rest else []
    return framed(columns, wraps=("step",), left=("step",), title="\nCohort", caption=caption)


def evaluation(found: Mapping[str, Any]) -> Table:
    """The evaluation for the clinic in short, a line a model; `found` is what `patientdx.evaluation.clinical.evaluate` gives.

    Everything in it, with intervals, is in the text that `write_evaluation` leaves.
    """
    compared = {one["b"]: one["auroc"] for one in found["comparisons"] if one["a"] == "merged"}
    columns: dict[str, list[str]] = {
        name: [] for name in ("model", "Brier", "slope", "ECE", "sens.", "spec.", f"at {_ACT:.0%}")
    }
    if compared:
        columns["merged's AUROC\nless this one's"] = []
    for role, model in found["models"].items():
        raw, at, curve = model["calibration"]["raw"], model["threshold"], model["decision_curve"]["raw"]
        near = min(range(len(curve["threshold"])), key=lambda i: abs(curve["threshold"][i] - _ACT))
        cells = [role, *(format_value(raw[name]["value"], form) for name, form in _CALIBRATION.items())]
        cells += [format_value(at.get(name, {}).get("value"), ".2f") for name in ("sensitivity", "specificity")]
        cells += [f"{100 * curve['model'][near]:.2f}", format_estimate(compared[role]) if role in compared else ""]
        for column, cell in zip(columns.values(), cells, strict=False):
            column.append(cell)
    caption = ["slope of calibration: 1 is right", f"at {_ACT:.0%}: net benefit per 100 stays, acting on that risk"]
    caption += [
        "sens., spec. and recalibration need the pilot split: 'splits=[pilot,test]'"
        if found["pilot"] is None
        else f"sens., spec.: at a threshold chosen on {found['pilot']}",
        "recalibrated, in subgroups, with intervals: clinical.txt",
    ]
    title = f"\nClinical evaluation, {found['reported']}"
    return framed(columns, wraps=("model",), left=("model",), title=title, caption=caption)


def write_evaluation(found: Mapping[str, Any], folder: Path) -> None:
    """All of the evaluation as clinical.txt, and its curves as pictures."""
    # Not at the top: a merge to disk starts without the libraries that metrics need.
    from patientdx.evaluation import clinical

    printed = io.StringIO()
    Console(file=printed, width=100).print(clinical.table(found))
    lines = (line.rstrip() for line in printed.getvalue().splitlines())
    write_atomically(folder / "clinical.txt", lambda aside: aside.write_text("\n".join(lines) + "\n", encoding="utf-8"))
    clinical.draw(found, folder)


def probes(found: Mapping[str, Any]) -> Table:
    """How much hangs on the question's wording: what `metrics.prompt_variants.variant_spread` found, with role and split."""
    return wording(found, f"\nThe {found['role']} model asked in other words, {found['split']}")


def wording(found: Mapping[str, Any], title: str) -> Table:
    """The same under another title."""
    ranks = dict(zip(found["spearman"]["names"], found["spearman"]["values"][0], strict=True))
    columns: dict[str, list[str]] = {"wording": ["the question"], "AUROC": [format_estimate(found["auroc"])],
                                     "difference": [""], "rank\ncorr.": [""], "pairs out\nof order": [""]}  # fmt: skip
    for name, one in found["wordings"].items():
        wrong = one["not_reversed" if one["reverses"] else "not_kept"]
        cells = (
            f"{name} (reversed)" if one["reverses"] else name,
            format_estimate(one["auroc"]),
            format_estimate(one["difference"]),
            format_value(ranks.get(name), ".2f"),
            format_value(wrong.get("value"), ".2f"),
        )
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    spread = f"AUROC spread {format_value(found['auroc_spread'], '.2f')} over all wordings"
    return framed(columns, wraps=("wording",), left=("wording",), title=title, caption=[spread])


def framed(
    columns: Mapping[str, Sequence[str | Text]],
    *,
    wraps: Sequence[str],
    left: Sequence[str],
    title: str | None = None,
    caption: Sequence[str] = (),
    apart: bool = False,
) -> Table:
    """Columns under a rule; `wraps` may be broken at blanks where the terminal is narrow.

    apart: a blank line stands between rows.
    """
    below = Text("\n".join(caption)) if caption else None  # a Text, since [pilot,test] would be taken for markup
    shown = Table(
        title=title, caption=below, title_justify="left", caption_justify="left",
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, leading=int(apart),
    )  # fmt: skip
    for name in columns:
        shown.add_column(name, justify="left" if name in left else "right", no_wrap=name not in wraps, overflow="fold")
    for cells in zip(*columns.values(), strict=True):
        shown.add_row(*cells)
    return shown


def _cohorts(rows: Sequence[Row]) -> list[str]:
    """One line a task and split: how many rows, patients and events it has."""
    lines = {}
    for row in rows:
        parts = [f"n {format_value(row.get('n'))}"]
        parts += [f"{row['patients']} patients"] if row.get("patients") is not None else []
        if row.get("events") is not None:
            parts += [f"{row['events']} events", f"prevalence {format_value(row.get('prevalence'), '.3f')}"]
        lines[f"{format_value(row.get('split'))}: " + ", ".join(parts)] = None
    return list(lines)


def _with_interval(row: Row, metric: str, best: Best | None) -> str | Text:
    shown = format_interval(*(row.get(key) for key in (metric, f"{metric}_ci_low", f"{metric}_ci_high")))
    bold = best is not None and (row.get("fingerprint"), metric) in best.bold
    return Text(shown, style="bold") if bold else shown
