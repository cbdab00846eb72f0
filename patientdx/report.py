"""What a reader sees of a run or a sweep: terminal tables, a csv file and the λ curve; and the λ chosen on pilot.

Unless they say otherwise they take rows, one dict a model and split: `task`, `split`, `method`, `lambda` (float or
None), `role` (base | merged | pivot, or a tabular model's name), for each metric its value and its interval (`auroc`,
`auroc_ci_low`, `auroc_ci_high`), `n`, `events`, `prevalence`, `patients`, `abstention_mass` (probability on yes and no
together), `distinct_scores`, `fingerprint`. A key that is absent or None is shown as absent. Tables fit a terminal of
80 characters.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from patientdx.drawing import Row, lambda_curve, number, title_of
from patientdx.refusal import Refusal
from patientdx.whole import write_whole

__all__ = [
    "choose",
    "cohort",
    "evaluation",
    "lambda_curve",
    "metric_names",
    "probes",
    "table",
    "write_csv",
    "write_evaluation",
]

_ACT = 0.1  # risk at which net benefit is printed
_CALIBRATION = {"brier": ".3f", "slope": ".1f", "ece": ".2f"}


def table(rows: Sequence[Row], *, title: str | None = None) -> Table:
    """The rows as a rich table, one line each, metrics as `0.71 [0.62, 0.79]`.

    What is the same in every row of a split (n, events, prevalence) moves to the caption, and so does a task that
    is the same everywhere.
    """
    columns = {
        "task": [_text(row.get("task")) for row in rows],
        "model": [_model(row) for row in rows],
        "split": [_text(row.get("split")) for row in rows],
    }
    for metric in metric_names(rows):
        columns[title_of(metric)] = [_with_interval(row, metric) for row in rows]
    columns |= {
        "yes+no\nmass": [_text(row.get("abstention_mass"), ".3f") for row in rows],
        "distinct\nscores": [_text(row.get("distinct_scores")) for row in rows],
    }
    shared = [name for name in ("task",) if len(set(columns[name])) == 1]
    caption = [f"{name} {columns.pop(name)[0]}" for name in shared] + _cohorts(rows)
    # Two blanks between columns: with rich's usual three and its edges a long model's name would cut the last headers.
    return _framed(columns, wraps=("task", "model"), left=("task", "model", "split"), title=title, caption=caption)


def cohort(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The attrition table in short: what was left after each step that took any away.

    Rows have `step` and counts, such as `stays`, `patients` and `events`.
    """
    names = list(dict.fromkeys(key for row in rows for key in row))
    counts = [tuple(row.get(name) for name in names if name != "step") for row in rows]
    shown = [row for i, row in enumerate(rows) if i == 0 or counts[i] != counts[i - 1]]
    columns = {name: [_text(row.get(name)) for row in shown] for name in names}
    rest = len(rows) - len(shown)
    caption = [f"{rest} more steps took nothing away: cohort.csv"] if rest else []
    return _framed(columns, wraps=("step",), left=("step",), title="\nCohort", caption=caption)


def evaluation(found: Mapping[str, Any]) -> Table:
    """The evaluation for the clinic in short, a line a model; `found` is what `patientdx.clinical.evaluate` gives.

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
        cells = [role, *(_text(raw[name]["value"], form) for name, form in _CALIBRATION.items())]
        cells += [_text(at.get(name, {}).get("value"), ".2f") for name in ("sensitivity", "specificity")]
        cells += [f"{100 * curve['model'][near]:.2f}", _estimate(compared[role]) if role in compared else ""]
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
    return _framed(columns, wraps=("model",), left=("model",), title=title, caption=caption)


def write_evaluation(found: Mapping[str, Any], folder: Path) -> None:
    """All of the evaluation as clinical.txt, and its curves as pictures."""
    # Not at the top: a merge to disk starts without the libraries that metrics need.
    from patientdx import clinical

    text = io.StringIO()
    Console(file=text, width=100).print(clinical.table(found))
    lines = (line.rstrip() for line in text.getvalue().splitlines())
    write_whole(folder / "clinical.txt", lambda aside: aside.write_text("\n".join(lines) + "\n", encoding="utf-8"))
    clinical.draw(found, folder)


def probes(found: Mapping[str, Any]) -> Table:
    """How much hangs on the question's wording, as `metrics.answering.wording_spread` has it."""
    ranks = dict(zip(found["spearman"]["names"], found["spearman"]["values"][0], strict=True))
    columns: dict[str, list[str]] = {"wording": ["the question"], "AUROC": [_estimate(found["auroc"])],
                                     "difference": [""], "rank\ncorr.": [""], "pairs out\nof order": [""]}  # fmt: skip
    for name, one in found["wordings"].items():
        wrong = one["not_reversed" if one["reverses"] else "not_kept"]
        cells = (
            f"{name} (reversed)" if one["reverses"] else name,
            _estimate(one["auroc"]),
            _estimate(one["difference"]),
            _text(ranks.get(name), ".2f"),
            _text(wrong.get("value"), ".2f"),
        )
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    spread = f"AUROC spread {_text(found['auroc_spread'], '.2f')} over all wordings"
    title = f"\nThe {found['role']} model asked in other words, {found['split']}"
    return _framed(columns, wraps=("wording",), left=("wording",), title=title, caption=[spread])


def _framed(
    columns: Mapping[str, Sequence[str]],
    *,
    wraps: Sequence[str],
    left: Sequence[str],
    title: str | None = None,
    caption: Sequence[str] = (),
) -> Table:
    """Columns under a rule; `wraps` may be broken at blanks where the terminal is narrow."""
    below = Text("\n".join(caption)) if caption else None  # a Text, since [pilot,test] would be taken for markup
    shown = Table(
        title=title, caption=below, title_justify="left", caption_justify="left",
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True,
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
        parts = [f"n {_text(row.get('n'))}"]
        parts += [f"{row['patients']} patients"] if row.get("patients") is not None else []
        parts += [f"{_text(row.get('events'))} events", f"prevalence {_text(row.get('prevalence'), '.3f')}"]
        lines[f"{_text(row.get('split'))}: " + ", ".join(parts)] = None
    return list(lines)


def metric_names(rows: Iterable[Row]) -> list[str]:
    """The metrics that the rows hold, in the order of their first mention: keys that have a `_ci_low`."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if f"{key}_ci_low" in keys]


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """The rows with every digit of their floats; None is an empty field. Whole or not at all."""
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def write(aside: Path) -> None:
        with aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    write_whole(Path(path), write)


def choose(
    rows: Sequence[Row],
    metric: str = "auroc",
    *,
    chosen_on: str = "pilot",
    reported_on: str = "test",
    higher_is_better: bool = True,
) -> dict[str, Any]:
    """The merged model that is best on the pilot split, with its row on the test split.

    Ties go to the smaller λ, then to the method first by name. Returns `lambda`, `method`, `metric`,
    `chosen_on`, `value` (on that split), `reported_on` and `row` (of the same model on that other split).
    Raises Refusal where the choice would be made on the split that is reported, or where rows are missing.
    """
    if chosen_on == reported_on:
        raise Refusal(
            f"λ cannot be chosen on the {chosen_on} split and reported on it, since the best of several "
            f"noisy numbers is too good: choose on pilot and report on test"
        )
    tasks = sorted({str(row.get("task")) for row in rows})
    if len(tasks) > 1:
        raise Refusal(f"λ is chosen for one task at a time; these rows hold {', '.join(tasks)}")
    merged = [row for row in rows if row.get("role") == "merged" and number(row.get("lambda")) is not None]
    sign = -1 if higher_is_better else 1
    ranked = sorted(
        (row for row in merged if row.get("split") == chosen_on and number(row.get(metric)) is not None),
        key=lambda row: (sign * row[metric], row["lambda"], str(row.get("method"))),
    )
    if not ranked:
        raise Refusal(f"no merged model with a λ has a value of {metric} on the {chosen_on} split to choose by")
    best = ranked[0]
    reported = [
        row
        for row in merged
        if row.get("split") == reported_on
        and (row["lambda"], row.get("method")) == (best["lambda"], best.get("method"))
    ]
    if not reported:
        raise Refusal(f"λ={best['lambda']:g} was chosen on {chosen_on} but has no result on the {reported_on} split")
    return {
        "lambda": best["lambda"],
        "method": best.get("method"),
        "metric": metric,
        "chosen_on": chosen_on,
        "value": best[metric],
        "reported_on": reported_on,
        "row": reported[-1],
    }


def _model(row: Row) -> str:
    if row.get("role") != "merged":
        return _text(row.get("role"))
    method, place = _text(row.get("method")), row.get("lambda")
    return method if place is None else f"{method} λ={place:g}"


def _with_interval(row: Row, metric: str) -> str:
    return _interval(*(row.get(key) for key in (metric, f"{metric}_ci_low", f"{metric}_ci_high")))


def _estimate(found: Mapping[str, Any]) -> str:
    return _interval(*(found.get(key) for key in ("value", "low", "high")))


def _interval(value: Any, low: Any, high: Any) -> str:
    if low is None or high is None:
        return _text(value, ".2f")
    return f"{_text(value, '.2f')} [{_text(low, '.2f')}, {_text(high, '.2f')}]"


def _text(value: Any, form: str = "") -> str:
    absent = value is None or value != value  # NaN differs from itself
    return "–" if absent else format(value, form)
