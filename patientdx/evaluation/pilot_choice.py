"""The λ that is chosen on one split and reported on another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from patientdx.core.errors import UserError
from patientdx.core.tables import Row, as_number


def choose(
    rows: Sequence[Row],
    metric: str = "auroc",
    *,
    chosen_on: str = "pilot",
    reported_on: str = "test",
    higher_is_better: bool = True,
) -> dict[str, Any]:
    """The merged model that is best on the pilot split, with its row on the test split.

    Ties go to the smaller λ, then to the method (and `variant`) first by name. Returns `lambda`, `method`, `metric`,
    `chosen_on`, `value` (on that split), `reported_on` and `row` (of the same model on that other split).
    Raises UserError where the choice would be made on the split that is reported, or where rows are missing.
    """
    if chosen_on == reported_on:
        raise UserError(
            f"λ cannot be chosen on the {chosen_on} split and reported on it, since the best of several "
            f"noisy numbers is too good: choose on pilot and report on test"
        )
    tasks = sorted({str(row.get("task")) for row in rows})
    if len(tasks) > 1:
        raise UserError(f"λ is chosen for one task at a time; these rows hold {', '.join(tasks)}")
    merged = [row for row in rows if row.get("role") == "merged" and as_number(row.get("lambda")) is not None]
    sign = -1 if higher_is_better else 1
    candidates = sorted(
        (row for row in merged if row.get("split") == chosen_on and as_number(row.get(metric)) is not None),
        key=lambda row: (sign * row[metric], row["lambda"], str(row.get("method")), str(row.get("variant"))),
    )
    if not candidates:
        raise UserError(f"no merged model with a λ has a value of {metric} on the {chosen_on} split to choose by")
    best = candidates[0]
    reported = [
        row
        for row in merged
        if row.get("split") == reported_on
        and all(row.get(key) == best.get(key) for key in ("lambda", "method", "variant"))
    ]
    if not reported:
        raise UserError(f"λ={best['lambda']:g} was chosen on {chosen_on} but has no result on the {reported_on} split")
    return {
        "lambda": best["lambda"],
        "method": best.get("method"),
        "metric": metric,
        "chosen_on": chosen_on,
        "value": best[metric],
        "reported_on": reported_on,
        "row": reported[-1],
    }
