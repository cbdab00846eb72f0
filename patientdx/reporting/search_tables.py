"""The table of a search for λ, from the record that search.json holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from patientdx.core.tables import Table, count, format_estimate, make_table, metric_title, plain, word

_SHOWN = 12  # candidates in a terminal


def search_table(record: Mapping[str, Any], name: str = "", *, shown: int | None = _SHOWN) -> Table:
    """A line for each candidate, and as notes what the choice is worth.

    Of many candidates the `shown` best are listed, in the order in which they were scored; None lists all.
    """
    candidates = record["candidates"]
    if shown is not None:
        candidates = _best(record, shown)
    rows = []
    for trial in candidates:
        label = ", ".join([trial["label"], *(f"{key} {value:g}" for key, value in trial.get("parameters", {}).items())])
        chosen = all(trial.get(key) == record["chosen"].get(key) for key in ("label", "parameters"))
        reason = trial["dropped"]
        reasons = [_round(trial), reason] if reason else []
        outcome = "chosen" if chosen else ": ".join(filter(None, reasons))
        rows.append([word(label, chosen), plain(trial["value"]), count(trial["rows"]), word(outcome)])
    columns = ["λ", f"{metric_title(record['metric'])} on {record['split']}", "stays scored", "outcome"]
    title = f"Search for λ{f' of {name}' if name else ''}: {record['strategy']}"
    left_out = len(record["candidates"]) - len(candidates)
    notes = [f"the best {len(candidates)} of {len(record['candidates'])} candidates; all are in search.json"]
    return make_table(
        "search", title, columns, rows, notes=[*notes[: bool(left_out)], *_notes(record)], section="search"
    )


def _round(trial: Mapping[str, Any]) -> str:
    return "" if trial.get("round") is None else f"round {trial['round']}"


def _best(record: Mapping[str, Any], shown: int) -> list[dict[str, Any]]:
    """The candidates with the best values, in the order of the record."""
    candidates, sign = record["candidates"], -1 if record.get("higher_is_better", True) else 1
    order = sorted(range(len(candidates)), key=lambda index: sign * (candidates[index]["value"] or 0.0))
    return [candidates[index] for index in sorted(order[:shown])]


def _notes(record: Mapping[str, Any]) -> list[str]:
    split, notes = record["split"], []
    if record.get("looked_at") is not None:
        notes.append(f"search={record['strategy']}: {record['looked_at']} candidates scored")
    if record.get("pilot") is not None:
        corrected = record["corrected"]
        notes += [
            f"{split} {format_estimate(record['pilot'], 3)}, not corrected for the choice",
            f"{split} {format_estimate(corrected | {'value': corrected['corrected']}, 3)}, corrected for the choice"
            if corrected["corrected"] is not None
            else f"no value corrected for the choice: {corrected['reason']}",
        ]
    if record.get("reported") is not None:
        notes.append(f"{record['reported']['split']} {format_estimate(record['reported'], 3)}")
    if record.get("single") is not None:
        difference, label = record["single"]["difference"], record["single"]["label"]
        notes.append(
            f"{record['reported']['split']} {format_estimate(difference, 3)} minus that of the single λ={label}"
        )
    if record.get("forwards") is not None and record.get("grid_forwards") is not None:
        share = f"{record['share']:.1%} of the {record['grid_forwards']} of the grid"
        notes.append(f"{record['forwards']} forward passes, {share}")
    if record.get("bits") is not None:
        notes.append(f"the weights contain at most {record['bits']:.1f} bits of information on the pilot patients")
    return notes
