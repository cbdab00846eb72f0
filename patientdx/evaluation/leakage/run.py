"""What the models of a run give away of its records: losses measured, attacked, and put into words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patientdx.core import distributed
from patientdx.evaluation import session
from patientdx.evaluation.config.sections import RunConfig
from patientdx.evaluation.inference import Timer
from patientdx.evaluation.leakage.losses import LOSSES, Columns, columns_of, continuations, measured, shadow_losses
from patientdx.evaluation.leakage.planted import Planted, planted
from patientdx.evaluation.leakage.records import Records, gathered_records
from patientdx.evaluation.plan import Plan, System, asking_of
from patientdx.evaluation.store import fingerprint, read_json
from patientdx.privacy import attacks
from patientdx.privacy.blind import blind_scores
from patientdx.privacy.canaries import exposure
from patientdx.privacy.estimates import Bootstrap, LossSet, attack, auc, leakage_test, reading
from patientdx.privacy.lira import lira

PRIVACY = "privacy.json"
# Part of every fingerprint: raise it when the same losses come to give other numbers.
LEAKAGE = 1

Shadows = tuple[NDArray[np.float64], NDArray[np.bool_]]


def leakage(config: RunConfig, asked: Plan, clock: Timer) -> dict[str, Any] | None:
    """What privacy.json holds, None where nothing is asked; all processes take part and return the same.

    Numbers only: no text, no id. Of every language model of the run, as was asked: the leakage test, and every attack
    with its interval, set against the same on the model that it came from. Raises UserError, before any model is loaded,
    where the records will not do.
    """
    if not config.analyses.privacy.enabled:
        return None
    first = session.accelerator(config.inference.device).is_main_process
    records = distributed.run_on_all_ranks(lambda: gathered_records(config, asked))
    asking = asking_of(config, asked.opened)
    hidden = distributed.run_on_all_ranks(
        lambda: planted(config, asked.data, asking) if config.analyses.privacy.mia else None
    )
    clock.lap("records")
    points = [point for point in asked.points if point.tabular is None]
    found = {point.role: columns_of(config, asked, point, records, clock) for point in points}
    shadows = shadow_losses(config, asked, records, clock) if config.analyses.privacy.shadows else None
    more = {point.role: _remembered(config, asked, point, records, hidden, clock) for point in points}
    clock.lap("losses")
    said = distributed.run_on_all_ranks(lambda: _said(config, asked, records, found, shadows, more) if first else None)
    clock.lap("leakage")
    return distributed.broadcast(said)


def _remembered(
    config: RunConfig, asked: Plan, point: System, records: Records, hidden: Planted | None, clock: Timer
) -> dict[str, Any]:
    """Of a fine-tuned model and of what it started from: exposure of canaries, and what can be extracted."""
    if config.finetune is None or point.role not in (config.finetune.init_from, "finetuned"):
        return {}
    found: dict[str, Any] = {}
    if hidden is not None:
        found["canaries"] = _canaries(config, asked, point, hidden, clock)
    if config.analyses.privacy.extraction and records.sides is not None:
        rows = records.sides.rows[records.sides.member][: config.analyses.privacy.extraction]
        ids = [records.ids[i] for i in rows]
        before, after = asked.tokens.prefix, _common_end(records.ids)
        last = [len(row) - after for row in ids]
        spans = [(before + end) // 2 for end in last], last
        exact, prefix, longest = continuations(config, asked, point, ids, *spans, clock).T
        found["extraction"] = {
            "n": len(ids), "exact": int(exact.sum()), "prefix": float(prefix.mean()), "longest": float(longest.mean()),
        }  # fmt: skip
    return found


def _common_end(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens from the question on all records end in alike, the answer counted as one that differs."""
    count, shortest = 1, min(map(len, rows))
    while count < shortest - 1 and len({row[-1 - count] for row in rows}) == 1:
        count += 1
    return count


def _canaries(config: RunConfig, asked: Plan, point: System, hidden: Planted, clock: Timer) -> dict[str, Any]:
    """Mean exposure of the canaries of each number of copies, in bits, and how many are said from half their number."""
    count, ids = len(hidden.canaries), hidden.prompts.ids
    losses = measured(config, asked, point, ids, clock=clock, label="canaries")[:, 0]
    half = [(hidden.first + hidden.last) // 2] * count
    exact = continuations(config, asked, point, ids[:count], half, [hidden.last] * count, clock)[:, 0]
    bits = np.array([exposure(loss, losses[count:]) for loss in losses[:count]])
    copies = np.array([one.copies for one in hidden.canaries])
    return {
        "most": float(np.log2(len(ids) - count + 1)),
        "copies": {
            str(times): {"n": int((copies == times).sum()), "exposure": float(bits[copies == times].mean()),
                         "extracted": int(exact[copies == times].sum())}
            for times in sorted(set(copies.tolist()))
        },
    }  # fmt: skip


def key_of(config: RunConfig, asked: Plan) -> str:
    """Fingerprint of what privacy.json holds for this run."""
    return fingerprint(
        {"version": LEAKAGE, "losses": LOSSES, "run": asked.key, "request": asdict(config.analyses.privacy)}
    )


def known(config: RunConfig, asked: Plan, folder: Path) -> dict[str, Any] | None:
    """What is there already for this very request, or None; None, too, where nothing is asked."""
    if not config.analyses.privacy.enabled:
        return None
    found = read_json(folder / PRIVACY)
    return found if found is not None and found["fingerprint"] == key_of(config, asked) else None


def _said(
    config: RunConfig,
    asked: Plan,
    records: Records,
    found: Mapping[str, Columns],
    shadows: Shadows | None,
    more: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """Everything that is said of the losses of all models, `found` by role; `more` stands beside it."""
    drawn = Bootstrap(**config.bootstrap.keywords)
    tokens = next(iter(found.values()))["tokens"]
    subjects = [example.subject for example in records.examples]
    told: dict[str, Any] = {
        "fingerprint": key_of(config, asked),
        "role": asked.points[0].role,
        "reported": config.inference.reported,
        "reference": records.kind,
        "unit": "nats a token",
        "sets": {name: _described(tokens[rows], [subjects[i] for i in rows]) for name, rows in records.sets.items()},
    }
    both = records.sides
    if both is not None:
        told |= _blind(records, tokens, drawn)
    models: dict[str, dict[str, Any]] = {}
    for role, columns in found.items():
        against = _against(config, role)
        before = None if against is None else found[against]
        one: dict[str, Any] = {"against": against}
        if config.analyses.privacy.dlt:
            one["dlt"] = leakage_test(
                _sets(records, columns, subjects), before and _sets(records, before, subjects), drawn
            )
        if both is not None:
            one["mia"] = _attacked(records, columns, before, shadows if role == "finetuned" else None, drawn)
        models[role] = one | more[role]
    said = [line for role, one in models.items() for line in reading(role, one, drawn)]
    return told | {"models": models, "reading": said}


def _against(config: RunConfig, role: str) -> str | None:
    """The role of the model that a model is set against: the one that it came from."""
    if role == "finetuned":
        return config.finetune.init_from
    return None if role == "base" else "base"


def _described(tokens: NDArray[np.float64], subjects: Sequence[str]) -> dict[str, Any]:
    return {"n": len(tokens), "patients": len(set(subjects)), "mean_tokens": float(tokens.mean())}


def _sets(records: Records, columns: Mapping[str, NDArray], subjects: Sequence[str]) -> dict[str, LossSet]:
    return {
        name: LossSet([subjects[i] for i in rows], *(columns[c][rows] for c in ("total", "tokens", "answer")))
        for name, rows in records.sets.items()
    }


def _blind(records: Records, tokens: NDArray[np.float64], drawn: Bootstrap) -> dict[str, Any]:
    """Members and non-members described, and what can be told of them without the model."""
    rows, member = records.sides.rows, records.sides.member
    texts, subjects = records.texts, [records.examples[i].subject for i in rows]
    scores = blind_scores([texts[i] for i in rows], tokens[rows], member, subjects, seed=drawn.seed)
    sized = {
        name: _described(tokens[rows[member == side]], [s for s, m in zip(subjects, member, strict=True) if m == side])
        for name, side in (("members", True), ("non_members", False))
    }
    blind = {name: {"auc": auc(score, member, subjects, drawn)} for name, score in scores.items()}
    return {**sized, "duplicates": records.sides.duplicates, "blind": blind}


def _attacked(
    records: Records, columns: Columns, before: Columns | None, shadows: Shadows | None, drawn: Bootstrap
) -> dict[str, Any]:
    """Every attack on one model, and on the model before it."""
    rows = records.sides.rows
    texts, subjects = records.texts, [records.examples[i].subject for i in rows]
    sizes = attacks.compressed_bytes([texts[i] for i in rows])
    scores = _scores(columns, rows, sizes, before, shadows)
    past = {} if before is None else _scores(before, rows, sizes, before, shadows)
    return {
        name: attack(score, past.get(name), records.sides.member, subjects, drawn) for name, score in scores.items()
    }


def _scores(
    columns: Columns, rows: NDArray, sizes: NDArray, before: Columns | None, shadows: Shadows | None
) -> dict[str, NDArray[np.float64]]:
    """Each attack's score of members and non-members, (n,)."""
    mean = columns["total"][rows] / columns["tokens"][rows]
    found = {"loss": attacks.loss(mean), "zlib": attacks.zlib(mean, sizes)}
    if before is not None:
        found["reference"] = attacks.reference(mean, before["total"][rows] / before["tokens"][rows])
    found |= {"min_k": columns["min_k"][rows], "min_k_pp": columns["min_k_pp"][rows]}
    if "behind" in columns:
        found["recall"] = attacks.recall(mean, columns["behind"])
    if "neighbour" in columns:
        found["neighbour"] = attacks.neighbour(mean, columns["neighbour"][:, None])
    if shadows is not None:
        found["lira"] = lira(-mean, -shadows[0], shadows[1])
    return found
