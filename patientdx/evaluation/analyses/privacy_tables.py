"""Tables of what models leak of their training records, and the same numbers for a tracker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from patientdx.core.tables import Table, count, estimate, format_estimate, make_table, plain, word
from patientdx.evaluation.analyses.entries import Entry

ATTACKS = {
    "loss": "LOSS", "zlib": "zlib", "reference": "reference", "min_k": "Min-K%", "min_k_pp": "Min-K%++",
    "recall": "ReCaLL", "neighbour": "neighbour", "lira": "LiRA", "rmia": "RMIA",
}  # fmt: skip
_DELTAS = {"delta1": "Δ1: test − reference", "delta2": "Δ2: test − train"}


def roles(result: Mapping[str, Any]) -> Iterable[str]:
    """The roles of the systems in the result."""
    return result["models"]


def tables(entries: Sequence[Entry]) -> list[Table]:
    """Leakage test, membership inference, canaries and extraction, as far as they were measured."""
    builders = (_leakage, _membership, _parents, _canaries, _extraction)
    made = [builder(entries) for builder in builders] if entries else []
    return [table for table in made if table.rows]


def _models(entries: Sequence[Entry]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, what was measured) of each entry."""
    yield from ((entry.name, entry.result["models"][entry.role]) for entry in entries)


def _reading(entries: Sequence[Entry], test: bool) -> list[str]:
    """Sentences on the results, of the leakage test or of the attacks."""
    lines = [line for entry in entries for line in entry.result.get("reading", [])]
    return [line for line in dict.fromkeys(lines) if ("Δ" in line) == test]


def _leakage(entries: Sequence[Entry]) -> Table:
    rows, notes = [], []
    for name, model in _models(entries):
        for key, title in _DELTAS.items():
            delta = model.get("dlt", {}).get(key)
            if delta:
                cells = [estimate(delta["loss"], sign=True), plain(delta.get("perplexity", {}).get("value"), 2)]
                rows.append([word(name), word(title), *cells, estimate(delta.get("over_base"), sign=True)])
    for entry in entries[:1]:
        if "sets" in entry.result:
            sets = ", ".join(f"{name} {part['n']}" for name, part in entry.result["sets"].items())
            notes.append(f"reference: {entry.result['reference']}; records: {sets}")
    notes.append("start: the model that a model was made from, the base unless it was fine-tuned from another")
    columns = ["model", "difference", "nats a token", "perplexity", "minus that of its start"]
    return make_table("leakage", "Leakage test", columns, rows, notes=[*notes, *_reading(entries, True)],
                      section="privacy", keys=2)  # fmt: skip


def _membership(entries: Sequence[Entry]) -> Table:
    rows, notes = [], []
    for name, model in _models(entries):
        for attack, part in model.get("mia", {}).items():
            rate = part.get("tpr", {}).get("0.01")
            cells = [estimate(part["auc"]), estimate(rate), estimate(part.get("over_base"), sign=True)]
            rows.append([word(name), word(ATTACKS.get(attack, attack)), *cells])
            for share, measured in part.get("tpr", {}).items():
                if measured["value"] is None:
                    notes.append(f"TPR at {100 * float(share):g} % FPR: {measured['reason']}")
    for entry in entries[:1]:
        notes = [*_sides(entry.result), *notes]
    columns = ["model", "attack", "AUC", "TPR at 1 % FPR", "AUC minus that of its start"]
    return make_table("membership", "Membership inference", columns, rows, notes=[*notes, *_reading(entries, False)],
                      section="privacy", keys=2)  # fmt: skip


def _sides(result: Mapping[str, Any]) -> Iterator[str]:
    """How many records the attacks were tried on, and what is recognised without the model."""
    if "members" not in result:
        return
    sides = {"members": "members", "non_members": "non-members"}
    counts = " and ".join(f"{result[key]['n']} {name}" for key, name in sides.items())
    lengths = " and ".join(f"{result[key]['mean_tokens']:.0f}" for key in sides)
    removed = f", {result['duplicates']} duplicates removed" if result.get("duplicates") else ""
    yield f"{counts} of {lengths} tokens on average{removed}; 0.5 is chance"
    blind = {name: format_estimate(part["auc"]) for name, part in result.get("blind", {}).items()}
    if blind:
        yield f"without the model: words {blind['bag_of_words']}, length {blind['length']}"


def _parents(entries: Sequence[Entry]) -> Table:
    rows, notes = [], []
    for entry in entries:
        part = entry.result.get("parent")
        if part is None or entry.role != entry.result["role"]:
            continue
        for attack, areas in part["attacks"].items():
            cells = [estimate(areas["merged"]), estimate(areas["parent"]), estimate(areas["difference"], sign=True)]
            rows.append([word(entry.name), word(ATTACKS[attack]), *cells])
        blind = {name: format_estimate(measured["auc"]) for name, measured in part["blind"].items()}
        notes += [
            f"{part['members']} records that {part['parent']} was trained on and {part['non_members']} others",
            f"without a model: words {blind['bag_of_words']}, length {blind['length']}",
            part["reading"],
        ]
    columns = ["model", "attack", "AUC of the merge", "AUC of the parent", "merge minus parent"]
    return make_table("parents", "Records of a parent", columns, rows, notes=notes, section="privacy", keys=2)


def _canaries(entries: Sequence[Entry]) -> Table:
    rows = []
    for name, model in _models(entries):
        part = model.get("canaries", {})
        for copies, measured in part.get("copies", {}).items():
            cells = [word(name), word(copies), plain(measured["exposure"], 2), plain(part["most"], 2)]
            rows.append([*cells, count(measured["extracted"]), count(measured["n"])])
    columns = ["model", "copies", "exposure, bits", "of at most", "suffixes extracted", "canaries"]
    return make_table("canaries", "Canaries", columns, rows, section="privacy", keys=2)


def _extraction(entries: Sequence[Entry]) -> Table:
    rows = []
    for name, model in _models(entries):
        part = model.get("extraction")
        if part is not None:
            cells = [
                count(part["n"]),
                count(part["exact"]),
                plain(100 * part["prefix"], 0),
                plain(100 * part["longest"], 0),
            ]
            rows.append([word(name), *cells])
    columns = ["model", "records", "exact", "% before the first error", "% in one piece"]
    notes = ["members' records: the model continues the first half; mean share of the rest"]
    return make_table("extraction", "Extraction", columns, rows, notes=notes, section="privacy")


def summary(result: Mapping[str, Any]) -> dict[str, float | int]:
    """For a tracker: `leakage/delta1`, `mia/loss/auc`, ..., each with `_ci_low` and `_ci_high`.

    Of the run's merged or only model; those of its fine-tuned one start with `finetuned/`.
    """
    numbers = _of_model(result, result["models"][result["role"]])
    if "finetuned" in result["models"]:
        tuned = _of_model(result, result["models"]["finetuned"])
        numbers |= {f"finetuned/{key}": value for key, value in tuned.items()}
    return numbers


def _of_model(result: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, float | int]:
    numbers: dict[str, float | int] = {}
    for key in _DELTAS if "dlt" in model else ():
        numbers |= _flat(f"leakage/{key}", model["dlt"][key]["loss"])
        numbers |= _flat(f"leakage/{key}_over_base", model["dlt"][key].get("over_base"))
    for name, part in model.get("mia", {}).items():
        numbers |= _flat(f"mia/{name}/auc", part["auc"]) | _flat(f"mia/{name}/auc_over_base", part["over_base"])
        for rate, tpr in part["tpr"].items():
            numbers |= _flat(f"mia/{name}/tpr_at_{100 * float(rate):g}_fpr", tpr)
    if "mia" in model:
        numbers |= {f"mia/{name}": result[name]["n"] for name in ("members", "non_members")}
        for name, part in result["blind"].items():
            numbers |= _flat(f"mia/blind/{name}/auc", part["auc"])
    if "parent" in result and model is result["models"][result["role"]]:
        for name, part in result["parent"]["attacks"].items():
            numbers |= _flat(f"parent/{name}/auc_over_parent", part["difference"])
    for copies, part in model.get("canaries", {}).get("copies", {}).items():
        numbers[f"canary/exposure_{copies}"] = part["exposure"]
    return numbers


def _flat(key: str, result: Mapping[str, Any] | None) -> dict[str, float]:
    if result is None or result["value"] is None:
        return {}
    ends = {"ci_low": result.get("low"), "ci_high": result.get("high")}
    return {key: result["value"]} | {f"{key}_{end}": value for end, value in ends.items() if value is not None}
