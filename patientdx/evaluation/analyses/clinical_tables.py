"""The tables of a clinical evaluation, from what `patientdx.metrics.clinical.evaluate` returns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from patientdx.core.tables import Cell, Table, count, estimate, make_table, plain, word
from patientdx.evaluation.analyses import cohort_tables
from patientdx.evaluation.analyses.entries import Entry, missing_values, split_size

_FIT = {"brier": "Brier", "scaled_brier": "scaled Brier", "log_loss": "log loss"}
_CALIBRATION = {"intercept": "intercept", "slope": "slope", "ece": "ECE"}
_SMOOTH = {"ici": "ICI", "e50": "E50", "e90": "E90"}
_AT_THRESHOLD = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV",
                 "alerts_per_100": "alerts per 100"}  # fmt: skip
_IN_GROUPS = {"auroc": "AUROC", "observed_minus_expected": "observed − expected", "sensitivity": "sensitivity",
              "false_positive_rate": "FPR", "ppv": "PPV"}  # fmt: skip
_RISKS = (0.05, 0.1, 0.2, 0.3, 0.5)  # thresholds of the net benefit
_RISK = 0.1  # the one in the overview


def roles(result: Mapping[str, Any]) -> Iterable[str]:
    """The roles of the systems in the result."""
    return result["models"]


def tables(entries: Sequence[Entry]) -> list[Table]:
    """Cohorts, characteristics, fits, discrimination, calibration, threshold, net benefit, subgroups and answers.

    [] without entries.
    """
    builders = (
        _splits,
        _fitted,
        _discrimination,
        _fit,
        _calibration,
        _smooth,
        _threshold,
        _net_benefit,
        _subgroups,
        _gaps,
        _abstention,
    )
    made = [builder(entries) for builder in builders] if entries else []
    made[1:1] = cohort_tables.tables(entries[0].result) if entries else []
    return [table for table in made if table is not None and (table.rows or table.notes)]


def overview(entries: Sequence[Entry]) -> list[Table]:
    """One table with a line a model, for the terminal."""
    if not entries:
        return []
    result = entries[0].result
    rows = []
    for name, model, _ in _models(entries):
        raw, at = model["calibration"]["raw"], model["threshold"]
        cells = [plain(raw["brier"]["value"]), plain(raw["slope"]["value"], 1), plain(raw["ece"]["value"], 2)]
        cells += [plain(at.get(key, {}).get("value"), 2) for key in ("sensitivity", "specificity")]
        rows.append([word(name), *cells, _benefit(model["decision_curve"]["raw"], "model", _RISK)])
    at_pilot = (
        "sensitivity, specificity and recalibration need the pilot split: 'splits=[pilot,test]'"
        if result["pilot"] is None
        else f"sensitivity, specificity: at a threshold chosen on {result['pilot']}"
    )
    notes = ["a calibrated model has slope 1", f"at {_RISK:.0%}: net benefit per 100 stays at that threshold", at_pilot,
             "recalibrated, in subgroups, with intervals: clinical.txt"]  # fmt: skip
    columns = ["model", "Brier", "slope", "ECE", "sensitivity", "specificity", f"at {_RISK:.0%}"]
    return [make_table("clinical", f"Clinical evaluation, {result['reported']}", columns, rows, notes=notes)]


def _models(entries: Sequence[Entry]) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """(name, the model's part of the result, the result) of each entry."""
    yield from ((entry.name, entry.result["models"][entry.role], entry.result) for entry in entries)


def _reported_sizes(entries: Sequence[Entry]) -> list[str]:
    results = [entry.result for entry in entries]
    return list(
        dict.fromkeys(split_size(result["reported"], result["cohorts"][result["reported"]]) for result in results)
    )


def _splits(entries: Sequence[Entry]) -> Table:
    result = entries[0].result
    rows = [
        [word(split), *(count(sizes[key]) for key in ("n", "patients", "events")), plain(sizes["prevalence"])]
        for split, sizes in result["cohorts"].items()
    ]
    notes = [f"reported on {result['reported']}; intervals: {result['level']:.0%} by patient, "
             f"{result['resamples']} resamples"]  # fmt: skip
    both = result["patients_in_both"]
    if both is not None:
        notes.append(
            f"{both} patients are in both splits: recalibration and threshold were fitted on them too"
            if both
            else "no patient is in both splits"
        )
    columns = ["split", "stays", "patients", "events", "prevalence"]
    return make_table("splits", "Splits", columns, rows, notes=notes, section="discrimination")


def _fitted(entries: Sequence[Entry]) -> Table:
    """What tabular models and severity scores were fitted on, and what was chosen or missing."""
    rows, notes = [], []
    for name, role, result in entries:
        part = result.get("baselines", {}).get(role)
        if part is None:
            continue
        chosen = dict(part.get("chosen", {}))
        inner = plain(chosen.pop("auroc", None), 2)
        chosen.pop("folds", None)
        words = ", ".join(f"{key} {value:g}" for key, value in chosen.items())
        missing = part.get("missing_components")
        cells = [word(name), word(part["fitted_on"]), count(part["n"]), count(part["events"]), inner]
        rows.append([*cells, plain(missing and missing["mean"], 1)])
        notes += [f"{name}: {words}"] if words else []
        if missing:
            notes.append(
                f"{name}: {missing['stays']} of {missing['of']} stays lack a component, which counts as normal"
            )
    notes += ["inner AUROC: of the hyperparameters chosen, in cross-validation by patient inside the rows of the fit"]
    columns = ["model", "fitted on", "n", "events", "inner AUROC", "missing"]
    return make_table("fitted", "Tabular models and scores", columns, rows, notes=notes if rows else [],
                      section="discrimination")  # fmt: skip


def _discrimination(entries: Sequence[Entry]) -> Table:
    rows, notes = [], [*_reported_sizes(entries), "by chance the AUROC is 0.5 and the AUPRC the prevalence"]
    targets: dict[str, None] = {}
    for name, model, _ in _models(entries):
        part = model["discrimination"]
        fixed = part["sensitivity_at_specificity"]
        targets |= dict.fromkeys(fixed)
        estimates = [part["auroc"], part["auprc"], *fixed.values()]
        rows.append([word(name), *map(estimate, estimates)])
        notes += missing_values(name, estimates)
    columns = ["model", "AUROC", "AUPRC", *(f"sensitivity at specificity {target}" for target in targets)]
    return make_table("discrimination", "Discrimination", columns, rows, notes=notes, section="discrimination")


def _fit(entries: Sequence[Entry]) -> Table:
    rows, _ = _of_probabilities(entries, list(_FIT))
    columns = ["model", "probabilities", *_FIT.values()]
    return make_table(
        "fit", "Overall fit", columns, rows, notes=_reported_sizes(entries), section="calibration", keys=2
    )


def _calibration(entries: Sequence[Entry]) -> Table:
    rows, notes = _of_probabilities(entries, list(_CALIBRATION), noise=True)
    result = entries[0].result
    notes = [*_reported_sizes(entries), *notes]
    for name, model, _ in _models(entries):
        if model["at_the_edge"]:
            notes.append(f"{name}: {model['at_the_edge']} probabilities are exactly 0 or 1")
    notes += [
        "a calibrated model has slope 1 and intercept 0; noise: the ECE to expect if these probabilities were correct",
        f"ECE: {result['bins']} bins of equal mass; intervals from {result['fit_resamples']} resamples",
    ]
    columns = ["model", "probabilities", *_CALIBRATION.values(), "noise"]
    return make_table("calibration", "Calibration", columns, rows, notes=notes, section="calibration", keys=2)


def _smooth(entries: Sequence[Entry]) -> Table:
    """Calibration without bins; empty for results of before it."""
    models = [entry for entry in entries if "ici" in entry.result["models"][entry.role]["calibration"]["raw"]]
    rows, _ = _of_probabilities(models, list(_SMOOTH))
    notes = ["mean, median and 90th percentile of the distance to the smoothed rate of events (loess)"] if rows else []
    columns = ["model", "probabilities", *_SMOOTH.values()]
    title = "Smooth calibration"
    return make_table("smooth_calibration", title, columns, rows, notes=notes, section="calibration", keys=2)


def _of_probabilities(
    entries: Sequence[Entry], keys: Sequence[str], *, noise: bool = False
) -> tuple[list[list[Cell]], list[str]]:
    """A row a model and kind of probabilities, as predicted and recalibrated, and the notes on them."""
    rows, notes = [], []
    for name, model, result in _models(entries):
        for kind, part in model["calibration"].items():
            if "brier" not in part:
                notes.append(f"{name}, {kind} recalibration: {part['reason']}")
                continue
            cells = [word(name), word("as predicted" if kind == "raw" else kind)]
            rows.append([*cells, *(estimate(part[key]) for key in keys)])
            rows[-1] += [plain(part["ece_if_calibrated"])] if noise else []
            notes += missing_values(f"{name}, {kind}", [part[key] for key in keys])
            if result["pilot"] and kind != "raw":
                notes.append(f"logistic, temperature: recalibrated on {result['pilot']}")
    return rows, notes


def _threshold(entries: Sequence[Entry]) -> Table:
    rows, notes = [], _reported_sizes(entries)
    for name, model, _ in _models(entries):
        part = model["threshold"]
        if part["value"] is None:
            notes.append(f"{name}: {part['reason']}")
            continue
        rule = "Youden's, sensitivity + specificity at its highest" if part["rule"] == "youden" else part["rule"]
        if "alerts_per_day" in part:
            notes.append(f"{name}: {estimate(part['alerts_per_day'], 1).text} alerts a day")
        notes += [f"chosen on {part['chosen_on']}: {rule}", *missing_values(name, [part[key] for key in _AT_THRESHOLD])]
        cells = [estimate(part[key], 1 if key == "alerts_per_100" else 3) for key in _AT_THRESHOLD]
        rows.append([word(name), plain(part["value"]), *cells])
    columns = ["model", "threshold", *_AT_THRESHOLD.values()]
    return make_table("threshold", "At a threshold", columns, rows, notes=notes, section="decision")


def _net_benefit(entries: Sequence[Entry]) -> Table:
    """The decision curves at a few thresholds."""
    rows, curve = [], {}
    for name, model, _ in _models(entries):
        for kind, curve in model["decision_curve"].items():
            cells = [word(name), word("as predicted" if kind == "raw" else kind)]
            intervals = model.get("net_benefit", {}).get(kind, {})
            benefits = (_with_interval(curve, intervals.get(f"{risk:.2f}"), risk) for risk in _RISKS)
            rows.append([*cells, *benefits])
    for line in ("treat_all", "treat_none"):
        rows.append([word(line.replace("_", " ")), word(""), *(_benefit(curve, line, risk) for risk in _RISKS)])
    columns = ["model", "probabilities", *(f"{risk:.0%}" for risk in _RISKS)]
    title = "Net benefit per 100 stays by threshold"
    return make_table("net_benefit", title, columns, rows, section="decision", keys=2)


def _with_interval(curve: Mapping[str, Any], measured: Mapping[str, Any] | None, risk: float) -> Cell:
    """Net benefit per 100 stays with its interval; without one for results of before it."""
    if measured is None:
        return _benefit(curve, "model", risk)
    return estimate({key: 100 * measured[key] for key in ("value", "low", "high") if measured.get(key) is not None}, 2)


def _benefit(curve: Mapping[str, Any], line: str, risk: float) -> Cell:
    """Net benefit per 100 stays at the threshold of the curve that is nearest to the risk."""
    thresholds = curve["threshold"]
    nearest = min(range(len(thresholds)), key=lambda index: abs(thresholds[index] - risk))
    return plain(100 * curve[line][nearest], 2)


def _with_subgroups(entries: Sequence[Entry]) -> list[tuple[str, Mapping[str, Any]]]:
    """(name, subgroups) of the merged models, of all models where none is merged."""
    merged = [entry for entry in entries if entry.role == "merged"]
    return [(name, model["subgroups"]) for name, model, _ in _models(merged or entries)]


def _subgroups(entries: Sequence[Entry]) -> Table | None:
    """Models in subgroups of patients; small cells are named and not shown."""
    rows, notes = [], []
    for model, groupings in _with_subgroups(entries):
        for grouping, part in groupings.items():
            suppressed: dict[str, list[str]] = {}
            for group, cell in part["cells"].items():
                if "suppressed" in cell:
                    suppressed.setdefault(cell["suppressed"], []).append(group)
                    continue
                estimates = [cell.get(key, {"value": None}) for key in _IN_GROUPS]
                cells = [word(model), word(grouping), word(group), count(cell["n"]), count(cell["events"])]
                rows.append([*cells, *map(estimate, estimates)])
                notes += missing_values(f"{grouping}: {group}", estimates)
            notes += [f"{grouping}, suppressed for {why}: {', '.join(groups)}" for why, groups in suppressed.items()]
    columns = ["model", "by", "group", "n", "events", *_IN_GROUPS.values()]
    return make_table("subgroups", "Subgroups", columns, rows, notes=notes, section="subgroups", keys=3)


def _gaps(entries: Sequence[Entry]) -> Table | None:
    """The largest difference between two groups of each grouping."""
    rows, notes = [], []
    for model, groupings in _with_subgroups(entries):
        for grouping, part in groupings.items():
            for key, gap in part["gaps"].items():
                if gap["value"] is None:
                    notes.append(f"{grouping}: {gap['reason']}")
                    continue
                pair = f"{gap['highest']} − {gap['lowest']}"
                rows.append([word(model), word(grouping), word(_IN_GROUPS[key]), word(pair), estimate(gap)])
    if not rows:
        return None
    notes.append("intervals are widened for the number of pairs of groups in a grouping")
    columns = ["model", "by", "measure", "groups", "gap"]
    return make_table("gaps", "Largest gaps between groups", columns, rows, notes=notes, section="subgroups", keys=3)


def _abstention(entries: Sequence[Entry]) -> Table:
    """Probability on yes and no together, which is low where a model no longer answers."""
    rows = []
    for name, model, _ in _models(entries):
        part = model["abstention"]
        if part:
            quantiles = [plain(part["quantiles"][share]) for share in ("0.05", "0.5", "0.95")]
            rows.append([word(name), plain(part["mean"]), *quantiles, plain(100 * part["below_half"], 1)])
    columns = ["model", "mean", "5 %", "median", "95 %", "% of stays below 0.5"]
    notes = ["the rest of the probability is on other words"] if rows else []
    title = "Probability on yes and no together"
    return make_table("abstention", title, columns, rows, notes=notes, section="answering")
