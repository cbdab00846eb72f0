"""The table of models compared with each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from patientdx.core.tables import Cell, Table, count, estimate, make_table, metric_title, p_value, word
from patientdx.evaluation.analyses.entries import Comparison, missing_values

_TITLES = {"delong": "AUROC, DeLong", "log_loss": "log loss"}


def of_clinical(result: Mapping[str, Any], names: Mapping[str, str]) -> list[Comparison]:
    """The comparisons of a clinical evaluation; `names` are those shown by role, the role itself where it has npair."""
    return [
        Comparison(names.get(pair["a"], pair["a"]), names.get(pair["b"], pair["b"]), measure, part)
        for pair in result["comparisons"]
        for measure, part in pair.items()
        if isinstance(part, Mapping)
    ]


def of_questions(result: Mapping[str, Any], names: Mapping[str, str]) -> list[Comparison]:
    """The same of models whose answers are right or wrong, with McNemar's test where it was made."""
    return [
        Comparison(
            names.get(pair["a"], pair["a"]), names.get(pair["b"], pair["b"]), pair["metric"],
            {**pair["difference"], **({"mcnemar": pair["mcnemar"]} if "mcnemar" in pair else {})},
        )
        for pair in result.get("comparisons", ())
    ]  # fmt: skip


def differences(pairs: Iterable[Comparison], role: str, task: str) -> dict[str, float]:
    """For a tracker: `role` minus each parent, as `mortality/minus_base/auroc` with the ends of its interval.

    pairs: with roles in place of names.
    """
    return {
        f"{task}/minus_{pair.b}/{pair.measure}{end}": pair.result[key]
        for pair in pairs
        if pair.a == role and pair.b in ("base", "pivot") and pair.measure != "delong"
        for key, end in (("value", ""), ("low", "_ci_low"), ("high", "_ci_high"))
        if pair.result.get(key) is not None
    }


def comparisons(pairs: Sequence[Comparison], *, notes: Iterable[str] = ()) -> Table | None:
    """A line a pair and measure: difference, p-value and its correction; None where there are no comparisons."""
    if not pairs:
        return None
    exact = any("mcnemar" in pair.result for pair in pairs)
    rows, reasons = [], []
    for pair in pairs:
        title = _TITLES.get(pair.measure, metric_title(pair.measure))
        cells: list[Cell] = [word(pair.a), word(pair.b), word(title), estimate(pair.result)]
        cells += [p_value(pair.result.get("p_value")), p_value(pair.result.get("p_holm"))]
        if exact:
            test = pair.result.get("mcnemar", {})
            cells += [count(test.get("only_a")), count(test.get("only_b")), p_value(test.get("p_value"))]
        rows.append(cells)
        reasons += missing_values(f"{pair.a} minus {pair.b}, {title}", [pair.result])
    columns = ["model", "minus", "measure", "difference", "p", "p Holm"]
    columns += ["only first", "only second", "p McNemar"] if exact else []
    explained = [
        "difference, its interval and p: paired, by patient, without correction; p Holm: p corrected over the pairs of "
        "one measure"
    ]
    if exact:
        explained.append("only first, only second: questions that only that model answers correctly (McNemar's test)")
    if any(pair.result.get("rows_independent") is False for pair in pairs):
        explained.append(
            "DeLong's test assumes independent stays, and some patients have several: use the difference by patient"
        )
    return make_table("comparisons", "Differences", columns, rows, notes=[*notes, *reasons, *explained],
                      section="methods", keys=3)  # fmt: skip


def dependence(result: Mapping[str, Any]) -> list[str]:
    """A note where McNemar's test takes more questions as independent than there are subjects."""
    rows, subjects = result.get("rows", 0), result.get("subjects", 0)
    if subjects >= rows or not any("mcnemar" in pair for pair in result["comparisons"]):
        return []
    return [f"McNemar's test assumes that the {rows} questions are independent; they belong to {subjects} subjects "
            "(patients, or distinct questions), which the difference by patient takes together"]  # fmt: skip
