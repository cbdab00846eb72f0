"""Whether a language model answers at all, and how much its score depends on the wording of the question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kendalltau, rankdata

from patientdx.core.errors import UserError
from patientdx.metrics.bootstrap import Bootstrap, BootstrapOptions
from patientdx.metrics.calibration import check_probabilities
from patientdx.metrics.intervals import absent, estimates, on_scores
from patientdx.metrics.paired import difference_of
from patientdx.metrics.ranking import auroc
from patientdx.metrics.specification import Metric

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class VariantScores:
    """Probability of option 0, (n,), under another wording; `inverted` where option 0 means the opposite there."""

    probability: ArrayLike
    inverted: bool = False


def abstention(mass: ArrayLike) -> dict[str, Any]:
    """How much probability goes to the answers at all, p(yes) + p(no) of each row (n,): mean, quantiles, extremes.

    `below_half` is the fraction of rows in which something else is likelier than an answer. Raises ValueError for a
    mass that is not a number or does not lie between 0 and 1.
    """
    mass = np.asarray(mass, dtype=np.float64)
    # Sums of two rounded probabilities may pass 1 by a little.
    if mass.ndim != 1 or not mass.size or not ((mass >= 0) & (mass <= 1 + 1e-6)).all():
        raise ValueError("the mass on the answers must be numbers between 0 and 1, one per row")
    quantiles = zip(_QUANTILES, np.quantile(mass, _QUANTILES).tolist(), strict=True)
    return {
        "mean": float(mass.mean()),
        "quantiles": {f"{fraction:g}": value for fraction, value in quantiles},
        "lowest": float(mass.min()),
        "highest": float(mass.max()),
        "below_half": float((mass < 0.5).mean()),
    }


def variant_spread(
    question: ArrayLike,
    variants: Mapping[str, VariantScores],
    label: ArrayLike,
    subject: ArrayLike,
    **options: Unpack[BootstrapOptions],
) -> dict[str, Any]:
    """The question's probabilities (n,) beside those of variants of its wording, by name.

    An inverted variant (it asks for survival) has its order reversed first, so that in every number agreement is high.
    Returns
    - `auroc` of the question and `auroc_spread`, the highest AUROC minus the lowest over all wordings;
    - `spearman`: `names` (the question first, as "question") and `values`, rank correlations row by row, None where a
      score is constant;
    - `wordings`, by name: `reverses` (inverted), `auroc`, and `difference` from the question's AUROC with interval and
      p-value. Below 0 means that the variant costs so much; where it is inverted, that the order fails to reverse by
      so much. `not_reversed` (or `not_kept`) is the fraction of pairs of rows, of those the question orders, that the
      variant orders otherwise or ties; chance is one half.

    Intervals by patient. Raises ValueError as calibration metrics do, and UserError for variants of another
    length.
    """
    question, label, _, _ = check_probabilities(question, label, None)
    scores = {}
    for name, variant in variants.items():
        probability = np.asarray(variant.probability, dtype=np.float64)
        if probability.shape != question.shape:
            raise UserError(f"the wording {name} has {probability.size} scores for {question.size} rows")
        check_probabilities(probability, label, None)
        # Only the order counts, and 1 - p would round small p to one value.
        scores[name] = -probability if variant.inverted else probability
    metrics: dict[tuple[str, ...], Metric] = {(): auroc}
    metrics |= {(name,): on_scores(auroc, score) for name, score in scores.items()}
    areas, drawn = estimates(metrics, question, label, subject, **options)
    values, patients = [area["value"] for area in areas.values()], np.unique(np.asarray(subject)).size
    result: dict[str, Any] = {"auroc": areas[()], "auroc_spread": max(values) - min(values)}
    result["spearman"] = _spearman(["question", *scores], [question, *scores.values()])
    result["wordings"] = {}
    for name, score in scores.items():
        difference = areas[name,]["value"] - areas[()]["value"]
        level = options.get("level", Bootstrap.level)
        result["wordings"][name] = {
            "reverses": variants[name].inverted,
            "auroc": areas[name,],
            "difference": difference_of(difference, drawn[name,], drawn[()], patients, level),
            "not_reversed" if variants[name].inverted else "not_kept": _discordant(question, score),
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


def _discordant(question: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, Any]:
    """Of the pairs that the question orders, the fraction that the other score orders the other way or ties."""
    ordered = _pairs(question.size) - _tied(question)
    if not ordered:
        return absent("the question's score is the same for every row")
    both = ordered - _tied(other) + _tied(question, other)  # pairs that both order
    if both == 0:
        return {"value": 1.0, "pairs": ordered}
    # tau-b is (agreeing - disagreeing) / sqrt(pairs ordered by one * pairs ordered by the other).
    tau = float(np.asarray(kendalltau(question, other))[0])
    balance = tau * (ordered * (_pairs(question.size) - _tied(other))) ** 0.5
    agreeing = round((both + balance) / 2)
    return {"value": (ordered - agreeing) / ordered, "pairs": ordered}


def _pairs(count: int) -> int:
    return count * (count - 1) // 2


def _tied(*scores: NDArray[np.float64]) -> int:
    """Pairs of rows that are equal in every one of the scores."""
    counts = np.unique(np.stack(scores), axis=1, return_counts=True)[1]
    return sum(_pairs(count) for count in counts.tolist())
