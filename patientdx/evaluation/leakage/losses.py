"""Losses of records under a run's models, as far as measures of leakage need them; stored by what they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from patientdx.core import distributed
from patientdx.evaluation import finetuned
from patientdx.evaluation.inference import Array, batch_tokens, cached, fill
from patientdx.evaluation.language_systems import Finetuned, WeightsSystem
from patientdx.evaluation.leakage.records import Records, neighbour_ids
from patientdx.evaluation.plan import Run
from patientdx.evaluation.store import fingerprint
from patientdx.lm.generate import continuation
from patientdx.lm.logprobs import TokenLoss, check_lengths, token_losses
from patientdx.privacy import attacks
from patientdx.privacy.canaries import continued
from patientdx.privacy.lira import halves

# Part of every fingerprint: raise it when the same inputs come to give other losses.
LOSSES = 1
COLUMNS: tuple[str, ...] = ("tokens", "total", "answer", "min_k", "min_k_pp")

Columns = dict[str, Array]
Ids = Sequence[Sequence[int]]


def loss_columns(run: Run, system: WeightsSystem, records: Records) -> Columns:
    """What is kept of a model's losses: each column (n,) over the records.

    tokens, total and answer (nats), min_k and min_k_pp; of members and non-members, in their order, behind (mean loss
    behind ReCaLL's prefix) and neighbour (mean loss of the neighbours), where they are configured.
    """
    privacy = run.config.analyses.privacy
    measure = partial(mean_losses, run, system)
    columns: Columns = dict(zip(COLUMNS, measure(records.ids, k=privacy.k, label="losses").T, strict=True))
    if records.sides is None:
        return columns
    ids = [records.ids[i] for i in records.sides.rows]
    if privacy.recall:
        start = records.sets["reference"].start
        prefix = tuple(token for row in records.ids[start : start + privacy.recall] for token in row)
        columns["behind"] = measure(ids, prefix=prefix, label="losses behind a prefix")[:, 0]
    if privacy.neighbours:
        losses = measure(neighbour_ids(run, records), label="losses of neighbours")[:, 0]
        columns["neighbour"] = losses.reshape(len(ids), privacy.neighbours).mean(axis=1)
    return columns


def mean_losses(
    run: Run, system: WeightsSystem, ids: Ids, *, label: str, k: float | None = None, prefix: Sequence[int] = ()
) -> Array:
    """Of every record its mean loss, (n, 1) float64 in nats a token; with `k` instead the five columns, (n, 5).

    From the store where they are there. All processes take part.
    """
    session, config = run.session, run.config
    accelerator = session.accelerator(config.inference.device)
    check_lengths(ids, run.plan.context.spec.context, before=len(prefix))

    def score() -> tuple[list[int], list[tuple[float, ...]]]:
        places, losses = token_losses(
            fill(session, config, system, run.timer),
            ids,
            batch_tokens=batch_tokens(session, config),
            moments=k is not None,
            prefix=prefix,
            shard=(accelerator.process_index, accelerator.num_processes),
            label=f"{system.role} {label}",
        )
        return places, [_mean(loss) if k is None else _summary(loss, k) for loss in losses]

    def make() -> Array:
        values = np.empty((len(ids), 1 if k is None else len(COLUMNS)))
        for places, rows in distributed.all_gather(distributed.run_on_all_ranks(score)):
            if places:
                values[places] = rows
        return values

    inputs = {"k": k, "prefix": list(prefix), "batch_tokens": config.inference.batch_tokens}
    return cached(session, config, _key(run, system, ids, inputs), len(ids), make)


def shadow_losses(run: Run, records: Records) -> tuple[Array, NDArray[np.bool_]]:
    """LiRA's shadow models: mean loss of members and non-members (s, n), and which each was trained on (s, n).

    Each is trained as the run's own fine-tuned model was, on a random half of the patients of both sides.
    """
    (system,) = (system for system in run.plan.systems if isinstance(system, Finetuned))
    rows = records.attacked.rows
    ids, numbers = [records.ids[i] for i in rows], [records.numbers[i] for i in rows]
    inside = halves(
        [records.examples[i].subject for i in rows], run.config.analyses.privacy.shadows, seed=run.config.seed
    )
    losses = []
    for index, half in enumerate(inside):
        members = [number for number, trained in zip(numbers, half, strict=True) if trained]
        start = json.loads(system.job.start)
        job = finetuned.job(run.session, run.config, run.plan.context, start, rows=members)
        shadow = Finetuned(f"shadow {index + 1}", system.title, job, (), {"finetuned": job.key})
        losses.append(mean_losses(run, shadow, ids, label="losses")[:, 0])
    return np.stack(losses), inside


def continuations(run: Run, system: WeightsSystem, ids: Ids, first: Sequence[int], last: Sequence[int]) -> Array:
    """Of every record exact, prefix and longest as `canaries.continued` has them, (n, 3) float64.

    The model is given ids[:first] and continues greedily up to `last`. Every process does all of them.
    """
    spans = list(zip(map(tuple, ids), first, last, strict=True))

    def make() -> Array:
        def one_by_one() -> Array:
            return np.array([_continued(fill(run.session, run.config, system, run.timer), *span) for span in spans])

        return distributed.run_on_all_ranks(one_by_one)

    inputs = {"first": list(first), "last": list(last)}
    return cached(run.session, run.config, _key(run, system, ids, inputs), len(ids), make)


def _mean(loss: TokenLoss) -> tuple[float]:
    return (float(loss.nll.mean()),)


def _summary(loss: TokenLoss, k: float) -> tuple[float, ...]:
    if loss.mean is None or loss.variance is None:
        raise ValueError("Min-K%++ needs the losses with their moments")
    scores = attacks.min_k(loss.nll, k), attacks.min_k_pp(loss.nll, loss.mean, loss.variance, k)
    return float(len(loss.nll)), float(loss.nll.sum()), float(loss.nll[-1]), *scores


def _key(run: Run, system: WeightsSystem, ids: Ids, inputs: dict) -> str:
    """Fingerprint of all that losses and continuations of these records depend on."""
    return fingerprint({
        "losses": LOSSES, "model": system.identity, "base": run.plan.context.opened.hashes[0],
        "device": run.session.accelerator(run.config.inference.device).device.type,
        "ids": hashlib.sha256(repr([tuple(row) for row in ids]).encode()).hexdigest(),
    } | run.config.inference.identity | inputs)  # fmt: skip


def _continued(model, ids: Sequence[int], first: int, last: int) -> list[float]:
    result = continued(ids[first:last], continuation(model, ids[:first], last - first))
    return [float(result[name]) for name in ("exact", "prefix", "longest")]
