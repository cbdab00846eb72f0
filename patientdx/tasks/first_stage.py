"""From documents, queries and judgements to a ranking task: BM25 lists the candidates that a model reads.

BM25 as bm25s computes it (Lucene's form; Robertson and Zaragoza, 2009), words in lower case without English stop
words. b = 0.4 and k1 = 0.9 are those of the group's search over MIMIC notes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from patientdx.core.errors import UserError
from patientdx.records.parameters import check_numbers
from patientdx.records.splits import position
from patientdx.tasks.clinical import OPTIONS
from patientdx.tasks.example import Example, Ranking, TaskData, fingerprint

K1, B, DEPTH = 0.9, 0.4, 20
QUESTION = "Does the text above show what is searched for? Answer Yes or No."
VERSION = 1  # of the lists: raise it when the same documents give other lists


@dataclass(frozen=True)
class Query:
    """A query to the documents of `pool`, with the grade (1 or more) of each relevant document by its id.

    subject: the unit of the bootstrap, a patient or the query itself. kind: its group in tables.
    """

    uid: str
    subject: str
    split: str
    kind: str
    pool: str
    text: str
    grades: Mapping[str, int]


@dataclass(frozen=True)
class Search:
    """The keys of the first stage and the question, as conf/task/record_search.yaml explains them."""

    depth: int
    k1: float
    b: float
    question: str


def check_search(search: Search) -> None:
    """Raise UserError for a depth, k1 or b that is not valid."""
    check_numbers(depth=(search.depth, 1))
    for name, value, most in (("k1", search.k1, None), ("b", search.b, 1)):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not value >= 0 or (most is not None and value > most):
            raise UserError(f"task.{name}={value!r}: BM25's k1 is 0 or more, its b from 0 to 1.")


def bm25(documents: Sequence[str], queries: Sequence[str], search: Search) -> np.ndarray:
    """(queries, documents) float32: the score of each document for each query, 0 where they share no word."""
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # a line for every collection otherwise
    split = {"stopwords": "english", "show_progress": False}
    index = bm25s.BM25(k1=search.k1, b=search.b, method="lucene", backend="numpy")
    words = bm25s.tokenize(list(documents), return_ids=False, **split)
    if not any(words):
        return np.zeros((len(queries), len(documents)), dtype=np.float32)
    index.index(words, show_progress=False)
    scores = np.zeros((len(queries), len(documents)), dtype=np.float32)
    for row, of_query in enumerate(bm25s.tokenize(list(queries), return_ids=False, **split)):
        known = [str(word) for word in of_query if word in index.vocab_dict]
        if known:
            scores[row] = index.get_scores(known)
    return scores


def ranking_task(
    name: str,
    pools: Mapping[str, Mapping[str, str]],
    queries: Sequence[Query],
    search: Search,
    *,
    seed: int,
    settings: Mapping[str, Any],
    **rest: Any,
) -> TaskData:
    """The task: one example for each query and each of the first `search.depth` documents of its pool by BM25.

    `pools` maps a pool to its documents by id. Documents with the same score are ordered by a draw with `seed`.
    `rest` are further fields of TaskData.
    """
    check_search(search)
    numbers = {uid: number for number, uid in enumerate(uid for pool in pools.values() for uid in pool)}
    examples, columns = [], {"query": [], "document": [], "first_stage": [], "grade": []}
    missed, kinds = [], []
    scores = _scores(pools, queries, search)
    for number, query in enumerate(queries):
        pool = pools[query.pool]
        drawn = {uid: position("tie", seed, query.uid, uid) for uid in pool}
        order = sorted(zip(pool, scores[number].tolist(), strict=True), key=lambda pair: (-pair[1], drawn[pair[0]]))
        listed = order[: search.depth]
        for uid, score in listed:
            grade = query.grades.get(uid, 0)
            examples.append(_example(query, uid, pool[uid], grade, search.question))
            values = {"query": number, "document": numbers[uid], "first_stage": score, "grade": grade}
            for column, value in values.items():
                columns[column].append(value)
            kinds.append(query.kind)
        there = {uid for uid, _ in listed}
        missed.append(tuple(grade for uid, grade in sorted(query.grades.items()) if uid not in there))
    ranking = Ranking(
        **{column: tuple(scores) for column, scores in columns.items()},
        queries=tuple(query.uid for query in queries),
        missed=tuple(missed),
        documents=tuple(numbers),
        depth=search.depth,
    )
    used = {
        "task": name,
        "version": VERSION,
        "depth": search.depth,
        "k1": search.k1,
        "b": search.b,
        "question": search.question,
    }
    used |= {"seed": seed, **settings}
    lists = [ranking.queries, ranking.missed, ranking.first_stage, ranking.grade]
    return TaskData(
        name=name,
        kind="ranking",
        examples=tuple(examples),
        fingerprint=fingerprint(tuple(examples), used | {"lists": lists}),
        groups={"kind": tuple(kinds)} if len(set(kinds)) > 1 else {},
        ranking=ranking,
        **rest,
    )


def _scores(pools: Mapping[str, Mapping[str, str]], queries: Sequence[Query], search: Search) -> dict[int, np.ndarray]:
    """For each query, by number, the score of every document of its pool; a pool is indexed once."""
    by_pool: dict[str, list[int]] = {}
    for number, query in enumerate(queries):
        by_pool.setdefault(query.pool, []).append(number)
    scores: dict[int, np.ndarray] = {}
    for pool, these in by_pool.items():
        rows = bm25(list(pools[pool].values()), [queries[number].text for number in these], search)
        scores |= dict(zip(these, rows, strict=True))
    return scores


def _example(query: Query, uid: str, text: str, grade: int, question: str) -> Example:
    # The text first: what several queries ask of it then runs once.
    return Example(
        uid=f"{query.uid}/{uid}",
        subject=query.subject,
        split=query.split,
        prefix="Text:\n",
        context=text,
        suffix=f"\n\nSearch: {query.text}\n{question}",
        options=OPTIONS,
        label=int(grade > 0),
    )
