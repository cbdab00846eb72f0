"""Yes or no for each candidate of a query, which puts them in order: responses are log masses of yes and no, (n, 2).

The first stage that found the candidates responds with its own scores, (n, 1). Everything is counted in queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from patientdx.evaluation.inference import Array, Request, batch_tokens
from patientdx.evaluation.kinds import Kind, Measures, Scored, TaskContext, ranking_of, require_units, texts_of
from patientdx.evaluation.kinds.binary import margin, mass, probability
from patientdx.metrics.retrieval import check_names, per_query
from patientdx.tasks.example import TaskData


class Ranking(Kind):
    """In which order a model puts the candidates of a query."""

    name = "ranking"
    unit = "query"

    def check_rows(self, name: str, data: TaskData, splits: Sequence[str], metrics: Sequence[str]) -> None:
        """The metrics must fit the depth, and each split needs two queries, or patients that they are about."""
        check_names(metrics, ranking_of(data).depth)
        require_units(name, [split for split, _ in dict.fromkeys((e.split, e.subject) for e in data.examples)], splits)

    def encode(self, data: TaskData, tokenizer: Any, *, chat: bool, max_tokens: int, context: int | None) -> Any:
        """As `patientdx.lm.ranking.PairPrompts`."""
        from patientdx.lm.ranking import tokenise_pairs

        documents, options = ranking_of(data).document, data.examples[0].options
        limit = min(max_tokens, context or max_tokens)
        return tokenise_pairs(tokenizer, list(map(texts_of, data.examples)), options, documents, chat=chat, limit=limit)

    def respond(self, request: Request) -> Array:
        """Log mass on yes and on no."""
        from patientdx.lm.binary import score

        tokens = batch_tokens(request.session, request.config, self.cpu_batch_tokens)
        return request.check_finite(request.scored(score, tokens, len(request.prompts.options)))

    def measures(self, context: TaskContext, rows: Sequence[int], responses: Array) -> Measures:
        """Each metric's value for each query, beside 1."""
        ranking, lists = ranking_of(context.data), rank_candidates(context.data, rows, responses)
        grades = [[ranking.grade[i] for i in numbers] for numbers in lists]
        missed = [ranking.missed[ranking.query[numbers[0]]] for numbers in lists]
        values = per_query([name for name, _ in context.metrics], grades, missed)
        ones = np.ones(len(lists))
        pairs = {name: (value, ones) for name, value in values.items()}
        return Measures([numbers[0] for numbers in lists], pairs, np.zeros(len(lists), dtype=bool))

    def describe(self, context: TaskContext, measures: Measures, responses: Array, in_words: bool) -> dict[str, Any]:
        """How many queries and candidates."""
        abstention = float(mass(responses).mean()) if in_words else None
        return {"n": len(measures.examples), "candidates": len(responses), "abstention_mass": abstention}

    def unit_of(self, data: TaskData, row: int) -> int:
        """The query."""
        return ranking_of(data).query[row]

    def unit_ids(self, data: TaskData, measures: Measures) -> list[str]:
        """The id of each query."""
        return [ranking_of(data).queries[ranking_of(data).query[i]] for i in measures.examples]

    def columns(self, scored: Scored) -> dict[str, Any]:
        """Each query's value beside 1, and its list, best first: `documents` (hashed ids), their `grades`, and `p_yes`.

        `p_yes` is null for the first stage.
        """
        ranking, lists = (
            ranking_of(scored.context.data),
            rank_candidates(scored.context.data, scored.rows, scored.responses),
        )
        documents = scored.hashed(ranking.documents)
        columns: dict[str, Any] = {}
        for name, (value, right) in scored.measures.values.items():
            columns |= {name: value, f"{name}_right": right}
        probable = (
            dict(zip(scored.rows, probability(scored.responses).tolist(), strict=True)) if scored.in_words else {}
        )
        shown = [[probable[i] for i in numbers] if probable else None for numbers in lists]
        return columns | {
            "documents": [[documents[ranking.document[i]] for i in numbers] for numbers in lists],
            "grades": [[ranking.grade[i] for i in numbers] for numbers in lists],
            "p_yes": pa.array(shown, pa.list_(pa.float64())),
        }


def rank_candidates(data: TaskData, rows: Sequence[int], responses: Array) -> list[list[int]]:
    """Example numbers of each query's candidates, best first, query after query; ties keep the first stage's order."""
    scores = margin(responses) if responses.shape[1] > 1 else responses[:, 0]
    score = dict(zip(rows, scores.tolist(), strict=True))
    queries = (list(numbers) for _, numbers in groupby(rows, key=ranking_of(data).query.__getitem__))
    return [sorted(numbers, key=lambda i: -score[i]) for numbers in queries]


KIND = Ranking()
