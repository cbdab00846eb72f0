"""Questions with any number of options of any length: responses are log-probabilities of the options, (n, k).

NaN where a question has fewer options than another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from patientdx.core.errors import UserError
from patientdx.evaluation.inference import Array, Request, batch_tokens
from patientdx.evaluation.kinds import Kind, Measures, Scored, TaskContext, Tokens, TrainingPrompts, texts_of
from patientdx.tasks.example import TaskData

# How an option is chosen: the largest sum of log-probabilities, or the largest per character, byte or token of the
# option. The first three are lm-evaluation-harness' own names.
RULES = ("acc", "acc_norm", "acc_bytes", "acc_tokens")


def require_known(context: TaskContext, known: Sequence[str]) -> list[str]:
    """The names of the task's metrics; UserError for one that is not among the `known`."""
    names = [name for name, _ in context.metrics]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UserError(
            f"task.metrics names {', '.join(unknown) or 'nothing'}; task={context.data.name} has {', '.join(known)}."
        )
    return names


class MultipleChoice(Kind):
    """Which option a model finds most probable."""

    name = "multiple_choice"
    trainable = True

    def encode(self, data: TaskData, tokenizer: Any, *, chat: bool, max_tokens: int, context: int | None) -> Any:
        """As `patientdx.lm.multiple_choice.OptionPrompts`."""
        from patientdx.lm.multiple_choice import tokenise_options

        options = [[text for (text,) in example.options] for example in data.examples]
        limit = min(max_tokens, context or max_tokens)
        return tokenise_options(tokenizer, list(map(texts_of, data.examples)), options, chat=chat, limit=limit)

    def respond(self, request: Request) -> Array:
        """Log-probability of each option, in nats."""
        from patientdx.lm.multiple_choice import score_options

        prompts = request.prompts
        tokens = batch_tokens(request.session, request.config, self.cpu_batch_tokens)
        count = np.array([[len(prompts.continuations[i])] for i in request.rows])
        scores = request.scored(score_options, tokens, prompts.width)
        return request.check_finite(scores, np.arange(prompts.width) < count)

    def measures(self, context: TaskContext, rows: Sequence[int], responses: Array) -> Measures:
        """The number of the chosen option beside that of the right one, under each rule."""
        names = require_known(context, RULES)
        examples = [context.data.examples[i] for i in rows]
        right = np.array([example.gold for example in examples], dtype=np.float64)
        texts = [[text for (text,) in example.options] for example in examples]
        sizes = {
            "acc": [[1] * len(options) for options in texts],
            "acc_norm": [[len(text) for text in options] for options in texts],
            "acc_bytes": [[len(text.encode()) for text in options] for options in texts],
            "acc_tokens": [[len(tokens) for tokens in context.prompts.continuations[i]] for i in rows],
        }
        values = {name: (_largest(responses, sizes[name]), right) for name in names}
        return Measures(list(rows), values, np.zeros(len(rows), dtype=bool))

    def columns(self, scored: Scored) -> dict[str, Any]:
        """What was chosen and what is right; `log_p`: the log-probability of each option, in nats."""
        columns = super().columns(scored)
        return columns | {"log_p": [row[~np.isnan(row)] for row in scored.responses]}

    def has_targets(self, data: TaskData) -> bool:
        """The option that is right."""
        return bool(data.examples) and len(data.examples[0].options) > 1

    def targets(self, training: TrainingPrompts, numbers: Sequence[int]) -> Iterator[tuple[Tokens, int | Tokens]]:
        """What is scored is taught: the right option."""
        for i in numbers:
            yield training.prompts.ids[i], training.prompts.continuations[i][training.data.examples[i].gold]


def _largest(scores: Array, sizes: list[list[int]]) -> Array:
    """The number of each row's largest score by size, the first where several are."""
    width = scores.shape[1]
    size = np.array([row + [1] * (width - len(row)) for row in sizes], dtype=np.float64)
    return np.where(np.isnan(scores), -np.inf, scores / size).argmax(axis=1).astype(np.float64)


KIND = MultipleChoice()
