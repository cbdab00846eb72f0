"""Questions with two answers of one token each: responses are log masses of yes and no, (n, 2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from patientdx.evaluation.inference import Array, Request, batch_tokens
from patientdx.evaluation.kinds import Kind, Measures, Scored, TaskContext, Tokens, TrainingPrompts, texts_of
from patientdx.metrics import ranking
from patientdx.records.splits import check_splits
from patientdx.tasks.example import TaskData


def margin(responses: Array) -> Array:
    """(n,) log mass of the first option minus that of the second: yes against no."""
    return responses[:, 0] - responses[:, 1]


def probability(responses: Array) -> Array:
    """(n,) p(yes), the sigmoid of the margin."""
    return 1.0 / (1.0 + np.exp(-margin(responses)))


def mass(responses: Array) -> Array:
    """(n,) the part of the next-token distribution on any option: what is missing to 1 is abstention."""
    return np.exp(responses).sum(axis=1)


class Binary(Kind):
    """Whether an outcome happens; the only kind whose responses are probabilities of an outcome."""

    name = "binary"
    unit = "stay"
    gives_probability = True
    trainable = True
    cpu_batch_tokens = 1  # long prompts are faster one at a time
    version = None

    def check_rows(self, name: str, data: TaskData, splits: Sequence[str], metrics: Sequence[str]) -> None:
        """Both outcomes are needed in each split."""
        check_splits([(example.split, example.label or 0) for example in data.examples], splits)

    def encode(self, data: TaskData, tokenizer: Any, *, chat: bool, max_tokens: int, context: int | None) -> Any:
        """As `patientdx.lm.prompts.Prompts`."""
        from patientdx.lm.prompts import tokenise

        limit = min(max_tokens, context or max_tokens)
        return tokenise(tokenizer, list(map(texts_of, data.examples)), data.examples[0].options, chat=chat, limit=limit)

    def respond(self, request: Request) -> Array:
        """Log mass on yes and on no."""
        from patientdx.lm.binary import score

        tokens = batch_tokens(request.session, request.config, self.cpu_batch_tokens)
        return request.check_finite(request.scored(score, tokens, len(request.prompts.options)))

    def measures(self, context: TaskContext, rows: Sequence[int], responses: Array) -> Measures:
        """Every metric takes the probability and the label."""
        label = np.array([context.data.examples[i].label for i in rows])
        pair = probability(responses), label
        return Measures(list(rows), {name: pair for name, _ in context.metrics}, label.astype(bool))

    def describe(self, context: TaskContext, measures: Measures, responses: Array, in_words: bool) -> dict[str, Any]:
        """Size of the split, abstention, and how many different scores there are."""
        events = measures.events
        return {
            "n": len(events),
            "events": int(events.sum()),
            "prevalence": float(events.mean()),
            "patients": len(set(measures.clusters(context.data).tolist())),
            "abstention_mass": float(mass(responses).mean()) if in_words else None,
            "distinct_scores": len(np.unique(margin(responses))),
        }

    def columns(self, scored: Scored) -> dict[str, Any]:
        """Label, p(yes), margin and mass."""
        return {
            "label": np.array([scored.context.data.examples[i].label for i in scored.rows]),
            "probability": probability(scored.responses),
            "margin": margin(scored.responses),
            "mass": mass(scored.responses) if scored.in_words else pa.nulls(len(scored.rows), pa.float64()),
        }

    def curves(self, measures: Measures) -> dict[str, list[tuple[float, float]]]:
        """ROC and PR."""
        score, label = next(iter(measures.values.values()))
        return {"roc": ranking.roc_curve(score, label), "pr": ranking.pr_curve(score, label)}

    def has_targets(self, data: TaskData) -> bool:
        """The answer that is right, yes or no."""
        return bool(data.examples) and len(data.examples[0].options) > 1

    def targets(self, training: TrainingPrompts, numbers: Sequence[int]) -> Iterator[tuple[Tokens, int | Tokens]]:
        """Option 0 is the positive answer; the first way of writing an answer is the one that is taught."""
        options = training.prompts.options
        for i in numbers:
            yield training.prompts.ids[i], options[0 if training.data.examples[i].label else 1][0]


KIND = Binary()
