"""How well a ranking finds what is relevant: trec_eval's measures, one number per query, through ir-measures.

ndcg_K: discounted cumulative gain of the first K, over that of the best order of all relevant documents; gains are the
grades as they stand (Järvelin and Kekäläinen, ACM TOIS 2002). map: mean of the precision at each relevant document,
those not listed counting 0. mrr: 1 over the rank of the first relevant one. recall_K: the fraction of all relevant
documents among the first K.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.core.errors import UserError
from patientdx.metrics.accuracy import check_rows, ratio
from patientdx.metrics.specification import Values, metric

REQUIRES = ("ir_measures",)
NAMES = ("ndcg_K", "map", "mrr", "recall_K")


@metric("mean over queries", greater_is_better=True, takes="counts", low=0, high=1)
def mean_over_queries(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Values:
    """The mean of one number per query, `score` (n,); `label` (n,) is not used."""
    score, label, weight = check_rows(score, label, weight)
    return ratio(score, np.ones(score.size), weight)


def check_names(names: Sequence[str], depth: int) -> None:
    """UserError for no names, a name that is not in `NAMES`, or a K outside 1 to `depth`, the length of the lists."""
    if not names:
        raise UserError(f"task.metrics names nothing: a ranking has {', '.join(NAMES)}.")
    for name in names:
        match = re.fullmatch(r"map|mrr|(?:ndcg|recall)_(\d+)", name)
        if match is None:
            raise UserError(
                f"task.metrics.{name}: a ranking has {', '.join(NAMES)}, with a whole number for K, as in ndcg_10."
            )
        if match[1] is not None and not 1 <= int(match[1]) <= depth:
            raise UserError(
                f"task.metrics.{name}: the lists are {depth} candidates long (task.depth), so K is 1 to {depth}."
            )


def per_query(
    names: Sequence[str], grades: Sequence[Sequence[int]], missed: Sequence[Sequence[int]]
) -> dict[str, NDArray[np.float64]]:
    """Each measure of each query, (m,) float64, in the order of the queries.

    grades: the grades of a query's list, best rank first, 0 for what is not relevant. missed: the grades of relevant
    documents that are not in the list. Raises ValueError for a query without a list or without a relevant document.
    """
    import ir_measures

    relevant, listed = {}, {}
    for number, (listed_grades, rest) in enumerate(zip(grades, missed, strict=True)):
        if not len(listed_grades) or not (any(listed_grades) or rest):
            raise ValueError("every query needs a list, and a document that is relevant")
        documents = {f"listed {rank}": int(grade) for rank, grade in enumerate(listed_grades)}
        relevant[str(number)] = documents | {f"missed {index}": int(grade) for index, grade in enumerate(rest)}
        # Scores that fall with the rank: the order is ours, and no tie is left for trec_eval to break.
        listed[str(number)] = {document: float(len(listed_grades) - rank) for rank, document in enumerate(documents)}
    measures = {name: ir_measures.parse_measure(_ir_measures_name(name)) for name in names}
    values: Mapping[Any, NDArray[np.float64]] = {measure: np.empty(len(grades)) for measure in measures.values()}
    for result in ir_measures.iter_calc(list(values), relevant, listed):
        values[result.measure][int(result.query_id)] = result.value
    return {name: values[measure] for name, measure in measures.items()}


def _ir_measures_name(name: str) -> str:
    stem, _, number = name.partition("_")
    return {"ndcg": "nDCG", "recall": "R", "map": "AP", "mrr": "RR"}[stem] + (f"@{number}" if number else "")
