"""The tables of a report, made of a group's rows and of what its runs left beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from patientdx.core.tables import (
    ABSENT,
    Cell,
    Table,
    as_number,
    count,
    estimate,
    interval,
    make_table,
    metric_title,
    model_name,
    p_value,
    plain,
    word,
)
from patientdx.reporting.groups import Group, Reported, sizes
from patientdx.reporting.runs import Answers, Run
from patientdx.reporting.significance import draws, functions

_COMPARED = {"auroc": "AUROC", "auprc": "AUPRC", "brier": "Brier"}
_IN_GROUPS = {"auroc": "AUROC", "observed_minus_expected": "observed − expected", "sensitivity": "sensitivity"}
_FIT = {"brier": "Brier", "scaled_brier": "scaled Brier", "log_loss": "log loss", "intercept": "intercept",
        "slope": "slope", "ece": "ECE"}  # fmt: skip
_AT_THRESHOLD = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV",
                 "alerts_per_100": "alerts per 100"}  # fmt: skip


def models(group: Group) -> Table:
    """Every model and split: the metrics with their intervals, best in bold where the paired test can tell."""
    answering = {"abstention_mass": ("yes+no mass", plain), "distinct_scores": ("distinct scores", count)}
    answering = {key: one for key, one in answering.items() if any(row.get(key) is not None for row in group.rows)}
    columns = ["model", "split", *map(metric_title, group.metrics), *(title for title, _ in answering.values())]
    rows = []
    for row in group.rows:
        cells = [word(model_name(row)), word(row["split"])]
        for metric in group.metrics:
            bold = (row["fingerprint"], metric) in group.best.bold
            cells.append(replace(metric_cell(row, metric), bold=bold))
        rows.append([*cells, *(cell(row.get(key)) for key, (_, cell) in answering.items())])
    notes = [
        *sizes(group.rows),
        f"brackets: {group.level:.0%} interval by patient bootstrap",
        *_joined(group.best.notes),
    ]
    return make_table("models", "All models", columns, rows, notes=notes, subject=group.title)


def _joined(notes: Sequence[str]) -> list[str]:
    """The notes below a terminal table, whose lines are short, as sentences."""
    return [" ".join(notes).replace("Holm, p", "Holm's correction, p")] if notes else []


def chosen(group: Group) -> Table | None:
    """Of each method the model that counts: on pilot as it stands, corrected for having been chosen, and on test."""
    metric = group.metrics[0]
    shown = metric_title(metric)
    columns = ["model", "chosen", f"{shown} on pilot", f"{shown} on pilot, corrected", f"{shown} on {group.reported}"]
    rows = []
    for one in group.chosen:
        pilot, test = (metric_cell(row, metric) for row in (one.pilot, one.row))
        corrected = Cell(ABSENT)
        if one.corrected:
            found = {"value": one.corrected["corrected"]} if "corrected" in one.corrected else one.corrected
            corrected = estimate(one.corrected | found)
        rows.append([word(one.name), word(one.why), pilot, corrected, test])
    if not rows:
        return None
    notes = _sized(group)
    if any(one.corrected for one in group.chosen):
        notes.append("corrected: the best of several noisy numbers is too good; what the bootstrap of the choice says "
                     "of that luck is taken off")  # fmt: skip
    if any(one.why.startswith("not chosen") for one in group.chosen):
        notes.append(f"there are several λ and no pilot split to choose on: all are shown, and the best of them on "
                     f"{group.reported} is not a result; splits=[pilot,test] gives one")  # fmt: skip
    return make_table("chosen", "Chosen on pilot, reported once", columns, rows, notes=notes, subject=group.title)


def _sized(group: Group) -> list[str]:
    """The size of the reported split."""
    return sizes(row for row in group.rows if row["split"] == group.reported)


def metric_cell(row: Mapping[str, Any] | None, metric: str) -> Cell:
    """A row's metric with its interval."""
    if row is None:
        return Cell(ABSENT)
    return interval(as_number(row.get(metric)), *(row.get(f"{metric}_ci_{end}") for end in ("low", "high")))


def comparisons(group: Group) -> Table | None:
    """Each chosen model less each parent and tabular model, and less the chosen models of other methods."""
    found = [*_within_runs(group), *_between_runs(group)]
    if not found:
        return None
    pairs: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for a, b, name, one in _corrected(found):
        pairs.setdefault((a, b), {})[name] = one
    measures = [name for name in (*group.metrics, "brier") if any(name in one for one in pairs.values())]
    delong = any("delong" in one for one in pairs.values())
    columns = ["model", "less"]
    for name in measures:
        columns += [_COMPARED.get(name, metric_title(name)), f"p {_COMPARED.get(name, metric_title(name))}"]
        columns += ["p DeLong"] if name == "auroc" and delong else []
    rows = []
    for (a, b), one in pairs.items():
        cells = [word(a), word(b)]
        for name in measures:
            measured = one.get(name, {"value": None})
            cells += [estimate(measured), p_value(measured.get("p_holm"))]
            cells += [p_value(one.get("delong", {}).get("p_holm"))] if name == "auroc" and delong else []
        rows.append(cells)
    resamples = draws(group.runs[0])["resamples"]
    notes = [
        *_sized(group),
        f"on {group.reported}, paired: both models through the same draws of patients",
        "p: with Holm's correction over the pairs of this table; before it, the smallest that "
        f"{resamples} resamples can give is {2 / (resamples + 1):.2g}",
    ]
    if any(one.get("delong", {}).get("rows_independent") is False for one in pairs.values()):
        notes.append("DeLong's test takes stays as independent, and some patients have several: read the bootstrap")
    return make_table("comparisons", "Differences", columns, rows, notes=notes, subject=group.title)


Compared = tuple[str, str, str, Mapping[str, Any]]


def _within_runs(group: Group) -> Iterator[Compared]:
    for one in group.chosen:
        for pair in (one.run.clinical or {}).get("comparisons", []):
            if pair["a"] == "merged":
                yield from ((one.name, pair["b"], name, pair[name]) for name in ("delong", *_COMPARED) if name in pair)
        for pair in (one.run.metrics.get("graded") or {}).get("comparisons", []):
            if pair["a"] == "merged":
                yield one.name, pair["b"], pair["metric"], pair["difference"]


def _between_runs(group: Group) -> Iterator[Compared]:
    """Chosen models of different runs; and of one run what it would have compared itself, where it did not."""
    if any(one.why.startswith("not chosen") for one in group.chosen):
        return
    pairs: list[tuple[Reported, str, Run, str]] = []
    for index, one in enumerate(group.chosen):
        if one.run.clinical is None and "graded" not in one.run.metrics:
            roles = [role for role, split in one.run.answers if role != "merged" and split == group.reported]
            pairs += [(one, role, one.run, role) for role in roles]
        pairs += [(one, other.name, other.run, "merged") for other in group.chosen[index + 1 :]]
    for one, name, run, role in pairs:
        a, b = one.run.answers.get(("merged", group.reported)), run.answers.get((role, group.reported))
        if a is not None and b is not None:
            yield from ((one.name, name, metric, found) for metric, found in _paired(one.run, a, b).items())


def _paired(run: Run, a: Answers, b: Answers) -> dict[str, Mapping[str, Any]]:
    """The differences of two models on the same stays, as `patientdx.evaluation.clinical` has them."""
    from patientdx.metrics.calibration import brier
    from patientdx.metrics.paired import delong, paired_estimate

    asked, found = draws(run), {}
    probable = None in a.marks  # the Brier score and DeLong's test are of probabilities
    for name, function in {**functions(run), **({"brier": brier} if probable else {})}.items():
        if a.fits(b, name):
            (first, label), (second, _) = a.of(name), b.of(name)
            found[name] = paired_estimate(function, first, second, label, a.subject, **asked)
    if probable and "auroc" in found:
        (first, label), (second, _) = a.of("auroc"), b.of("auroc")
        try:
            test = delong(first, second, label, level=asked["level"])
        except ValueError as error:
            return found | {"delong": {"value": None, "reason": str(error)}}
        alone = len(set(a.subject.tolist())) == a.subject.size
        one = {"value": test.difference, "low": test.low, "high": test.high, "p_value": test.p_value}
        found["delong"] = one | {"rows_independent": alone}
    return found


def _corrected(found: Sequence[Compared]) -> list[Compared]:
    """The same with `p_holm` over all pairs of a measure."""
    from patientdx.metrics.paired import holm

    corrected: dict[int, float] = {}
    for name in dict.fromkeys(one[2] for one in found):
        of_measure = ((i, one[3].get("p_value")) for i, one in enumerate(found) if one[2] == name)
        corrected |= holm({i: p for i, p in of_measure if p is not None})
    return [(*one[:3], {**one[3], "p_holm": corrected.get(i)}) for i, one in enumerate(found)]


def evaluated(group: Group) -> list[tuple[str, dict[str, Any], Run]]:
    """(name, its part of clinical.json, run) of the chosen models, then of parents and tabular models, each once."""
    found = {}
    for one in group.chosen:
        if one.run.clinical:
            found[one.name] = (one.run.clinical["models"]["merged"], one.run)
    for run in [*(one.run for one in group.chosen), *group.runs]:
        for role, model in (run.clinical or {"models": {}})["models"].items():
            if role != "merged":
                found.setdefault(role, (model, run))
    return [(name, model, run) for name, (model, run) in found.items()]


def fit(group: Group) -> Table | None:
    """How far the probabilities are off overall, as predicted and recalibrated on pilot."""
    return _fitted(group, "fit", "Overall fit", ("brier", "scaled_brier", "log_loss"))


def calibration(group: Group) -> Table | None:
    """How right the probabilities are, as predicted and recalibrated on pilot."""
    return _fitted(group, "calibration", "Calibration", ("intercept", "slope", "ece"))


def _fitted(group: Group, name: str, title: str, keys: Sequence[str]) -> Table | None:
    noise = "ece" in keys
    rows, notes = [], _sized(group)
    for model, found, run in evaluated(group):
        for kind, part in found["calibration"].items():
            if "brier" not in part:
                notes.append(f"{model}, {kind} recalibration: {part['reason']}")
                continue
            cells = [word(model), word("as predicted" if kind == "raw" else kind)]
            rows.append([*cells, *(estimate(part[key]) for key in keys)])
            rows[-1] += [plain(part["ece_if_calibrated"])] if noise else []
            pilot = run.clinical["pilot"]
            notes += [f"logistic, temperature: recalibrated on {pilot}"] if pilot and kind != "raw" else []
    if not rows:
        return None
    right = "right are a slope of 1 and an intercept of 0; noise: the ECE to expect were these probabilities right"
    columns = ["model", "probabilities", *(_FIT[key] for key in keys), *(["noise"] * noise)]
    return make_table(
        name, title, columns, rows, notes=[*notes, right] if noise else _sized(group), subject=group.title
    )


def threshold(group: Group) -> Table | None:
    """What happens at a threshold that was chosen on pilot."""
    rows, notes = [], _sized(group)
    for name, model, _ in evaluated(group):
        part = model["threshold"]
        if part["value"] is None:
            notes.append(f"{name}: {part['reason']}")
            continue
        rule = "Youden's, sensitivity + specificity at its highest" if part["rule"] == "youden" else part["rule"]
        notes.append(f"chosen on {part['chosen_on']}: {rule}")
        cells = [estimate(part[key], 1 if key == "alerts_per_100" else 3) for key in _AT_THRESHOLD]
        rows.append([word(name), plain(part["value"]), *cells])
    if not rows:
        return None
    columns = ["model", "threshold", *_AT_THRESHOLD.values()]
    return make_table("threshold", "At a threshold", columns, rows, notes=notes, subject=group.title)


def subgroups(group: Group) -> Table | None:
    """The chosen models in subgroups of patients; small cells are named and not shown."""
    rows, notes = [], []
    shown = list(_IN_GROUPS)
    for one in group.chosen:
        parts = one.run.clinical["models"]["merged"]["subgroups"] if one.run.clinical else {}
        for name, grouping in parts.items():
            hidden: dict[str, list[str]] = {}
            for value, cell in grouping["cells"].items():
                if "suppressed" in cell:
                    hidden.setdefault(cell["suppressed"], []).append(value)
                    continue
                cells = [estimate(cell.get(key, {"value": None})) for key in shown]
                rows.append([word(one.name), word(name), word(value), count(cell["n"]), count(cell["events"]), *cells])
            notes += [f"{name}, suppressed for {reason}: {', '.join(values)}" for reason, values in hidden.items()]
    if not rows and not notes:
        return None
    columns = ["model", "by", "group", "n", "events", *_IN_GROUPS.values()]
    return make_table("subgroups", "Subgroups", columns, rows, notes=notes, subject=group.title)


def gaps(group: Group) -> Table | None:
    """The largest difference between two groups of each grouping."""
    rows, notes = [], []
    for one in group.chosen:
        parts = one.run.clinical["models"]["merged"]["subgroups"] if one.run.clinical else {}
        for name, grouping in parts.items():
            for key, gap in grouping["gaps"].items():
                if gap["value"] is None:
                    notes.append(f"{name}: {gap['reason']}")
                    continue
                between = f"{gap['highest']} − {gap['lowest']}"
                rows.append([word(one.name), word(name), word(_IN_GROUPS[key]), word(between), estimate(gap)])
    if not rows:
        return None
    notes.append("intervals are widened for the pairs there are in a grouping")
    return make_table("gaps", "Largest gaps between groups", ["model", "by", "measure", "groups", "gap"], rows, notes=notes,
                 subject=group.title)  # fmt: skip
