"""From documents, queries and what is relevant to a task of kind ranking: BM25 lists the candidates that a model reads.

BM25 as bm25s works it out (Lucene's form; Robertson and Zaragoza, 2009), words in small letters without English stop
words. b = 0.4 and k1 = 0.9 are those of the group's search over MIMIC notes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from patientdx.core.errors import UserError
from patientdx.records.splits import position
from patientdx.tasks.example import Example, Ranking, TaskData, fingerprint
from patientdx.tasks.prediction import OPTIONS, check_numbers

K1, B, DEPTH = 0.9, 0.4, 20
QUESTION = "Does the text above show what is searched for? Answer Yes or No."
VERSION = 1  # of the lists: raise it when the same documents come to give others


@dataclass(frozen=True)
class Query:
    """What is looked for in the documents of `pool`, with the grade (1 or more) of each that is relevant, by its id.

    subject: what a bootstrap draws, a patient or the query itself. kind: for a table by kinds of query.
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
    """How candidates are listed and asked about, as conf/task/record_search.yaml explains it."""

    depth: int
    k1: float
    b: float
    question: str


def check_search(how: Search) -> None:
    """UserError for a depth, k1 or b that will not do."""
    check_numbers(depth=(how.depth, 1))
    for name, value, most in (("k1", how.k1, None), ("b", how.b, 1)):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not value >= 0 or (most is not None and value > most):
            raise UserError(f"task.{name}={value!r}: BM25's k1 is 0 or more, its b from 0 to 1.")


def bm25(documents: Sequence[str], queries: Sequence[str], how: Search) -> np.ndarray:
    """(queries, documents) float32: the score of each document for each query, 0 where they share no word."""
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # a line for every collection otherwise
    split = {"stopwords": "english", "show_progress": False}
    index = bm25s.BM25(k1=how.k1, b=how.b, method="lucene", backend="numpy")
    words = bm25s.tokenize(list(documents), return_ids=False, **split)
    if not any(words):
        return np.zeros((len(queries), len(documents)), dtype=np.float32)
    index.index(words, show_progress=False)
    found = np.zeros((len(queries), len(documents)), dtype=np.float32)
    for row, asked in enumerate(bm25s.tokenize(list(queries), return_ids=False, **split)):
        known = [word for word in asked if word in index.vocab_dict]
        if known:
            found[row] = index.get_scores(known)
    return found


def searched(
    name: str,
    pools: Mapping[str, Mapping[str, str]],
    queries: Sequence[Query],
    how: Search,
    *,
    seed: int,
    settings: Mapping[str, Any],
    **rest: Any,
) -> TaskData:
    """The task: each query beside the `how.depth` documents of its pool that BM25 puts first, one example each.

    `pools` maps a pool to its documents by id. Documents with the same score stand in an order drawn with `seed`.
    `rest` are further fields of the task.
    """
    check_search(how)
    numbers = {uid: number for number, uid in enumerate(uid for pool in pools.values() for uid in pool)}
    examples, columns = [], {"query": [], "document": [], "first_stage": [], "grade": []}
    missed, kinds = [], []
    scores = _scores(pools, queries, how)
    for number, query in enumerate(queries):
        pool = pools[query.pool]
        drawn = {uid: position("tie", seed, query.uid, uid) for uid in pool}
        order = sorted(zip(pool, scores[number].tolist(), strict=True), key=lambda one: (-one[1], drawn[one[0]]))
        listed = order[: how.depth]
        for uid, score in listed:
            grade = query.grades.get(uid, 0)
            examples.append(_example(query, uid, pool[uid], grade, how.question))
            values = {"query": number, "document": numbers[uid], "first_stage": score, "grade": grade}
            for column, value in values.items():
                columns[column].append(value)
            kinds.append(query.kind)
        there = {uid for uid, _ in listed}
        missed.append(tuple(grade for uid, grade in sorted(query.grades.items()) if uid not in there))
    ranking = Ranking(
        **{column: tuple(found) for column, found in columns.items()},
        queries=tuple(query.uid for query in queries),
        missed=tuple(missed),
        documents=tuple(numbers),
        depth=how.depth,
    )
    used = {"task": name, "version": VERSION, "depth": how.depth, "k1": how.k1, "b": how.b, "question": how.question}
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


def _scores(pools: Mapping[str, Mapping[str, str]], queries: Sequence[Query], how: Search) -> dict[int, np.ndarray]:
    """For each query, by number, the score of every document of its pool; a pool is indexed once."""
    asked: dict[str, list[int]] = {}
    for number, query in enumerate(queries):
        asked.setdefault(query.pool, []).append(number)
    found: dict[int, np.ndarray] = {}
    for pool, these in asked.items():
        rows = bm25(list(pools[pool].values()), [queries[number].text for number in these], how)
        found |= dict(zip(these, rows, strict=True))
    return found


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
