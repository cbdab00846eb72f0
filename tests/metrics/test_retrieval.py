"""Measures of rankings, against their definitions."""

import math

import numpy as np
import pytest

from patientdx.core.errors import UserError
from patientdx.metrics.bootstrap import interval
from patientdx.metrics.retrieval import check_names, mean_over_queries, per_query

NAMES = ("ndcg_3", "ndcg_20", "map", "mrr", "recall_1", "recall_4")


def by_definition(grades, missed):
    """The same measures in plain Python, each as its paper has it."""
    relevant = sum(grade > 0 for grade in grades) + len(missed)

    def gain(ordered, k):
        return sum(grade / math.log2(rank + 2) for rank, grade in enumerate(ordered[:k]))

    best = sorted([*grades, *missed], reverse=True)
    hits = [rank for rank, grade in enumerate(grades, 1) if grade > 0]
    return {
        "ndcg_3": gain(grades, 3) / gain(best, 3),
        "ndcg_20": gain(grades, 20) / gain(best, 20),
        "map": sum((k + 1) / rank for k, rank in enumerate(hits)) / relevant,
        "mrr": 1 / hits[0] if hits else 0.0,
        "recall_1": sum(rank <= 1 for rank in hits) / relevant,
        "recall_4": sum(rank <= 4 for rank in hits) / relevant,
    }


def test_every_measure_is_that_of_its_definition():
    random = np.random.default_rng(0)
    grades_by_query, missed = [], []
    while len(grades_by_query) < 60:
        grades, rest = random.integers(0, 3, random.integers(1, 16)).tolist(), [1] * int(random.integers(0, 3))
        if any(grades) or rest:
            grades_by_query.append(grades)
            missed.append(rest)
    result = per_query(NAMES, grades_by_query, missed)
    for number, (grades, rest) in enumerate(zip(grades_by_query, missed, strict=True)):
        expected = by_definition(grades, rest)
        assert {name: result[name][number] for name in NAMES} == pytest.approx(expected)


def test_what_the_first_stage_missed_counts_against_a_ranking():
    result = per_query(NAMES, [[1, 0], [1, 0], [0, 0]], [[], [2], [1]])
    assert result["ndcg_3"].tolist() == pytest.approx([1, 1 / (2 + 1 / math.log2(3)), 0])
    assert result["map"].tolist() == [1, 0.5, 0]
    assert result["recall_4"].tolist() == [1, 0.5, 0]


@pytest.mark.parametrize(("grades_by_query", "missed"), [([[0, 0]], [[]]), ([[]], [[1]])])
def test_a_query_without_a_list_or_without_anything_relevant_has_no_measure(grades_by_query, missed):
    with pytest.raises(ValueError, match="every query needs a list, and a document that is relevant"):
        per_query(["map"], grades_by_query, missed)


def test_the_mean_takes_weights_as_metrics_do():
    score = [0.0, 0.5, 1.0]
    assert mean_over_queries(score, np.ones(3)) == 0.5
    weight = np.array([[2, 0, 1], [0, 0, 3]])
    assert mean_over_queries(score, np.ones(3), weight).tolist() == pytest.approx([1 / 3, 1])
    item = interval(mean_over_queries, np.arange(20) / 20, np.ones(20), np.arange(20), resamples=200)
    assert item.low < item.value < item.high


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ndcg"], r"task\.metrics\.ndcg: a ranking has ndcg_K, map, mrr, recall_K, with a whole number for K"),
        (["map_3"], r"task\.metrics\.map_3: a ranking has"),
        (["map", "recall_x"], r"task\.metrics\.recall_x: a ranking has"),
        (["ndcg_0"], r"task\.metrics\.ndcg_0: the lists are 10 candidates long \(task\.depth\), so K is 1 to 10"),
        (["recall_11"], r"task\.metrics\.recall_11: the lists are 10 candidates long"),
        ([], "task.metrics names nothing: a ranking has"),
    ],
)
def test_an_unknown_measure_or_k_is_refused(names, message):
    with pytest.raises(UserError, match=message):
        check_names(names, 10)


def test_known_measures_pass():
    check_names(["ndcg_10", "recall_1", "map", "mrr"], 10)
