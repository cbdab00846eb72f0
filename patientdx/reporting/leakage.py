"""What privacy.json says, as a reader meets it: tables for a terminal of 80 characters, numbers for a tracker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

ATTACKS = {
    "loss": "LOSS", "zlib": "zlib", "reference": "reference", "min_k": "Min-K%", "min_k_pp": "Min-K%++",
    "recall": "ReCaLL", "neighbour": "neighbour", "lira": "LiRA",
}  # fmt: skip
_DELTAS = {"delta1": "Δ1", "delta2": "Δ2"}
_NONE = "–"


def tables(told: Mapping[str, Any]) -> Group:
    """The leakage test and the attacks of every model, what was fed to them, and how to read them."""
    parts = []
    if any("dlt" in one for one in told["models"].values()):
        parts.append(_leakage_test(told))
    if any("mia" in one for one in told["models"].values()):
        parts.append(_membership(told))
    if any("canaries" in one for one in told["models"].values()):
        parts.append(_canaries(told))
    return Group(*parts, *(Text(line) for line in (*_extracted(told), *told["reading"])))


def _extracted(told: Mapping[str, Any]) -> Iterator[str]:
    for role, one in told["models"].items():
        found = one.get("extraction")
        if found is not None:
            yield (
                f"{role}: given the first half of {found['n']} members' records, it says {found['exact']} to "
                f"the end, {100 * found['prefix']:.0f} % of the rest before the first mistake, and at most "
                f"{100 * found['longest']:.0f} % of it in one piece (means)."
            )


def _table(title: str, names: Sequence[str], note: str) -> Table:
    """A table as wide as it must be; names of models and attacks stand left, numbers right."""
    shown = Table(
        box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, title=title, title_justify="left",
        caption=note, caption_justify="left",
    )  # fmt: skip
    for name in names:
        shown.add_column(name, justify="left" if name in ("model", "attack", "") else "right", no_wrap=True)
    return shown


def _leakage_test(told: Mapping[str, Any]) -> Table:
    sets = ", ".join(f"{name} {one['n']}" for name, one in told["sets"].items())
    note = (
        f"Δ1 = test − reference ({told['reference']}), Δ2 = test − train; records: {sets}.\n"
        "Its start: the model that a model came from, the base unless it was fine-tuned from another."
    )
    shown = _table("Leakage test, nats a token", ("model", "", "Δ", "perplexity", "less its start's"), note)
    for role, one in told["models"].items():
        for key, name in _DELTAS.items():
            delta = one["dlt"][key]
            over = _signed(delta["over_base"]) if "over_base" in delta else _NONE
            first = role if key == "delta1" else ""
            shown.add_row(first, name, _signed(delta["loss"]), f"{delta['perplexity']['value']:+.2f}", over)
    return shown


def _membership(told: Mapping[str, Any]) -> Table:
    names = ("model", "attack", "AUC", "TPR at 1 % FPR", "AUC less its start's")
    shown = _table("\nMembership inference", names, "\n".join(_notes(told)))
    for role, one in told["models"].items():
        first = role
        for name, found in one["mia"].items():
            tpr = _plain(found["tpr"]["0.01"]) if found["tpr"]["0.01"]["value"] is not None else _NONE
            over = _NONE if found["over_base"] is None else _shown(found["over_base"], "+.2f")
            shown.add_row(first, ATTACKS[name], _plain(found["auc"]), tpr, over)
            first = ""
    return shown


def _notes(told: Mapping[str, Any]) -> Iterator[str]:
    sides = [f"{told[key]['n']} {name}" for key, name in (("members", "members"), ("non_members", "non-members"))]
    lengths = " and ".join(f"{told[key]['mean_tokens']:.0f}" for key in ("members", "non_members"))
    double = f", {told['duplicates']} duplicates taken out" if told["duplicates"] else ""
    yield f"{' and '.join(sides)} of {lengths} tokens on average{double}; 0.5 is chance."
    blind = told["blind"]
    yield f"Without the model: words {_plain(blind['bag_of_words']['auc'])}, length {_plain(blind['length']['auc'])}."
    rates = next(iter(next(iter(told["models"].values()))["mia"].values()))["tpr"]
    for rate, one in rates.items():
        if one["value"] is None:
            yield f"TPR at {100 * float(rate):g} % FPR: {one['reason']}."


def _canaries(told: Mapping[str, Any]) -> Table:
    shown = Table(
        box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, title="Canaries", title_justify="left"
    )
    for name in ("model", "copies", "exposure, bits", "of at most", "suffix extracted"):
        shown.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
    for role, one in told["models"].items():
        first = role
        for copies, found in one.get("canaries", {}).get("copies", {}).items():
            shown.add_row(
                first, copies, f"{found['exposure']:.2f}", f"{one['canaries']['most']:.2f}",
                f"{found['extracted']} of {found['n']}",
            )  # fmt: skip
            first = ""
    return shown


def summary(told: Mapping[str, Any]) -> dict[str, float | int]:
    """For a tracker: `leakage/delta1`, `mia/loss/auc`, ..., each with `_ci_low` and `_ci_high`.

    Of the run's own model; those of its fine-tuned one start with `finetuned/`.
    """
    found = _of_model(told, told["models"][told["role"]])
    if "finetuned" in told["models"]:
        found |= {f"finetuned/{key}": value for key, value in _of_model(told, told["models"]["finetuned"]).items()}
    return found


def _of_model(told: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, float | int]:
    found: dict[str, float | int] = {}
    for key in _DELTAS if "dlt" in own else ():
        found |= _flat(f"leakage/{key}", own["dlt"][key]["loss"])
        found |= _flat(f"leakage/{key}_over_base", own["dlt"][key].get("over_base"))
    for name, one in own.get("mia", {}).items():
        found |= _flat(f"mia/{name}/auc", one["auc"]) | _flat(f"mia/{name}/auc_over_base", one["over_base"])
        for rate, tpr in one["tpr"].items():
            found |= _flat(f"mia/{name}/tpr_at_{100 * float(rate):g}_fpr", tpr)
    if "mia" in own:
        found |= {f"mia/{name}": told[name]["n"] for name in ("members", "non_members")}
        for name, one in told["blind"].items():
            found |= _flat(f"mia/blind/{name}/auc", one["auc"])
    for copies, one in own.get("canaries", {}).get("copies", {}).items():
        found[f"canary/exposure_{copies}"] = one["exposure"]
    return found


def _flat(key: str, one: Mapping[str, Any] | None) -> dict[str, float]:
    if one is None or one["value"] is None:
        return {}
    ends = {"ci_low": one.get("low"), "ci_high": one.get("high")}
    return {key: one["value"]} | {f"{key}_{end}": value for end, value in ends.items() if value is not None}


def _signed(one: Mapping[str, Any]) -> str:
    return _shown(one, "+.3f")


def _plain(one: Mapping[str, Any]) -> str:
    return _shown(one, ".2f")


def _shown(one: Mapping[str, Any], digits: str) -> str:
    if one["value"] is None:
        return _NONE
    if one.get("low") is None:
        return f"{one['value']:{digits}}"
    return f"{one['value']:{digits}} [{one['low']:{digits}}, {one['high']:{digits}}]"
