"""Whether a language model answers at all, and how much of its score hangs on the wording of the question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kendalltau, rankdata

from patientdx.core.errors import UserError
from patientdx.metrics.bootstrap import Metric
from patientdx.metrics.calibration import checked
from patientdx.metrics.intervals import absent, estimates, on_scores
from patientdx.metrics.paired import difference_of
from patientdx.metrics.ranking import auroc

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Wording:
    """Probability of option 0, (n,), under another wording; `reverses` as in `patientdx.tasks.example.Probe`."""

    probability: ArrayLike
    reverses: bool = False


def abstention(mass: ArrayLike) -> dict[str, Any]:
    """How much probability went to the answers at all, p(yes) + p(no) of each row (n,): mean, quantiles, extremes.

    `below_half` is the share of rows in which the model would rather say something else. Raises ValueError for a mass
    that is not a number or does not lie between 0 and 1.
    """
    mass = np.asarray(mass, dtype=np.float64)
    # Sums of two rounded probabilities may pass 1 by a little.
    if mass.ndim != 1 or not mass.size or not ((mass >= 0) & (mass <= 1 + 1e-6)).all():
        raise ValueError("the mass on the answers must be numbers between 0 and 1, one a row")
    quantiles = zip(_QUANTILES, np.quantile(mass, _QUANTILES).tolist(), strict=True)
    return {
        "mean": float(mass.mean()),
        "quantiles": {f"{share:g}": value for share, value in quantiles},
        "lowest": float(mass.min()),
        "highest": float(mass.max()),
        "below_half": float((mass < 0.5).mean()),
    }


def wording_spread(
    question: ArrayLike,
    wordings: Mapping[str, Wording],
    label: ArrayLike,
    subject: ArrayLike,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """The question's probabilities (n,) beside those of other wordings of it, by name.

    A wording that `reverses` (asks for survival) is turned round before all else, so that in every number agreement is
    high. Returns
    - `auroc` of the question and `auroc_spread`, the highest AUROC minus the lowest over all wordings;
    - `spearman`: `names` (the question first, as "question") and `values`, rank correlations row by row, None where a
      score is constant;
    - `wordings`, by name: `reverses`, `auroc`, and `difference` from the question's AUROC with interval and p-value.
      Below 0 means that the wording costs so much; where it reverses, that the order fails to reverse by so much.
      `not_reversed` (or `not_kept`) is the share of pairs of rows, of those the question orders, that the wording
      orders otherwise or ties; chance is one half.

    Intervals by patient bootstrap. Raises ValueError as calibration metrics do, and UserError for wordings of another
    length.
    """
    question, label, _, _ = checked(question, label, None)
    turned = {}
    for name, wording in wordings.items():
        probability = np.asarray(wording.probability, dtype=np.float64)
        if probability.shape != question.shape:
            raise UserError(f"the wording {name} has {probability.size} scores for {question.size} rows")
        checked(probability, label, None)
        # Order is all that counts, and 1 - p would round small p to one value.
        turned[name] = -probability if wording.reverses else probability
    metrics: dict[tuple[str, ...], Metric] = {(): auroc}
    metrics |= {(name,): on_scores(auroc, score) for name, score in turned.items()}
    found, drawn = estimates(metrics, question, label, subject, resamples=resamples, level=level, seed=seed)
    values, patients = [one["value"] for one in found.values()], np.unique(np.asarray(subject)).size
    result: dict[str, Any] = {"auroc": found[()], "auroc_spread": max(values) - min(values)}
    result["spearman"] = _spearman(["question", *turned], [question, *turned.values()])
    result["wordings"] = {}
    for name, score in turned.items():
        apart = found[name,]["value"] - found[()]["value"]
        result["wordings"][name] = {
            "reverses": wordings[name].reverses,
            "auroc": found[name,],
            "difference": difference_of(apart, drawn[name,], drawn[()], patients, level),
            "not_reversed" if wordings[name].reverses else "not_kept": _disordered(question, score),
        }
    return result


def _spearman(names: list[str], scores: list[NDArray[np.float64]]) -> dict[str, Any]:
    """Rank correlation of every score with every other."""
    ranks = [rankdata(score) - (score.size + 1) / 2 for score in scores]
    products = [[float(a @ b) for b in ranks] for a in ranks]
    squares = [products[index][index] for index in range(len(ranks))]
    values = [
        [
            None if square * squares[row] == 0 else max(-1.0, min(1.0, product / (square * squares[row]) ** 0.5))
            for product, square in zip(products[row], squares, strict=True)
        ]
        for row in range(len(ranks))
    ]
    return {"names": names, "values": values}


def _disordered(question: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, Any]:
    """Of the pairs that the question orders, the share that the other score orders the other way or ties."""
    ordered = _pairs(question.size) - _tied(question)
    if not ordered:
        return absent("the question's score is the same for every row")
    both = ordered - _tied(other) + _tied(question, other)  # pairs that both order
    if both == 0:
        return {"value": 1.0, "pairs": ordered}
    # tau-b is (agreeing - disagreeing) / sqrt(pairs ordered by one * pairs ordered by the other).
    tau = float(kendalltau(question, other).statistic)
    balance = tau * (ordered * (_pairs(question.size) - _tied(other))) ** 0.5
    agreeing = round((both + balance) / 2)
    return {"value": (ordered - agreeing) / ordered, "pairs": ordered}


def _pairs(count: int) -> int:
    return count * (count - 1) // 2


def _tied(*scores: NDArray[np.float64]) -> int:
    """Pairs of rows that are equal in every one of the scores."""
    counts = np.unique(np.stack(scores), axis=1, return_counts=True)[1]
    return sum(_pairs(count) for count in counts.tolist())
