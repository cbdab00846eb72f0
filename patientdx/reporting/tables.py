"""The tables of rows of results: models, chosen models, comparisons and the cohort, of a run, a sweep or a group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from patientdx.core.tables import (
    ABSENT,
    Cell,
    Row,
    Table,
    count,
    estimate,
    format_value,
    make_table,
    metric_cell,
    metric_names,
    metric_title,
    model_name,
    plain,
    word,
)
from patientdx.evaluation.analyses import comparison_tables
from patientdx.evaluation.analyses.entries import Comparison
from patientdx.reporting.groups import Group, ReportedModel, sizes
from patientdx.reporting.runs import Predictions, Run
from patientdx.reporting.significance import Best

_ANSWERS = {"abstention_mass": ("yes+no mass", plain), "distinct_scores": ("distinct scores", count)}
_COMPARED = ("auroc", "auprc", "brier")  # what a clinical evaluation compares and a report shows


def models(
    rows: Sequence[Row], *, best: Best | None = None, level: float | None = None, title: str = "Models"
) -> Table:
    """Every model and split: the metrics with their intervals, bold where `best` has them.

    A column tells apart the tasks, and the settings (such as the seed), of which there are several.
    """
    metrics = metric_names(rows)
    # A task that is not of yes/no questions has no answers to count.
    answers = {key: form for key, form in _ANSWERS.items() if any(row.get(key) is not None for row in rows)}
    varying = [key for key in ("task", "setting") if len({row.get(key) or "" for row in rows}) > 1]
    columns = [*varying, "model", "split", *map(metric_title, metrics), *(name for name, _ in answers.values())]
    lines = []
    for row in rows:
        cells = [*(word(row.get(key)) for key in varying), word(model_name(row)), word(format_value(row.get("split")))]
        for metric in metrics:
            bold = best is not None and (row.get("fingerprint"), metric) in best.bold
            cells.append(replace(metric_cell(row, metric), bold=bold))
        lines.append([*cells, *(cell(row.get(key)) for key, (_, cell) in answers.items())])
    notes = sizes(rows)
    notes += [] if level is None else [f"brackets: {level:.0%} interval by patient"]
    notes += [] if best is None else best.notes
    title = title if "task" in varying or not rows or rows[0].get("task") is None else f"{title}, {rows[0]['task']}"
    return make_table("models", title, columns, lines, notes=notes, section="models", keys=2 + len(varying))


def cohort(rows: Sequence[Mapping[str, Any]], *, every_step: bool = False) -> Table:
    """The attrition table: the steps that removed stays, or every step. Rows have `step` and counts (or their text)."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    counts = [tuple(row.get(name) for name in names if name != "step") for row in rows]
    shown = [row for i, row in enumerate(rows) if every_step or i == 0 or counts[i] != counts[i - 1]]
    lines = [[word(row.get(name)) if name == "step" else _count(row.get(name)) for name in names] for row in shown]
    rest = len(rows) - len(shown)
    notes = ["the counts after each step", *([f"{rest} more steps removed nothing: cohort.csv"] if rest else [])]
    return make_table("cohort", "Cohort", names, lines, notes=notes, section="provenance")


def readings(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The readings of which values were dropped as impossible; a note says which are missing in half of the stays."""
    lines = [
        [word(row["reading"]), *(_count(row[name]) for name in ("values", "dropped", "stays_without"))]
        for row in rows
        if int(row["dropped"])
    ]
    missing = [str(row["reading"]) for row in rows if 2 * int(row["stays_without"]) >= int(row["stays"])]
    notes = [f"missing in half of the {rows[0]['stays']} stays or more: {', '.join(missing)}"] if missing else []
    notes.append("every reading: readings.csv")
    columns = ["reading", "values", "dropped as impossible", "stays without"]
    return make_table("readings", "Readings", columns, lines, notes=notes, section="provenance")


def _count(value: Any) -> Cell:
    return count(int(value)) if isinstance(value, int) or str(value).isdigit() else word(value)


def chosen(group: Group) -> Table | None:
    """The chosen model of each method: its value on pilot, the same corrected for the choice, and its value on test."""
    metric = group.metrics[0]
    title = metric_title(metric)
    rows = []
    for model in group.models:
        corrected = Cell(ABSENT)
        if model.corrected:
            corrected = estimate(
                model.corrected | {"value": model.corrected.get("corrected", model.corrected.get("value"))}
            )
        cells = [word(model.name), word(model.why), metric_cell(model.pilot, metric)]
        rows.append([*cells, corrected, metric_cell(model.row, metric)])
    if not rows:
        return None
    notes = group.sizes(group.reported)
    if any(model.corrected for model in group.models):
        notes.append("corrected: the best of several noisy values is biased upwards; the bias that a bootstrap of the "
                     "choice estimates is subtracted")  # fmt: skip
    if group.has_unchosen:
        notes.append(f"there are several λ and no pilot split to choose on: all are shown, and the best of them on "
                     f"{group.reported} is not a result; splits=[pilot,test] gives one")  # fmt: skip
    columns = ["model", "chosen", f"{title} on pilot", f"{title} on pilot, corrected", f"{title} on {group.reported}"]
    return make_table("chosen", "Chosen on pilot, reported once", columns, rows, notes=notes, section="methods")


def comparisons(group: Group) -> Table | None:
    """Each chosen model minus each parent and tabular model, and minus the chosen models of other methods."""
    notes = [
        *group.sizes(group.reported),
        f"on {group.reported}, paired: both models without the same patients in turn",
    ]
    return comparison_tables.comparisons(_corrected([*_within_runs(group), *_between_runs(group)]), notes=notes)


def _within_runs(group: Group) -> Iterator[Comparison]:
    """What the runs of the reported models compared themselves."""
    for model in group.models:
        names = {"merged": model.name}
        clinical, paired = model.run.clinical, model.run.paired
        measures = (*_COMPARED, "delong")
        for pair in comparison_tables.of_clinical(clinical, names) if clinical else ():
            if pair.a == model.name and pair.measure in measures:
                yield pair
        yield from (pair for pair in comparison_tables.of_questions(paired or {}, names) if pair.a == model.name)


def _between_runs(group: Group) -> Iterator[Comparison]:
    """Reported models of different runs; and within a run what it could have compared itself, where it did not."""
    if group.has_unchosen:
        return
    pairs: list[tuple[ReportedModel, str, Run, str]] = []
    for index, model in enumerate(group.models):
        if model.run.clinical is None and model.run.paired is None:
            roles = [role for role, split in model.run.predictions if role != "merged" and split == group.reported]
            pairs += [(model, role, model.run, role) for role in roles]
        pairs += [(model, other.name, other.run, "merged") for other in group.models[index + 1 :]]
    for model, name, run, role in pairs:
        first = model.run.predictions.get(("merged", group.reported))
        second = run.predictions.get((role, group.reported))
        if first is not None and second is not None:
            for measure, result in _differences(model.run, first, second).items():
                yield Comparison(model.name, name, measure, result)


def _differences(run: Run, first: Predictions, second: Predictions) -> dict[str, Mapping[str, Any]]:
    """The differences of two models on the same stays, as a clinical evaluation has them."""
    from patientdx.metrics.calibration import brier
    from patientdx.metrics.paired import delong, paired_estimate

    gives_probability = None in first.inputs  # the Brier score and DeLong's test are of probabilities
    differences: dict[str, Mapping[str, Any]] = {}
    for name, function in {**run.metric_functions, **({"brier": brier} if gives_probability else {})}.items():
        if first.is_paired_with(second, name):
            (a, label), (b, _) = first.of(name), second.of(name)
            differences[name] = paired_estimate(function, a, b, label, first.subject, **run.bootstrap)
    if gives_probability and "auroc" in differences:
        (a, label), (b, _) = first.of("auroc"), second.of("auroc")
        try:
            test = delong(a, b, label, level=run.bootstrap["level"])
        except ValueError as error:
            return differences | {"delong": {"value": None, "reason": str(error)}}
        differences["delong"] = {
            "value": test.difference, "low": test.low, "high": test.high, "p_value": test.p_value,
            "rows_independent": len(set(first.subject.tolist())) == first.subject.size,
        }  # fmt: skip
    return differences


def _corrected(pairs: Sequence[Comparison]) -> list[Comparison]:
    """The same with `p_holm` over all pairs of a measure."""
    from patientdx.metrics.paired import holm

    corrected: dict[int, float] = {}
    for measure in dict.fromkeys(pair.measure for pair in pairs):
        p_values = ((i, pair.result.get("p_value")) for i, pair in enumerate(pairs) if pair.measure == measure)
        corrected |= holm({i: p for i, p in p_values if p is not None})
    return [pair._replace(result={**pair.result, "p_holm": corrected.get(i)}) for i, pair in enumerate(pairs)]
