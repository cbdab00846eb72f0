"""The page of a certificate: what a hospital's data officer reads before a model is released, on one page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from patientdx.checkpoints.source import LOCAL_FOLDER
from patientdx.core.tables import format_estimate, metric_title

VERDICTS = {
    "identical": ("good", "Proved: the weights follow from the models and the recipe below alone"),
    "differs": ("bad", "Not what its record states: do not release"),
    "cannot tell": ("open", "Not proved: the weights could not be recomputed"),
}
PATIENTS = ("bad", "A parent was trained on patients' records: do not release")
LIMITS = (
    "Names, sources, licences and versions are what whoever made the merge recorded. A parent is identified by its "
    "SHA-256 alone, and what the study measured is what its folder states: its seal shows changes, but no forgery.",
    "The parents were trained by others on their own data. What they memorised of it is unknown here, and a merge can "
    "pass it on.",
    "For the patients of this institution only the choice of λ is bounded above. Methods, prompts and models that a "
    "person tried in other studies and discarded are not counted.",
    "The numbers above on leakage, membership and results are exact statistics of patients: no ε covers them. The "
    "folder of the study (predictions, cohort, hashes of the data) is not part of the model and must not be released.",
    "Whether the model is safe or useful in care is another question.",
    "The hash shows that nothing in the certificate was changed. It does not show who made it: sign it, or send the "
    "hash by another channel.",
)


def page(content: Mapping[str, Any]) -> str:
    """A certificate as one HTML file that loads nothing from elsewhere, light and dark, A4 when printed."""
    kind, verdict = PATIENTS if content["model"].get("holds_patients") else VERDICTS[content["proof"]["status"]]
    fields = {
        "title": escape(content["model"]["title"]),
        "kind": kind,
        "verdict": escape(verdict),
        "proof": escape(content["proof"]["words"]),
        "size": f"{len(content['model']['files'])} files, {content['model']['tensors']} tensors",
        "origin": _sentences(_origin(content["parents"])),
        "parents": "".join(_row(_parent(parent)) for parent in content["parents"]),
        "recipe": escape(_recipe(content["recipe"])),
        "versions": escape(", ".join(f"{name} {version}" for name, version in content["versions"].items())),
        "choice": _sentences(choice(content["choice"])),
        "study": _sentences(_study(content["study"])),
        "leakage": _leakage(content["leakage"]),
        "membership": _membership(content["membership"]),
        "limits": "".join(f"<li>{escape(limit)}</li>" for limit in LIMITS),
        "hash": content["sha256"],
    }
    template = Template((Path(__file__).parent / "certificate.html").read_text(encoding="utf-8"))
    return template.substitute(fields)


def choice(result: Mapping[str, Any]) -> list[str]:
    """What the weights can contain of patients, in sentences for a reader without statistics."""
    if "how" not in result:
        return [f"How λ was chosen is not known: {result['absent']}. So its information on patients is not bounded."]
    if "absent" in result:
        return [
            "λ was given, not searched for: "
            + result["absent"]
            + ". By the choice of λ this study put no information on patients in it."
        ]
    count, bits = result["candidates"], result["log2_candidates"]
    patients = f"{' and '.join(result.get('splits') or ['pilot'])} patients"
    models = f"{count} models" if count > 1 else "1 model"
    sentences = [
        f"λ was chosen from {models} on the {patients} ({_how(result)}). That choice is all that the weights can "
        f"contain of those patients: at most log2({count}) = {bits:.2f} bits, for all of them together."
    ]
    private = result.get("private")
    if private:
        sentences += _private(private)
    if result["how"] == "search" and result["scored_beside"]:
        sentences.append(
            f"Beside the search, {result['scored_beside']} merged models of this study were scored on the same pilot. "
            "A person who saw those numbers could have chosen by them: the search does not cover them."
        )
    return sentences


def _origin(parents: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is not known of the parents: a local folder may hold any model."""
    local = [parent["name"] for parent in parents if parent.get("source") in (None, LOCAL_FOLDER)]
    named = [parent["name"] for parent in parents if parent.get("located") == "by whoever certifies"]
    unlicensed = [parent["name"] for parent in parents if not parent["licence"]]
    sentences = []
    if local:
        sentences.append(
            f"{', '.join(local)}: read from a folder, not from a public source. Whether it is public, and whether "
            "it was trained on patients, is not known here: compare its SHA-256 with that of its publisher."
        )
    if named:
        sentences.append(f"{', '.join(named)}: located by whoever made this certificate, not by the recorded source.")
    if unlicensed:
        sentences.append(f"{', '.join(unlicensed)}: no licence is recorded. Clarify it before the model is passed on.")
    return sentences


def _how(result: Mapping[str, Any]) -> str:
    if result["how"] == "search":
        return f"search={result['strategy']}"
    return "given by hand, scored there" if result["how"] == "given" else "chosen from a sweep"


def _private(result: Mapping[str, Any]) -> list[str]:
    """ε in words."""
    if not result["guaranteed"]:
        return [
            "λ was drawn from a known seed. That is for research: the guarantee of differential privacy does not hold."
        ]
    epsilon, account = result["epsilon"], result.get("ledger") or result
    spent, draws, by_seed = account["epsilon_spent"], account["draws"], account["draws_by_seed"]
    sentences = [
        f"λ was drawn with differential privacy, ε = {epsilon:g}, δ = 0. Without any one patient and all of the "
        f"patient's stays, each λ would have been drawn with a probability at most {math.exp(epsilon):.3g} times "
        f"larger or smaller ({math.exp(2 * epsilon):.3g} times for one patient exchanged for another)."
    ]
    if draws > 1:
        sentences.append(
            f"It is one of {draws} draws from these patients. Together they spend ε = {spent:g}, a factor of "
            f"{math.exp(spent):.3g}."
        )
    if by_seed:
        sentences.append(f"{by_seed} more were drawn from a known seed: do not release any of them.")
    return [*sentences, _ledger(result)]


def _ledger(result: Mapping[str, Any]) -> str:
    """What the count of draws is from, and what it cannot know."""
    if result.get("ledger") is None:
        return (
            "The ledger of ε on this machine lacks this draw: ε is what the study stated, and what was drawn from "
            "these patients after it, or elsewhere, is not known."
        )
    by = "tables with the same content, as no hospital was declared: a newer extract counts as another hospital"
    if result.get("hospital"):
        by = f"tables with the same content or declared as those of {result['hospital']}"
    return (
        f"The draws are those that the ledger of this machine holds at this time, from {by}. It cannot know draws with "
        "another ledger, and choices from these patients without differential privacy."
    )


def _study(study: Mapping[str, Any]) -> list[str]:
    if "absent" in study:
        return [f"How well it predicts is not stated: {study['absent']}."]
    data = "open or generated data" if study["data"] == "open" else "credentialed data"
    setting = f"{study['task']} ({data}, {study['dtype']})"
    result = study["result"]
    if "absent" in result:
        return [f"Scored on {setting}; {result['absent']}."]
    return [f"{setting}: {metric_title(result['metric'])} {_interval(result)} on the {study['split']} patients."]


def _leakage(section: Mapping[str, Any]) -> str:
    """Δ1 and Δ2, in nats a token."""
    if "absent" in section:
        return f"<p>Not measured: {escape(section['absent'])}.</p>"
    titles = {"delta1": "Δ1: test − reference", "delta2": "Δ2: test − train"}
    rows = [
        (title, *(_interval(section["found"][name].get(kind)) for kind in ("loss", "over_base")))
        for name, title in titles.items()
        if name in section["found"]
    ]
    meanings = {
        "delta1": "Δ1 clearly below 0 and below that of the base: trained on the test records.",
        "delta2": "Δ2 clearly above 0 and above that of the base: it memorised the train records.",
    }
    meaning = " ".join(meanings[name] for name in meanings if name in section["found"])
    head = ("loss, nats a token", "this model", "minus that of the base")
    return _table(head, rows) + _sentences([meaning, *section["reading"]])


def _membership(section: Mapping[str, Any]) -> str:
    """AUC and recognised share at 1 % false alarms of each attack, beside those that do not use the model."""
    if "absent" in section:
        return f"<p>Not measured: {escape(section['absent'])}.</p>"
    rows, reasons = [], []
    for name, attack in section["found"].items():
        rate = (attack.get("tpr") or {}).get("0.01")
        rows.append((name, _interval(attack.get("auc")), _interval(rate), _interval(attack.get("over_base"))))
        reasons += [f"–: {rate['reason']}."] if rate and rate.get("reason") else []
    for name, attack in section.get("blind", {}).items():
        rows.append((f"blind: {name.replace('_', ' ')}", _interval(attack.get("auc")), "", ""))
    head = ("attack (0.5 is chance)", "AUC", "recognised at 1 % false alarms", "AUC minus that of the base")
    return _table(head, rows) + _sentences([*dict.fromkeys(reasons), *section["reading"]])


def _interval(result: Mapping[str, Any] | None) -> str:
    """An estimate with its interval; a dash where it has no value."""
    return format_estimate(result or {}, 3)


def _recipe(recipe: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{key}={value}" for key, value in recipe["arguments"].items()) or "no arguments"
    return f"{recipe['method']}, λ = {recipe['lambda']}, {arguments}, seed {recipe['seed']}"


def _parent(model: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return model["role"], model["name"], model["licence"] or "not stated", model["sha256"]


def _sentences(sentences: Sequence[str]) -> str:
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><tr>{top}</tr>{''.join(_row(row) for row in rows)}</table>"


def _row(cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
