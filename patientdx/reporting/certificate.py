"""The page of a certificate: what a hospital's data officer reads before a model leaves the house, on one sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Any

OWN_FOLDER = "a folder of this house"
VERDICTS = {
    "identical": ("good", "Proved: the weights follow from the models below and the recipe alone"),
    "differs": ("bad", "Not what it claims to be: do not release"),
    "cannot tell": ("open", "Not proved: the weights could not be derived again"),
}
LIMITS = (
    "The parents were trained by others, on what they had. What they memorised of that, this page does not know: a "
    "merge can hand it on.",
    "Of the patients here only the choice of λ is bounded above. What a person tried in other studies and put aside "
    "(methods, prompts, models) is not counted.",
    "The figures above on leakage, membership and results are exact statistics of patients: no ε covers them. The "
    "study's own folder (predictions, cohort, hashes of the data) is not part of the model and stays in the house.",
    "Whether the model is safe or useful in care is another question.",
    "The hash shows that nothing in the certificate was changed. It does not say who made it: sign it, or send the "
    "hash by another way.",
)


def page(content: Mapping[str, Any]) -> str:
    """A certificate as one HTML file that loads nothing from elsewhere, light and dark, A4 when printed."""
    kind, verdict = VERDICTS[content["proof"]["status"]]
    blanks = {
        "title": escape(content["model"]["title"]),
        "kind": kind,
        "verdict": escape(verdict),
        "proof": escape(content["proof"]["words"]),
        "size": f"{len(content['model']['files'])} files, {content['model']['tensors']} tensors",
        "origin": _sentences(_origin(content["parents"])),
        "parents": "".join(_row(_parent(one)) for one in content["parents"]),
        "recipe": escape(_recipe(content["recipe"])),
        "versions": escape(", ".join(f"{name} {version}" for name, version in content["versions"].items())),
        "choice": _sentences(choice(content["choice"])),
        "study": _sentences(_study(content["study"])),
        "leakage": _leakage(content["leakage"]),
        "membership": _membership(content["membership"]),
        "limits": "".join(f"<li>{escape(one)}</li>" for one in LIMITS),
        "hash": content["sha256"],
    }
    template = Template((resources.files(__package__) / "certificate.html").read_text(encoding="utf-8"))
    return template.substitute(blanks)


def choice(found: Mapping[str, Any]) -> list[str]:
    """What patients can have left in the weights, in sentences for a reader who knows no statistics."""
    if "how" not in found:
        return [
            f"How λ was chosen is not known: {found['absent']}. So nothing is said on what it may tell of patients."
        ]
    if "absent" in found:
        return [
            "λ was given, not searched for: " + found["absent"] + ", so this study left nothing of a patient in it."
        ]
    count, bits = found["candidates"], found["log2_candidates"]
    models = f"{count} models" if count > 1 else "1 model"
    said = [
        f"λ was chosen from {models} on the pilot patients ({_how(found)}). That choice is all that those patients can "
        f"have left in the weights: at most log2({count}) = {bits:.2f} bits, for all of them together."
    ]
    private = found.get("private")
    if private:
        said += _private(private)
    if found["how"] == "search" and found["scored_beside"]:
        said.append(
            f"Beside the search, {found['scored_beside']} merged models of this study were scored on the same pilot. "
            "Whoever saw those numbers could have chosen by them: they are not covered by the search."
        )
    return said


def _origin(parents: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is not known of the parents: a folder of this house may hold anything."""
    own = [one["name"] for one in parents if "source" not in one or one["source"] in (None, OWN_FOLDER)]
    unlicensed = [one["name"] for one in parents if not one["licence"]]
    said = []
    if own:
        said.append(
            f"{', '.join(own)}: read from a folder, not from a public source. Whether it is public, and whether "
            "it saw patients, cannot be told from here: compare its SHA-256 with its makers'."
        )
    if unlicensed:
        said.append(f"{', '.join(unlicensed)}: no licence is recorded. Clear that before the model is passed on.")
    return said


def _how(found: Mapping[str, Any]) -> str:
    if found["how"] == "search":
        return f"search={found['strategy']}"
    return "given by hand, scored there" if found["how"] == "given" else "picked from a sweep"


def _private(found: Mapping[str, Any]) -> list[str]:
    """ε in words."""
    if not found["guaranteed"]:
        return [
            "λ was drawn from a known seed. That is for research: the promise of differential privacy does not hold."
        ]
    epsilon, spent = found["epsilon"], found["epsilon_spent"]
    said = [
        f"λ was drawn with differential privacy, ε = {epsilon:g}, δ = 0. Had any one patient been left out, with all "
        f"stays, each λ would have been drawn with a probability at most {math.exp(epsilon):.3g} times larger or "
        f"smaller ({math.exp(2 * epsilon):.3g} times for one patient exchanged for another)."
    ]
    if found["draws"] > 1:
        said.append(
            f"It is one of {found['draws']} draws from these patients. Together they spend ε = {spent:g}, a factor of "
            f"{math.exp(spent):.3g}."
        )
    if found["draws_by_seed"]:
        said.append(f"{found['draws_by_seed']} more were drawn from a known seed: none of them may be released.")
    return said


def _study(found: Mapping[str, Any]) -> list[str]:
    if "absent" in found:
        return [f"How well it predicts is not stated: {found['absent']}."]
    data = "open or generated data" if found["data"] == "open" else "credentialed data"
    where = f"{found['task']} ({data}, {found['dtype']})"
    result = found["result"]
    if "absent" in result:
        return [f"Scored on {where}; {result['absent']}."]
    return [f"{where}: {result['metric'].upper()} {_interval(result)} on the {found['split']} patients."]


def _leakage(found: Mapping[str, Any]) -> str:
    """Δ1 and Δ2, in nats a token."""
    if "absent" in found:
        return f"<p>Not measured: {escape(found['absent'])}.</p>"
    own = [found["found"].get(name, {}) for name in ("delta1", "delta2")]
    rows = [
        (meaning, *(_interval(one.get(kind)) for kind in ("loss", "over_base")))
        for meaning, one in zip(("Δ1: test − reference", "Δ2: test − train"), own, strict=True)
    ]
    meaning = (
        "Δ1 clearly below 0: it has seen the test records. Δ2 clearly above 0: it has memorised the train records."
    )
    head = ("loss, nats a token", "this model", "beyond the base")
    return _table(head, rows) + _sentences([meaning, *found["reading"]])


def _membership(found: Mapping[str, Any]) -> str:
    """Every attack's AUC and the share it recognises at 1 % false alarms, beside those that never see the model."""
    if "absent" in found:
        return f"<p>Not measured: {escape(found['absent'])}.</p>"
    rows, reasons = [], []
    for name, one in found["found"].items():
        rate = (one.get("tpr") or {}).get("0.01")
        rows.append((name, _interval(one.get("auc")), _interval(rate), _interval(one.get("over_base"))))
        reasons += [f"–: {rate['reason']}."] if rate and rate.get("reason") else []
    for name, one in found.get("blind", {}).items():
        rows.append((f"blind: {name.replace('_', ' ')}", _interval(one.get("auc")), "", ""))
    head = ("attack (0.5: a coin)", "AUC", "found at 1 % false alarms", "AUC beyond the base")
    return _table(head, rows) + _sentences([*dict.fromkeys(reasons), *found["reading"]])


def _interval(found: Mapping[str, Any] | None) -> str:
    """An estimate with its interval; a dash where it has no value."""
    if not found or found.get("value") is None:
        return "–"
    if found.get("low") is None or found.get("high") is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _recipe(found: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{key}={value}" for key, value in found["arguments"].items()) or "no arguments"
    return f"{found['method']}, λ = {found['lambda']}, {arguments}, seed {found['seed']}"


def _parent(model: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return model["role"], model["name"], model["licence"] or "not stated", model["sha256"]


def _sentences(found: Sequence[str]) -> str:
    return "".join(f"<p>{escape(one)}</p>" for one in found)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(one)}</th>" for one in head)
    return f"<table><tr>{top}</tr>{''.join(_row(row) for row in rows)}</table>"


def _row(cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<td>{escape(one)}</td>" for one in cells) + "</tr>"
