"""Losses of records under a run's models, as far as the measures of leakage need them; kept by what they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from patientdx.core import distributed
from patientdx.evaluation import finetuned, session
from patientdx.evaluation.config.sections import RunConfig
from patientdx.evaluation.inference import Timer, batch_tokens, filled, kept
from patientdx.evaluation.leakage.records import Records, context, neighbours_of
from patientdx.evaluation.plan import Plan, System, asking_of
from patientdx.evaluation.store import fingerprint
from patientdx.lm.generate import continuation
from patientdx.lm.logprobs import TokenLoss, check_lengths, token_losses
from patientdx.privacy import attacks
from patientdx.privacy.canaries import continued
from patientdx.privacy.lira import halves

# Part of every fingerprint: raise it when the same inputs come to give other losses.
LOSSES = 1
_COLUMNS = ("tokens", "total", "answer", "min_k", "min_k_pp")

Columns = dict[str, NDArray[np.float64]]


def columns_of(config: RunConfig, asked: Plan, point: System, records: Records, clock: Timer) -> Columns:
    """What is kept of a model's losses: each column (n,) over the records.

    tokens, total and answer (nats), min_k and min_k_pp; of members and non-members, in their order, behind (mean loss
    behind ReCaLL's prefix) and neighbour (mean loss of the neighbours), where they are asked for.
    """
    wanted = config.analyses.privacy
    measure = partial(measured, config, asked, point, clock=clock)
    found = dict(zip(_COLUMNS, measure(records.ids, k=wanted.k, label="losses").T, strict=True))
    if records.sides is None:
        return found
    own = [records.ids[i] for i in records.sides.rows]
    if wanted.recall:
        start = records.sets["reference"].start
        prefix = tuple(token for ids in records.ids[start : start + wanted.recall] for token in ids)
        found["behind"] = measure(own, prefix=prefix, label="losses behind a prefix")[:, 0]
    if wanted.neighbours:
        losses = measure(neighbours_of(config, asked, records), label="losses of neighbours")[:, 0]
        found["neighbour"] = losses.reshape(len(own), wanted.neighbours).mean(axis=1)
    return found


def measured(
    config: RunConfig,
    asked: Plan,
    point: System,
    ids: Sequence[Sequence[int]],
    *,
    clock: Timer,
    label: str,
    k: float | None = None,
    prefix: Sequence[int] = (),
) -> NDArray[np.float64]:
    """Of every record its mean loss, (n, 1) float64 in nats a token; with `k` instead the five columns, (n, 5).

    From the store where they are there. All processes take part.
    """
    where = session.accelerator(config.inference.device)
    check_lengths(ids, context(asked), before=len(prefix))

    def share() -> tuple[list[int], list[tuple[float, ...]]]:
        places, losses = token_losses(
            filled(config, point, clock),
            ids,
            batch_tokens=batch_tokens(config),
            moments=k is not None,
            prefix=prefix,
            shard=(where.process_index, where.num_processes),
            label=f"{point.role} {label}",
        )
        return places, [_mean(one) if k is None else _summary(one, k) for one in losses]

    def make() -> NDArray[np.float64]:
        found = np.empty((len(ids), 1 if k is None else len(_COLUMNS)))
        for places, values in distributed.all_gather(distributed.run_on_all_ranks(share)):
            if places:
                found[places] = values
        return found

    facts = {"k": k, "prefix": list(prefix), "batch_tokens": config.inference.batch_tokens}
    return kept(config, _key(config, asked, point, ids, facts), len(ids), make).option


def _mean(one: TokenLoss) -> tuple[float]:
    return (float(one.nll.mean()),)


def _summary(one: TokenLoss, k: float) -> tuple[float, ...]:
    scores = attacks.min_k(one.nll, k), attacks.min_k_pp(one.nll, one.mean, one.variance, k)
    return float(len(one.nll)), float(one.nll.sum()), float(one.nll[-1]), *scores


def _key(config: RunConfig, asked: Plan, point: System, ids: Sequence[Sequence[int]], facts: dict) -> str:
    """Fingerprint of all that losses and continuations of these records depend on."""
    return fingerprint({
        "losses": LOSSES, "model": point.identity, "base": asked.opened.hashes[0], "dtype": config.inference.dtype,
        "device": session.accelerator(config.inference.device).device.type,
        "ids": hashlib.sha256(repr([tuple(row) for row in ids]).encode()).hexdigest(),
    } | facts)  # fmt: skip


def shadow_losses(
    config: RunConfig, asked: Plan, records: Records, clock: Timer
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """LiRA's shadow models: mean loss of members and non-members (s, n), and which each was trained on (s, n).

    Each is trained as the run's own fine-tuned model was, on a random half of the patients of both sides.
    """
    (point,) = (one for one in asked.points if one.job is not None)
    own = [records.ids[i] for i in records.sides.rows]
    subjects = [records.examples[i].subject for i in records.sides.rows]
    numbers = [records.numbers[i] for i in records.sides.rows]
    inside = halves(subjects, config.analyses.privacy.shadows, seed=config.seed)
    found = []
    for place, one in enumerate(inside):
        members = [number for number, seen in zip(numbers, one, strict=True) if seen]
        start = json.loads(point.job.start)
        job = finetuned.job(config, asked.data, asking_of(config, asked.opened), start, members=members)
        shadow = System(f"shadow {place + 1}", point.method, None, {"finetuned": job.key}, None, job=job)
        found.append(measured(config, asked, shadow, own, clock=clock, label="losses")[:, 0])
    return np.stack(found), inside


def continuations(
    config: RunConfig,
    asked: Plan,
    point: System,
    ids: Sequence[Sequence[int]],
    first: Sequence[int],
    last: Sequence[int],
    clock: Timer,
) -> NDArray[np.float64]:
    """Of every record exact, prefix and longest as `canaries.continued` has them, (n, 3) float64.

    The model is given ids[:first] and continues greedily up to `last`. Every process does all of them.
    """
    spans = list(zip(map(tuple, ids), first, last, strict=True))

    def make() -> NDArray[np.float64]:
        return distributed.run_on_all_ranks(
            lambda: np.array([_continued(filled(config, point, clock), *one) for one in spans])
        )

    facts = {"first": list(first), "last": list(last)}
    return kept(config, _key(config, asked, point, ids, facts), len(ids), make).option


def _continued(model, ids: Sequence[int], first: int, last: int) -> list[float]:
    found = continued(ids[first:last], continuation(model, ids[:first], last - first))
    return [float(found[name]) for name in ("exact", "prefix", "longest")]
