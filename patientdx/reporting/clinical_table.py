"""A clinical evaluation, as `patientdx.evaluation.clinical.evaluate` found it, in terminal tables that fit 80 characters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from patientdx.core.tables import format_estimate, format_number, format_p_value
from patientdx.reporting.terminal import wording

Found = Mapping[str, Any]

_AT_THRESHOLD = {
    "sensitivity": "sens.",
    "specificity": "spec.",
    "ppv": "PPV",
    "npv": "NPV",
    "alerts_per_100": "alerts/100",
}
_KINDS = {"temperature": "temp."}
_COMPARED = {"auroc": "AUROC", "delong": "AUROC, DeLong", "auprc": "AUPRC", "brier": "Brier", "log_loss": "log loss"}
_IN_GROUPS = {
    "auroc": "AUROC",
    "observed_minus_expected": "observed − expected",
    "sensitivity": "sensitivity",
}


def table(found: Found, *, subgroups_of: Sequence[str] | None = None) -> Group:
    """Cohorts, discrimination, calibration, threshold, net benefit, subgroups, comparisons, answers and wordings.

    Subgroups are printed of the roles named: unless given, of merged, or of all where there is no merged model. A dash
    stands for what could not be estimated; why is said below its table, and so are suppressed cells.
    """
    models = found["models"]
    if subgroups_of is None:
        subgroups_of = ["merged"] if "merged" in models else list(models)
    parts = [_cohorts(found), _discrimination(found), *_calibration(found), _threshold(found), _net_benefit(found)]
    for role in subgroups_of:
        if models[role]["subgroups"]:
            parts += [_subgroups(role, models[role]), _gaps(role, models[role])]
    parts += [_comparisons(found)] if found["comparisons"] else []
    answering = {role: model["abstention"] for role, model in models.items() if model["abstention"]}
    parts += [_abstention(answering)] if answering else []
    asked = {role: model["wording"] for role, model in models.items() if "wording" in model}
    parts += [wording(spread, f"Wording of the question: {role}") for role, spread in asked.items()]
    return Group(*(line for part in parts for line in (part, "")))


def _cohorts(found: Found) -> Table:
    rows = []
    for split, one in found["cohorts"].items():
        rows.append([split, *(f"{one[key]}" for key in ("n", "patients", "events")), f"{one['prevalence']:.3f}"])
    notes = [f"reported on {found['reported']}; intervals: {found['level']:.0%} by patient bootstrap, "
             f"{found['resamples']} resamples"]  # fmt: skip
    both = found["patients_in_both"]
    if both is not None:
        notes.append(
            f"{both} patients are in both splits: recalibration and threshold have seen them"
            if both
            else "no patient is in both splits"
        )
    return _laid_out("Cohort", ["split", "stays", "patients", "events", "prevalence"], rows, notes)


def _discrimination(found: Found) -> Table:
    rows, notes = [], []
    for role, model in found["models"].items():
        part = model["discrimination"]
        fixed = list(part["sensitivity_at_specificity"].values())
        rows.append(
            [role, format_estimate(part["auroc"]), format_estimate(part["auprc"]), *(_stacked(one) for one in fixed)]
        )
        notes += _reasons(role, [part["auroc"], part["auprc"], *fixed])
    notes.insert(0, f"chance: AUROC 0.50, AUPRC {found['cohorts'][found['reported']]['prevalence']:.2f}; "
                    f"last: sensitivity where the specificity is 0.90 and 0.95")  # fmt: skip
    return _laid_out("Discrimination", ["model", "AUROC", "AUPRC", "at 0.90", "at 0.95"], rows, notes)


def _calibration(found: Found) -> list[Table]:
    """Two tables, overall fit and calibration, with a line a model and kind of recalibration."""
    overall, calibrated, notes = [], [], []
    for role, model in found["models"].items():
        for kind, part in model["calibration"].items():
            name = role if kind == "raw" else f"  {_KINDS.get(kind, kind)}"
            if "brier" not in part:
                notes.append(f"{role}, {kind} recalibration: {part['reason']}")
                continue
            cells = [
                format_estimate(part["brier"], 3),
                format_estimate(part["scaled_brier"]),
                format_estimate(part["log_loss"]),
            ]
            overall.append([name, *cells])
            noise = "–" if part["ece_if_calibrated"] is None else f"{part['ece_if_calibrated']:.2f}"
            calibrated.append([name, *(format_estimate(part[key]) for key in ("intercept", "slope", "ece")), noise])
            notes += _reasons(f"{role}, {kind}", [part[key] for key in ("brier", "intercept", "slope")])
        if model["at_the_edge"]:
            notes.append(f"{role}: {model['at_the_edge']} probabilities are exactly 0 or 1")
    if any("fit" in part for model in found["models"].values() for part in model["calibration"].values()):
        notes.append(f"logistic, temp(erature): recalibrated on {found['pilot']}")
    notes.append(f"ECE: {found['bins']} bins of equal mass; noise: the ECE to expect were these probabilities right; "
                 f"intervals from {found['fit_resamples']} resamples")  # fmt: skip
    return [
        _laid_out("Overall fit", ["model", "Brier", "scaled Brier", "log loss"], overall, []),
        _laid_out("Calibration", ["model", "intercept", "slope", "ECE", "noise"], calibrated, notes),
    ]


def _threshold(found: Found) -> Table:
    rows, notes = [], []
    for role, model in found["models"].items():
        part = model["threshold"]
        if part["value"] is None:
            notes.append(f"{role}: {part['reason']}")
            continue
        cells = [_stacked(part[key], 1 if key == "alerts_per_100" else 2) for key in _AT_THRESHOLD]
        rows.append([role, f"{part['value']:.3g}", *cells])
        notes += _reasons(role, [part[key] for key in _AT_THRESHOLD])
        rule = f"chosen on {part['chosen_on']}: {part['rule']}"
        notes += [rule] if rule not in notes else []
    return _laid_out("At a threshold", ["model", "at", *_AT_THRESHOLD.values()], rows, notes)


def _net_benefit(found: Found) -> Table:
    """The decision curves at a few thresholds, per 100 stays."""
    picked = (0.05, 0.1, 0.2, 0.3, 0.5)
    rows, curve = [], {}
    for role, model in found["models"].items():
        for kind, curve in model["decision_curve"].items():
            name = role if kind == "raw" else f"  {_KINDS.get(kind, kind)}"
            rows.append([name, *_at(curve, "model", picked)])
    rows += [["treat all", *_at(curve, "treat_all", picked)], ["treat none", *_at(curve, "treat_none", picked)]]
    return _laid_out("Net benefit per 100 stays", ["threshold", *(f"{t:.0%}" for t in picked)], rows, [])


def _at(curve: Found, line: str, picked: Sequence[float]) -> list[str]:
    near = [min(range(len(curve["threshold"])), key=lambda i, t=t: abs(curve["threshold"][i] - t)) for t in picked]
    return [format_number(100 * curve[line][index], 2) for index in near]


def _subgroups(role: str, model: Found) -> Table:
    rows, notes, shown = [], [], []
    for name, grouping in model["subgroups"].items():
        shown, hidden = list(grouping["gaps"]), {}
        for value, cell in grouping["cells"].items():
            if "suppressed" in cell:
                hidden.setdefault(cell["suppressed"], []).append(value)
                continue
            label = f"{name}: {value}"
            rows.append([label, str(cell["n"]), str(cell["events"]), *(_stacked(cell[key]) for key in shown)])
            notes += _reasons(label, [cell[key] for key in shown])
        notes += [f"{name}, suppressed for {reason}: {', '.join(values)}" for reason, values in hidden.items()]
    return _laid_out(f"Subgroups: {role}", ["", "n", "events", *(_IN_GROUPS[key] for key in shown)], rows, notes)


def _gaps(role: str, model: Found) -> Table:
    rows, notes = [], []
    for name, grouping in model["subgroups"].items():
        for key, gap in grouping["gaps"].items():
            if gap["value"] is None:
                notes.append(f"{name}: {gap['reason']}")
            else:
                rows.append([name, _IN_GROUPS[key], f"{gap['highest']} − {gap['lowest']}", format_estimate(gap)])
    notes.append("intervals are widened for the pairs there are in a grouping")
    return _laid_out(f"Largest gaps: {role}", ["", "measure", "groups", "gap"], rows, notes)


def _comparisons(found: Found) -> Table:
    rows, notes = [], []
    for pair in found["comparisons"]:
        first = f"{pair['a']} − {pair['b']}"
        for key, title in _COMPARED.items():
            one = pair[key]
            rows.append(
                [
                    first,
                    title,
                    format_estimate(one, 3),
                    format_p_value(one.get("p_value")),
                    format_p_value(one.get("p_holm")),
                ]
            )
            notes += _reasons(f"{pair['a']} − {pair['b']}, {title}", [one])
            first = ""
    notes.append("p by paired patient bootstrap; Holm: over the pairs of one measure")
    if any(pair["delong"].get("rows_independent") is False for pair in found["comparisons"]):
        notes.append("DeLong's test takes stays as independent, and some patients have several: read the bootstrap")
    return _laid_out("Differences", ["models", "measure", "difference", "p", "p, Holm"], rows, notes)


def _abstention(answering: Mapping[str, Found]) -> Table:
    rows = []
    for role, one in answering.items():
        quantiles = [one["quantiles"][share] for share in ("0.05", "0.5", "0.95")]
        rows.append(
            [role, *(format_number(value, 3) for value in (one["mean"], *quantiles)), f"{one['below_half']:.1%}"]
        )
    columns = ["model", "mean", "5 %", "median", "95 %", "stays below 0.5"]
    return _laid_out("Probability on yes and no together", columns, rows, [])


def _laid_out(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], notes: Sequence[str]) -> Table:
    shown = Table(
        title=title,
        caption="\n".join(dict.fromkeys(notes)) or None,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for index, column in enumerate(columns):
        shown.add_column(column, justify="right" if index else "left", no_wrap=index > 0)
    for cells in rows:
        shown.add_row(*cells)
    return shown


def _reasons(name: str, cells: Sequence[Found]) -> list[str]:
    """What is to be said below the table of cells without a value, or with one that some resamples lack."""
    said = [f"{name}: {one['reason']}" for one in cells if "reason" in one]
    dropped = max((one.get("dropped", 0) for one in cells if "reason" not in one), default=0)
    return [*said, *([f"{name}: up to {dropped} resamples had no value"] if dropped else [])]


def _stacked(one: Found, digits: int = 2) -> str:
    """The value over its interval, for narrow columns."""
    if one["value"] is None or one.get("low") is None:
        return format_number(one["value"], digits)
    value, low, high = (format_number(one[key], digits) for key in ("value", "low", "high"))
    return f"{value}\n{low}{' to ' if low.startswith('-') else '–'}{high}"
