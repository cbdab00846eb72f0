"""From losses of records to evidence of leakage: differences and areas with their intervals by patient."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

from patientdx.metrics.bootstrap import Bootstrap, replicates
from patientdx.metrics.intervals import Estimate, absent, estimate, estimates
from patientdx.metrics.paired import difference_of, holm, paired_estimate
from patientdx.metrics.ranking import auroc
from patientdx.privacy import dlt

_KEYS = {"Δ1": "delta1", "Δ2": "delta2"}
_SIGNS = {
    "Δ1": "Δ1 is below 0: a sign that test records were seen",
    "Δ2": "Δ2 is above 0: a sign that train records were memorised",
}
RATES = (0.01, 0.001)  # false positive rates at which an attack is reported
MIN_FALSE_POSITIVES = 10  # that a rate must allow, or its threshold depends on one or two records


@dataclass(frozen=True)
class LossSet:
    """The records of one set, row by row: patient, loss of all tokens (n,) in nats, tokens (n,), the answer's loss."""

    subject: Sequence[str]
    total: NDArray[np.float64]
    tokens: NDArray[np.float64]
    answer: NDArray[np.float64]


def leakage_test(
    sets: Mapping[str, LossSet], base: Mapping[str, LossSet] | None, bootstrap: Bootstrap
) -> dict[str, dict[str, Estimate]]:
    """delta1 and delta2 of a model, and the same minus those of the model `base` on the same records.

    sets, base: train, test and reference. Each set is resampled by patient independently, the two models together. Of
    each delta: `loss` (token-weighted, nats per token), `perplexity`, `record_loss` (record-weighted), `matched`
    (lengths reweighted to test's; with the fraction of test records in it), `answer` (the answer's token alone), and
    over_base of `loss` with its p-value, over_base_record and over_base_answer.
    """
    edges = dlt.length_edges(*(losses.tokens for losses in sets.values()))
    seeds = {name: [bootstrap.seed, stream] for name, stream in (("test", 1), ("reference", 2), ("train", 3))}

    def sums(losses: Mapping[str, LossSet]) -> dict[str, Mapping[str, Any]]:
        return {name: _sums(part, edges, bootstrap.resamples, seeds[name]) for name, part in losses.items()}

    model_sums, base_sums = sums(sets), None if base is None else sums(base)
    return {
        "delta1": _delta(model_sums, base_sums, "reference", bootstrap.level),
        "delta2": _delta(model_sums, base_sums, "train", bootstrap.level),
    }


def _sums(losses: LossSet, edges: ArrayLike, resamples: int, seed: Sequence[int]) -> dict[str, Any]:
    """The set's sums (`dlt.columns`) and, under "drawn", those of each resample."""
    columns = dlt.columns(losses.total, losses.tokens, edges) | {"answer": np.asarray(losses.answer, dtype=np.float64)}

    def weighted_sum(column: NDArray[np.float64]) -> Callable[..., NDArray[np.float64]]:
        return lambda _score, _label, weight: weight @ column

    metrics = {name: weighted_sum(column) for name, column in columns.items()}
    drawn = replicates(metrics, losses.total, losses.tokens, losses.subject, resamples=resamples, seed=seed)
    sums = {name: float(column.sum()) for name, column in columns.items()}
    return sums | {"drawn": drawn, "patients": len(set(losses.subject))}


def _delta(sums: Mapping[str, Any], base: Mapping[str, Any] | None, other: str, level: float) -> dict[str, Estimate]:
    measures = {"loss": dlt.loss, "perplexity": dlt.perplexity, "record_loss": dlt.record_loss, "answer": _answer_loss}

    def difference(sums: Mapping[str, Any], measure: str) -> tuple[float, NDArray[np.float64]]:
        test, reference, function = sums["test"], sums[other], measures[measure]
        return function(test) - function(reference), function(test["drawn"]) - function(reference["drawn"])

    result = {name: estimate(*difference(sums, name), level) for name in measures}
    value = float(dlt.matched_difference(sums["test"], sums[other]))
    if np.isnan(value):
        result["matched"] = absent("no bin of length holds records of both sets")
    else:
        matched = dlt.matched_difference(sums["test"]["drawn"], sums[other]["drawn"])
        share = dlt.matched_share(sums["test"], sums[other])
        result["matched"] = estimate(value, matched, level) | {"share": share}
    if base is not None:
        patients = min(sums["test"]["patients"], sums[other]["patients"])  # of the smaller set
        for suffix, measure in (("", "loss"), ("_record", "record_loss"), ("_answer", "answer")):
            (value, drawn), (base_value, base_drawn) = difference(sums, measure), difference(base, measure)
            result[f"over_base{suffix}"] = difference_of(value - base_value, drawn, base_drawn, patients, level)
    return result


def _answer_loss(sums: Mapping[str, Any]) -> Any:
    return sums["answer"] / sums["records"]


def auc(score: ArrayLike, member: ArrayLike, subject: Sequence[str], bootstrap: Bootstrap) -> Estimate:
    """Area under the ROC curve with its interval by patient; score (n,), member (n,) of 0 and 1."""
    return estimates({"": auroc}, score, np.asarray(member).astype(int), subject, **bootstrap.keywords)[0][""]


def attack(
    score: ArrayLike, base: ArrayLike | None, member: ArrayLike, subject: Sequence[str], bootstrap: Bootstrap
) -> dict[str, Any]:
    """How well an attack works: `auc` with its interval by patient, `tpr` at 1 % and 0.1 % false positives, over_base.

    score (n,), higher means member; base (n,) the same attack on the model before, or None where there is none.
    `over_base`: area minus that on base, paired, with its p-value.
    """
    score, member = np.asarray(score, dtype=np.float64), np.asarray(member).astype(int)
    tpr = {f"{rate:g}": tpr_at(score, member, rate, subject, level=bootstrap.level) for rate in RATES}
    over = None
    if base is not None:
        over = paired_estimate(auroc, score, np.asarray(base, dtype=np.float64), member, subject, **bootstrap.keywords)
    return {"auc": auc(score, member, subject, bootstrap), "tpr": tpr, "over_base": over}


def tpr_at(
    score: ArrayLike, member: ArrayLike, fpr: float, subject: Sequence[str], *, level: float = 0.95
) -> dict[str, Any]:
    """Fraction of members above the threshold that at most a fraction `fpr` of the non-members passes.

    score (n,), higher means member; member (n,) of 0 and 1; subject (n,) the patients. An estimate {value, low, high,
    found, members, false_alarms, non_members} with the exact binomial interval (Clopper and Pearson 1934) for this
    threshold, of as many independent members as the hits of a patient's stays leave (Korn and Graubard 1998); or
    {value: None, reason} with so few non-members that `fpr` allows fewer than 10 of them.
    """
    score, member = np.asarray(score, dtype=np.float64), np.asarray(member).astype(bool)
    inside, outside = score[member], np.sort(score[~member])[::-1]
    allowed = math.floor(fpr * len(outside) + 1e-9)
    if allowed < MIN_FALSE_POSITIVES:
        needed = math.ceil(MIN_FALSE_POSITIVES / fpr - 1e-9)
        return absent(f"not resolvable with {len(outside)} non-members: {needed} are needed")
    threshold = outside[allowed]  # the first non-member that must not pass
    is_hit = inside > threshold
    low, high = _share_interval(is_hit, np.asarray(subject)[member], level)
    hits = int(is_hit.sum())
    return {
        "value": hits / len(inside), "low": low, "high": high, "found": hits, "members": len(inside),
        "false_alarms": int((outside > threshold).sum()), "non_members": len(outside),
    }  # fmt: skip


def _share_interval(is_hit: NDArray[np.bool_], subject: NDArray[Any], level: float) -> tuple[float, float]:
    """The exact binomial interval of a share of stays (n,) of patients (n,).

    With the share p and the variance v of p by patient (linearised), p (1 - p) / v stays are independent, at most n;
    of a share of 0 or 1, as many as there are patients.
    """
    _, patient = np.unique(subject, return_inverse=True)
    n, share = is_hit.size, float(is_hit.mean())
    variance = float((np.bincount(patient, is_hit - share) ** 2).sum()) / n**2
    independent = patient.max() + 1.0 if share in (0, 1) else min(n, share * (1 - share) / variance)
    hits, tail = share * independent, (1 - level) / 2
    low = float(beta.ppf(tail, hits, independent - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, independent - hits)) if share < 1 else 1.0
    return low, high


def reading(role: str, measured: Mapping[str, Any], bootstrap: Bootstrap, reference: str = "fresh") -> list[str]:
    """What a model's numbers mean, in sentences: of the leakage test, and of the attacks together.

    measured: its entry in privacy.json. reference: the kind of the reference records; resampled ones are other texts
    than those of test to a clean model too, so that Δ1 says nothing with them. Only what is set against the model
    before is read. A difference or an attack counts where it has the sign of leakage by a p-value corrected for the
    number of tests of this model (Holm) at 1 - level. Too few resamples give no p-value that small.
    """
    against = measured["against"]
    if against is None:
        sentence = f"{role}: not set against another model, and easier texts alone move Δ1 and Δ2: nothing is read."
        return [sentence] if "dlt" in measured else []
    signs = {"Δ2": 1} if reference == "resampled" else {"Δ1": -1, "Δ2": 1}
    deltas = {name: measured["dlt"][_KEYS[name]]["over_base"] for name in signs} if "dlt" in measured else {}
    named = {("mia", name): result["over_base"] for name, result in measured.get("mia", {}).items()}
    named |= {("dlt", name): over for name, over in deltas.items()}
    tests = {name: over for name, over in named.items() if over.get("p_value") is not None}
    corrected = holm({name: over["p_value"] for name, over in tests.items()})
    shows = [
        name for name, over in tests.items()
        if signs.get(name[1], 1) * over["value"] > 0 and corrected[name] < 1 - bootstrap.level
    ]  # fmt: skip
    undecided = ""
    if not shows and len(tests) * 2 / (bootstrap.resamples + 1) >= 1 - bootstrap.level:
        undecided = f"not decided: {bootstrap.resamples} resamples are too few for so many tests"
    sentences = []
    if "dlt" in measured:
        words = "; ".join(_SIGNS[name] for part, name in shows if part == "dlt")
        words = words or undecided or f"no sign of leakage in {' and '.join(signs)}"
        unread = "" if "Δ1" in signs else " Δ1 is not read: the resampled records differ from test's for any model."
        sentences.append(f"{role}, against {against}: {words} (corrected for {len(tests)} tests).{unread}")
    if "mia" in measured:
        works = [name for part, name in shows if part == "mia"]
        words = f"found by {', '.join(works)}" if works else "found by none"
        count = sum(part == "mia" for part, _ in tests)
        sentences.append(f"{role}, against {against}: of {count} attacks, membership is {words}.")
    return sentences
