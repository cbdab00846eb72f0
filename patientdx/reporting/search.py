"""What a search found, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

_SHOWN = 12


def table(found: Mapping[str, Any]) -> Group:
    """The record of a search as `record` gives it: a line for each candidate, and below what the choice is worth.

    Fits 80 characters; of many candidates the best twelve are shown, in the order in which they were looked at.
    """
    shown = Table(
        title=f"\nSearch for λ: {found['strategy']}", title_justify="left",
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    shown.add_column("λ", overflow="fold")
    shown.add_column(f"{found['split']} {found['metric']}", justify="right", no_wrap=True)
    shown.add_column("rows", justify="right", no_wrap=True)
    shown.add_column("", overflow="fold")
    for one in _best(found):
        name = ", ".join([one["label"], *(f"{key} {value:g}" for key, value in one["parameters"].items())])
        chosen = all(one[key] == found["chosen"][key] for key in ("label", "parameters"))
        said = "chosen" if chosen else "" if one["dropped"] is None else f"round {one['round']}: {one['dropped']}"
        rows = "–" if one["rows"] is None else str(one["rows"])
        shown.add_row(name, _number(one["value"]), rows, said, style="bold" if chosen else None)
    return Group(shown, Text("\n".join(_below(found)), style="dim italic"))  # a caption is no wider than its table


def _best(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The candidates with the best values, in the order of the record."""
    candidates, sign = found["candidates"], -1 if found["higher_is_better"] else 1
    kept = sorted(range(len(candidates)), key=lambda i: sign * (candidates[i]["value"] or 0.0))[:_SHOWN]
    return [candidates[i] for i in sorted(kept)]


def _below(found: Mapping[str, Any]) -> list[str]:
    lines = []
    if len(found["candidates"]) > _SHOWN:
        lines.append(f"the best {_SHOWN} of {len(found['candidates'])} candidates; all are in search.json")
    if found["pilot"] is not None:
        corrected = found["corrected"]
        lines += [
            f"{found['split']} {_estimate(found['pilot'])} as it stands",
            f"{found['split']} {_estimate(corrected | {'value': corrected['corrected']})} corrected for the choice",
        ]
    lines.append(f"{found['reported']['split']} {_estimate(found['reported'])}")
    if found["single"] is not None:
        difference, label = found["single"]["difference"], found["single"]["label"]
        lines.append(f"{found['reported']['split']} {_estimate(difference)} less the single λ={label}'s")
    if found["forwards"] is not None:
        share = f"{found['share']:.0%} of the grid's {found['grid_forwards']}"
        lines.append(f"{found['forwards']} forwards, {share}")
    lines.append(f"at most {found['bits']:.1f} bits of the pilot patients are in the weights")
    return lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _estimate(found: Mapping[str, Any]) -> str:
    return f"{_number(found['value'])} [{_number(found['low'])}, {_number(found['high'])}]"
