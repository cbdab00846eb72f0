"""What the models of a run reveal of its records: losses measured, attacked, and put into words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patientdx.core import distributed
from patientdx.evaluation.analyses import Analysis, privacy_tables
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.inference import Array
from patientdx.evaluation.kinds import Kind
from patientdx.evaluation.language_systems import FINETUNED, WeightsSystem
from patientdx.evaluation.leakage import parents
from patientdx.evaluation.leakage.canaries import CanaryPrompts, canary_prompts
from patientdx.evaluation.leakage.losses import (
    LOSSES,
    Columns,
    continuations,
    loss_columns,
    mean_losses,
    shadow_losses,
)
from patientdx.evaluation.leakage.records import Records, measured_records
from patientdx.evaluation.plan import Run
from patientdx.privacy import attacks
from patientdx.privacy.blind import blind_scores
from patientdx.privacy.canaries import exposure
from patientdx.privacy.estimates import Bootstrap, LossSet, attack, auc, leakage_test, reading
from patientdx.privacy.lira import lira
from patientdx.tasks.example import TaskData

# Part of the fingerprint: raise it when the same losses come to give other numbers.
LEAKAGE = 3

Shadows = tuple[Array, NDArray[np.bool_]]


class Privacy(Analysis):
    """The leakage test, and every attack with its interval, set against the same on the model that one came from.

    Numbers only: no text, no id.
    """

    name = "privacy"

    def not_applicable(self, config: RunConfig, data: TaskData, kind: Kind) -> str | None:
        """It is off by default. The configuration refuses it for tasks without an outcome."""
        return None if config.analyses.privacy.enabled and kind.gives_probability else "privacy=none"

    def fingerprint(self, run: Run) -> Any:
        """Its versions and its configuration."""
        config = run.config.analyses.privacy.model_dump(exclude={"parent_file"})
        return {"version": LEAKAGE, "losses": LOSSES, "config": config, "parent": parents.fingerprint(run)}

    def collect(self, run: Run) -> dict[str, Any]:
        """The result; UserError, before any model is loaded, where the records do not suffice."""
        privacy = run.config.analyses.privacy
        of_parent = distributed.run_on_all_ranks(lambda: parents.parent_records(run))
        records = distributed.run_on_all_ranks(lambda: measured_records(run))
        context = run.plan.context
        hidden = distributed.run_on_all_ranks(lambda: canary_prompts(run.config, context) if privacy.mia else None)
        run.timer.record("records")
        systems = [system for system in run.plan.systems if isinstance(system, WeightsSystem)]
        columns = {system.role: loss_columns(run, system, records) for system in systems}
        shadows = shadow_losses(run, records) if privacy.shadows else None
        memorised = {system.role: _memorised(run, system, records, hidden) for system in systems}
        parent_losses = None if of_parent is None else parents.parent_losses(run, of_parent)
        run.timer.record("losses")
        result = distributed.run_on_all_ranks(
            lambda: _result(run, records, columns, shadows, memorised) if run.is_first else None
        )
        if run.is_first and of_parent is not None and parent_losses is not None:
            result |= {
                "parent": parents.result(run, of_parent, parent_losses, Bootstrap(**run.config.bootstrap.keywords))
            }
        run.timer.record("leakage")
        return distributed.broadcast(result)

    def compute(self, run: Run, collected: dict[str, Any]) -> dict[str, Any]:
        """As collected."""
        return collected

    def summary(self, result: dict[str, Any], task: str) -> dict[str, float]:
        """See `privacy_tables.summary`."""
        return privacy_tables.summary(result)


def _memorised(run: Run, system: WeightsSystem, records: Records, hidden: CanaryPrompts | None) -> dict[str, Any]:
    """Of a fine-tuned model and of what it started from: exposure of canaries, and what can be extracted."""
    config = run.config
    if config.finetune is None or system.role not in (config.finetune_config.init_from, FINETUNED):
        return {}
    result: dict[str, Any] = {}
    if hidden is not None:
        result["canaries"] = _canaries(run, system, hidden)
    if config.analyses.privacy.extraction and records.sides is not None:
        rows = records.attacked.rows[records.sides.member][: config.analyses.privacy.extraction]
        ids = [records.ids[i] for i in rows]
        start, end = run.plan.context.prompts.prefix, _common_end(records.ids)
        last = [len(row) - end for row in ids]
        exact, prefix, longest = continuations(run, system, ids, [(start + stop) // 2 for stop in last], last).T
        result["extraction"] = {
            "n": len(ids), "exact": int(exact.sum()), "prefix": float(prefix.mean()), "longest": float(longest.mean()),
        }  # fmt: skip
    return result


def _common_end(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens from the question on are at the end of all records, the answer counted as one that differs."""
    count, shortest = 1, min(map(len, rows))
    while count < shortest - 1 and len({row[-1 - count] for row in rows}) == 1:
        count += 1
    return count


def _canaries(run: Run, system: WeightsSystem, hidden: CanaryPrompts) -> dict[str, Any]:
    """Mean exposure of the canaries by number of copies, in bits, and how many are completed from half a number."""
    count, ids = len(hidden.canaries), hidden.prompts.ids
    losses = mean_losses(run, system, ids, label="canaries")[:, 0]
    half = [(hidden.first + hidden.last) // 2] * count
    exact = continuations(run, system, ids[:count], half, [hidden.last] * count)[:, 0]
    bits = np.array([exposure(loss, losses[count:]) for loss in losses[:count]])
    copies = np.array([canary.copies for canary in hidden.canaries])
    return {
        "most": float(np.log2(len(ids) - count + 1)),
        "copies": {
            str(times): {"n": int((copies == times).sum()), "exposure": float(bits[copies == times].mean()),
                         "extracted": int(exact[copies == times].sum())}
            for times in sorted(set(copies.tolist()))
        },
    }  # fmt: skip


def _result(
    run: Run,
    records: Records,
    columns: Mapping[str, Columns],
    shadows: Shadows | None,
    memorised: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """Everything that follows from the losses of all models by role; `memorised` stands beside it."""
    draws = Bootstrap(**run.config.bootstrap.keywords)
    tokens = next(iter(columns.values()))["tokens"]
    subjects = records.subjects
    result: dict[str, Any] = {
        "role": run.plan.main.role,
        "reported": run.config.inference.reported,
        "reference": records.kind,
        "unit": "nats a token",
        "sets": {name: _described(tokens[rows], [subjects[i] for i in rows]) for name, rows in records.sets.items()},
    }
    both = records.sides
    if both is not None:
        result |= _blind(records, tokens, draws)
    models: dict[str, dict[str, Any]] = {}
    for role, losses in columns.items():
        against = _origin(run.config, role)
        before = None if against is None else columns[against]
        model: dict[str, Any] = {"against": against}
        if run.config.analyses.privacy.dlt:
            model["dlt"] = leakage_test(_sets(records, losses), _sets(records, before) if before else None, draws)
        if both is not None:
            model["mia"] = _attacked(records, losses, before, shadows if role == FINETUNED else None, draws)
        models[role] = model | memorised[role]
    lines = [line for role, model in models.items() for line in reading(role, model, draws, records.kind)]
    return result | {"models": models, "reading": lines}


def _origin(config: RunConfig, role: str) -> str | None:
    """The role of the model that a model came from."""
    if role == FINETUNED:
        return config.finetune_config.init_from
    return None if role == "base" else "base"


def _described(tokens: Array, subjects: Sequence[str]) -> dict[str, Any]:
    return {"n": len(tokens), "patients": len(set(subjects)), "mean_tokens": float(tokens.mean())}


def _sets(records: Records, columns: Mapping[str, Array]) -> dict[str, LossSet]:
    subjects = records.subjects
    return {
        name: LossSet([subjects[i] for i in rows], *(columns[c][rows] for c in ("total", "tokens", "answer")))
        for name, rows in records.sets.items()
    }


def _blind(records: Records, tokens: Array, draws: Bootstrap) -> dict[str, Any]:
    """Members and non-members described, and what separates them without the model."""
    rows, member = records.attacked.rows, records.attacked.member
    texts, subjects = records.texts, [records.examples[i].subject for i in rows]
    scores = blind_scores([texts[i] for i in rows], tokens[rows], member, subjects, seed=draws.seed)
    sized = {
        name: _described(tokens[rows[member == side]], [s for s, m in zip(subjects, member, strict=True) if m == side])
        for name, side in (("members", True), ("non_members", False))
    }
    blind = {name: {"auc": auc(score, member, subjects, draws)} for name, score in scores.items()}
    return {**sized, "duplicates": records.attacked.duplicates, "blind": blind}


def _attacked(
    records: Records, columns: Columns, before: Columns | None, shadows: Shadows | None, draws: Bootstrap
) -> dict[str, Any]:
    """Every attack on one model, and on the model before it."""
    rows = records.attacked.rows
    texts, subjects = records.texts, [records.examples[i].subject for i in rows]
    sizes = attacks.compressed_bytes([texts[i] for i in rows])
    scores = _scores(columns, records, sizes, before, shadows)
    past = {} if before is None else _scores(before, records, sizes, before, shadows)
    return {
        name: attack(score, past.get(name), records.attacked.member, subjects, draws) for name, score in scores.items()
    }


def _scores(
    columns: Columns, records: Records, sizes: NDArray, before: Columns | None, shadows: Shadows | None
) -> dict[str, Array]:
    """Each attack's score of members and non-members, (n,)."""
    rows = records.attacked.rows
    mean, out = columns["total"][rows] / columns["tokens"][rows], None
    past = None if before is None else before["total"][rows] / before["tokens"][rows]
    if shadows is not None:  # the mean likelihood under the models without the record
        out = np.ma.masked_array(np.exp(-shadows[0]), shadows[1]).mean(axis=0).filled(np.nan)
    subject = np.array([records.examples[i].subject for i in rows])
    outside = np.flatnonzero(np.logical_not(records.attacked.member))
    scores = attacks.of_losses(mean, sizes, past, outside, subject[:, None] != subject[outside], out=out)
    scores |= {"min_k": columns["min_k"][rows], "min_k_pp": columns["min_k_pp"][rows]}
    if "behind" in columns:
        scores["recall"] = attacks.recall(mean, columns["behind"])
    if "neighbour" in columns:
        scores["neighbour"] = attacks.neighbour(mean, columns["neighbour"][:, None])
    if shadows is not None:
        scores["lira"] = lira(-mean, -shadows[0], shadows[1])
    return scores


ANALYSIS = Privacy()
