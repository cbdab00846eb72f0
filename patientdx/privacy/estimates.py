"""From losses of records to what is said of leakage: differences and areas with their intervals by patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.metrics.bootstrap import replicates
from patientdx.metrics.intervals import Estimate, absent, estimate, estimates
from patientdx.metrics.paired import difference_of, holm, paired_estimate
from patientdx.metrics.ranking import auroc
from patientdx.privacy import dlt
from patientdx.privacy.operating_point import tpr_at

RATES = (0.01, 0.001)  # false alarms at which an attack is read


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn."""

    resamples: int = 2000
    level: float = 0.95
    seed: int = 0

    @property
    def keywords(self) -> dict[str, Any]:
        """As the functions of `patientdx.metrics` take them."""
        return {"resamples": self.resamples, "level": self.level, "seed": self.seed}


@dataclass(frozen=True)
class LossSet:
    """The records of one set, row by row: patient, loss of all tokens (n,) in nats, tokens (n,), the answer's loss."""

    subject: Sequence[str]
    total: NDArray[np.float64]
    tokens: NDArray[np.float64]
    answer: NDArray[np.float64]


def leakage_test(
    sets: Mapping[str, LossSet], base: Mapping[str, LossSet] | None, drawn: Bootstrap
) -> dict[str, dict[str, Estimate]]:
    """delta1 and delta2 of a model, and the same less those of the model `base` on the same records.

    sets, base: train, test and reference. Each set is resampled by patient on its own, the two models together. Of
    each delta: `loss` (token-weighted, nats a token), `perplexity`, `record_loss` (record-weighted), `matched` (lengths
    reweighted to test's; with the share of test records in it), `answer` (the answer's token alone), and over_base of
    `loss` with its p-value, over_base_record and over_base_answer.
    """
    edges = dlt.length_edges(*(one.tokens for one in sets.values()))
    seeds = dict(zip(("test", "reference", "train"), ([drawn.seed, 1], [drawn.seed, 2], [drawn.seed, 3]), strict=True))
    own = {name: _sums(one, edges, drawn, seeds[name]) for name, one in sets.items()}
    before = None if base is None else {name: _sums(one, edges, drawn, seeds[name]) for name, one in base.items()}
    return {
        "delta1": _delta(own, before, "reference", drawn.level),
        "delta2": _delta(own, before, "train", drawn.level),
    }


def _sums(one: LossSet, edges: ArrayLike, drawn: Bootstrap, seed: Sequence[int]) -> dict[str, Any]:
    """The set's sums (`dlt.columns`) and, under "drawn", those of each resample."""
    columns = dlt.columns(one.total, one.tokens, edges) | {"answer": np.asarray(one.answer, dtype=np.float64)}
    metrics = {name: _summed(column) for name, column in columns.items()}
    found = replicates(metrics, one.total, one.tokens, one.subject, resamples=drawn.resamples, seed=seed)
    return {name: float(column.sum()) for name, column in columns.items()} | {
        "drawn": found, "patients": len(set(one.subject))}  # fmt: skip


def _summed(column: NDArray[np.float64]):
    return lambda _score, _label, weight: weight @ column


def _delta(own: Mapping, before: Mapping | None, other: str, level: float) -> dict[str, Estimate]:
    kinds = {"loss": dlt.loss, "perplexity": dlt.perplexity, "record_loss": dlt.record_loss, "answer": _answer}

    def difference(sums: Mapping, kind) -> tuple[float, NDArray[np.float64]]:
        value = kind(sums["test"]) - kind(sums[other])
        return value, kind(sums["test"]["drawn"]) - kind(sums[other]["drawn"])

    found = {name: estimate(*difference(own, kind), level) for name, kind in kinds.items()}
    value = float(dlt.matched_difference(own["test"], own[other]))
    if np.isnan(value):
        found["matched"] = absent("no bin of length holds records of both sets")
    else:
        matched = dlt.matched_difference(own["test"]["drawn"], own[other]["drawn"])
        share = dlt.matched_share(own["test"], own[other])
        found["matched"] = estimate(value, matched, level) | {"share": share}
    if before is not None:
        for name, kind in (("over_base", "loss"), ("over_base_record", "record_loss"), ("over_base_answer", "answer")):
            (value, resampled), (past, past_resampled) = difference(own, kinds[kind]), difference(before, kinds[kind])
            patients = min(own["test"]["patients"], own[other]["patients"])  # of the set that says least
            found[name] = difference_of(value - past, resampled, past_resampled, patients, level)
    return found


def _answer(sums: Mapping[str, Any]) -> Any:
    return sums["answer"] / sums["records"]


def auc(score: ArrayLike, member: ArrayLike, subject: Sequence[str], drawn: Bootstrap) -> Estimate:
    """Area under the ROC curve by patient bootstrap; score (n,), member (n,) of 0 and 1."""
    return estimates({"": auroc}, score, np.asarray(member).astype(int), subject, **drawn.keywords)[0][""]


def attack(
    score: ArrayLike,
    base: ArrayLike | None,
    member: ArrayLike,
    subject: Sequence[str],
    drawn: Bootstrap,
) -> dict[str, Any]:
    """What one attack finds: `auc` by patient bootstrap, `tpr` at 1 % and 0.1 % false alarms, and over_base.

    score (n,), higher means member; base (n,) the same attack on the model before, or None where there is none.
    `over_base`: area less that on base, paired, with its p-value.
    """
    score, member = np.asarray(score, dtype=np.float64), np.asarray(member).astype(int)
    tpr = {f"{rate:g}": tpr_at(score, member, rate, level=drawn.level) for rate in RATES}
    over = None
    if base is not None:
        over = paired_estimate(auroc, score, np.asarray(base, dtype=np.float64), member, subject, **drawn.keywords)
    return {"auc": auc(score, member, subject, drawn), "tpr": tpr, "over_base": over}


def reading(role: str, told: Mapping[str, Any], drawn: Bootstrap) -> list[str]:
    """What a model's numbers say, in sentences: of the leakage test, and of the attacks together.

    told: its entry in privacy.json. An attack counts where its area is above that on the model before, by a p-value
    corrected for the number of attacks (Holm) at 1 - level. Of too few resamples no p-value is small enough for that.
    """
    said, against = [], told["against"]
    if "dlt" in told:
        kind = "loss" if against is None else "over_base"
        said.append(dlt.reading(role, *(told["dlt"][name][kind] for name in ("delta1", "delta2")), over=against))
    if "mia" in told and against is not None:
        tests = {name: one["over_base"] for name, one in told["mia"].items() if one["over_base"]["p_value"] is not None}
        corrected = holm({name: one["p_value"] for name, one in tests.items()})
        works = [name for name, one in tests.items() if one["value"] > 0 and corrected[name] < 1 - drawn.level]
        found = f"found by {', '.join(works)}" if works else "found by none"
        least = len(tests) * 2 / (drawn.resamples + 1)
        if not works and least >= 1 - drawn.level:
            found = f"not decided: {drawn.resamples} resamples are too few for so many tests"
        said.append(f"{role}, against {against}: of {len(tests)} attacks, membership is {found}.")
    return said
