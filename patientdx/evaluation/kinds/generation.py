"""Answers in a model's own words: generated, judged by the task, kept as numbers, and as texts where the data is open.

Responses are (n, k + 2): the k numbers of the metrics, then how many tokens the answer has, and 1 where it ended before
it was cut off.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from patientdx.core import distributed
from patientdx.core.errors import UserError
from patientdx.evaluation.inference import GPU_BATCH_TOKENS, Array, Request, batch_tokens
from patientdx.evaluation.kinds import (
    Kind,
    Measures,
    TaskContext,
    Tokens,
    TrainingPrompts,
    generation_of,
    texts_of,
)
from patientdx.evaluation.kinds import too_long as too_long_error
from patientdx.evaluation.kinds.multiple_choice import require_known
from patientdx.evaluation.store import read_sealed_json, write_sealed_json, write_text
from patientdx.metrics import text_overlap
from patientdx.tasks.example import TaskData

TEXTS = "answers.jsonl"  # of a run's folder
BERTSCORE = "bertscore"
VLLM = "vllm"
_UNBOUNDED = 1 << 30  # tokens, where a model's configuration names no longest context

Judge = Callable[[int, str], Mapping[str, Sequence[float]]]


def judge_of(data: TaskData) -> tuple[Judge, dict[str, int]]:
    """What judges the answer to an example, and how many numbers it gives for each metric, in their order."""
    generation = generation_of(data)
    if generation.judge is not None:
        return generation.judge, dict.fromkeys(generation.metrics, 2)
    return lambda i, text: text_overlap.compare(text, data.examples[i].reference), text_overlap.NUMBERS


def widths(data: TaskData) -> dict[str, int]:
    """The same counts of all metrics that are kept of an answer, those that take an encoder among them."""
    return judge_of(data)[1] | ({} if generation_of(data).encoder is None else {BERTSCORE: 2})


class Generation(Kind):
    """What a model writes."""

    name = "generation"
    trainable = True
    cpu_batch_tokens = GPU_BATCH_TOKENS  # on a CPU too: each new token reads all of the weights
    version = 2

    def metrics(self, metrics: tuple[tuple[str, str], ...], data: TaskData) -> tuple[tuple[str, str], ...]:
        """Without the one that takes an encoder where there is none."""
        return tuple(pair for pair in metrics if pair[0] != BERTSCORE or generation_of(data).encoder is not None)

    def encode(self, data: TaskData, tokenizer: Any, *, chat: bool, max_tokens: int, context: int | None) -> Any:
        """As `patientdx.lm.prompts.Prompts`, with room for the answer in the model's context."""
        from patientdx.lm.prompts import tokenise

        length = generation_of(data).length
        room = min(max_tokens + length, context or max_tokens + length) - length
        if room < 1:
            raise UserError(
                f"task.new_tokens={length} leaves no room for a question in the model's context of "
                f"{room + length} tokens. Use fewer."
            )
        limit = min(max_tokens, context or max_tokens, room)
        return tokenise(tokenizer, list(map(texts_of, data.examples)), (), chat=chat, limit=limit)

    def respond(self, request: Request) -> Array:
        """The judged answers. The texts of an open task are kept beside the responses, by the same key."""
        from patientdx.lm.bertscore import bertscore, load_encoder
        from patientdx.lm.load import load_tokenizer

        config, data, rows = request.config, request.data, request.rows
        device, generation = request.session.accelerator(config.inference.device).device, generation_of(data)
        tokenizer = load_tokenizer(
            request.session.parents(config.merge_config.spec, config.cache).checkpoints[0].folder
        )
        judge, counts = judge_of(data)
        # An encoder that cannot be loaded is reported before a model generates anything.
        folder = generation.encoder
        encoder = folder and request.session.remember("encoder", (folder, device), lambda: load_encoder(folder, device))

        def judged(shard: tuple[int, int]) -> tuple[list[int], list[tuple[str, list[float]]]]:
            positions, continuations, texts = _generate(request, tokenizer, shard)
            similar: list[tuple[float, ...]] = [()] * len(positions)
            if encoder:
                references = [data.examples[rows[position]].reference for position in positions]
                similar = [(value, 1.0) for value in bertscore(encoder, texts, references)]
            numbers = []
            for position, text, continuation, more in zip(positions, texts, continuations, similar, strict=True):
                verdict = judge(rows[position], text)
                points = [float(part) for name in counts for part in verdict[name]]
                numbers.append([*points, *more, len(continuation.ids), continuation.ended])
            return positions, list(zip(texts, numbers, strict=True))

        responses, texts = np.empty((len(rows), sum(widths(data).values()) + 2)), [""] * len(rows)
        for positions, pairs in request.in_shards(judged):
            for position, (text, values) in zip(positions, pairs, strict=True):
                texts[position], responses[position] = text, values
        if data.open_data and request.key is not None:
            content, path = {"key": request.key, "texts": texts}, _texts_path(config.output / "scores", request.key)
            distributed.run_on_all_ranks(lambda: write_sealed_json(content, path) if request.is_first else None)
        request.timer.record("scoring")
        return responses

    def measures(self, context: TaskContext, rows: Sequence[int], responses: Array) -> Measures:
        """What each metric makes of an answer, (n,) or (n, k), beside what a right one has."""
        known: dict[str, tuple[Array, Array]] = {}
        start = 0
        for name, count in widths(context.data).items():
            *parts, right = responses[:, start : start + count].T
            known[name] = (parts[0] if len(parts) == 1 else np.stack(parts, axis=1), right)
            start += count
        known["cut_off"] = (1 - responses[:, -1], np.ones(len(responses)))
        names = require_known(context, list(known))
        return Measures(list(rows), {name: known[name] for name in names}, np.zeros(len(responses), dtype=bool))

    def describe(self, context: TaskContext, measures: Measures, responses: Array, in_words: bool) -> dict[str, Any]:
        """How long answers are, how many ended by themselves and how many are empty."""
        length, ended = responses[:, -2:].T
        empty = float((length == 0).mean())
        return {"n": len(responses), "mean_tokens": float(length.mean()), "ended": float(ended.mean()), "empty": empty}

    def write_texts(
        self, context: TaskContext, keys: Mapping[tuple[str, str], str], scores: Path, folder: Path
    ) -> None:
        """All answers of an open task as answers.jsonl: question, split, model and text, one a line; else nothing."""
        lines: list[dict[str, Any]] = []
        for (role, split), key in keys.items():
            stored = read_sealed_json(_texts_path(scores, key))
            if stored is None or stored["key"] != key:
                continue  # scores without their texts
            for i, text in zip(context.rows[split], stored["texts"], strict=True):
                lines.append({"id": context.data.examples[i].uid, "split": split, "role": role, "answer": text})
        if context.data.open_data and lines:
            write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), folder / TEXTS)

    def has_targets(self, data: TaskData) -> bool:
        """References, where rules do not judge instead."""
        return any(example.reference for example in data.examples)

    def training_limit(self, max_tokens: int, longest: int) -> int:
        """The prompts are those of scoring; `targets` shortens one that does not fit with its reference."""
        return longest

    def targets(self, training: TrainingPrompts, numbers: Sequence[int]) -> Iterator[tuple[Tokens, int | Tokens]]:
        """The reference and the token that ends it, behind the very prompt of scoring, cut where they do not fit."""
        from patientdx.lm.multiple_choice import tokenise_options

        finetune, data, tokenizer = training.finetune, training.data, training.spec.load_tokenizer()
        longest = training.spec.context or _UNBOUNDED
        longest = min(longest, finetune.max_tokens or longest)
        end = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        examples = [data.examples[i] for i in numbers]
        if missing := sum(not example.reference for example in examples):
            raise UserError(
                f"finetune={finetune.hyperparameters.method}: {missing} of {len(examples)} examples of "
                f"task={data.name} have no reference to teach. Leave them out of its files."
            )
        chat = training.spec.chat if data.chat is None else data.chat
        references = [[example.reference] for example in examples]
        try:
            # Its limit leaves out the last token of an option, which is read by nobody; here the end comes behind it.
            cut = tokenise_options(tokenizer, list(map(texts_of, examples)), references, chat=chat, limit=longest - 2)
        except UserError as error:
            most = max(len(ids) for ids in tokenizer([example.reference for example in examples])["input_ids"])
            raise too_long_error(finetune, longest, error, f"; the longest answer has {most}") from None
        for i, ids, (answer,) in zip(numbers, cut.ids, cut.continuations, strict=True):
            fits = len(training.prompts.ids[i]) + len(answer) + len(end) <= longest
            yield training.prompts.ids[i] if fits else ids, (*answer, *end)


def _generate(request: Request, tokenizer: Any, shard: tuple[int, int]) -> tuple[list[int], Sequence[Any], list[str]]:
    """Places among the rows, what was generated there, and its text; vLLM does all rows in one process."""
    from patientdx.lm import vllm
    from patientdx.lm.generate import end_tokens, generate, texts

    config, generation = request.config, generation_of(request.data)

    def stopped(ids: Sequence[int]) -> bool:
        text = tokenizer.decode(ids, skip_special_tokens=True)
        return any(stop in text for stop in generation.stops)

    if config.inference.generator == VLLM:
        if shard[1] > 1:
            raise UserError(f"generator=vllm fills a GPU by itself, but {shard[1]} processes run. Start one.")
        options = {"length": generation.length, "stops": generation.stops, "dtype": config.inference.dtype}
        with request.saved_model() as folder:
            positions, continuations = vllm.generate(folder, tokenizer, request.prompts, request.rows, **options)
    else:
        model = request.model()
        positions, continuations = generate(
            model,
            request.prompts,
            request.rows,
            length=generation.length,
            ends=end_tokens(model, tokenizer),
            batch_tokens=batch_tokens(request.session, config, KIND.cpu_batch_tokens),
            stopped=stopped if generation.stops else None,
            shard=shard,
            label=request.system.role,
        )
    return positions, continuations, list(texts(tokenizer, continuations, generation.stops))


def _texts_path(scores: Path, key: str) -> Path:
    return scores / f"{key}.texts.json"


KIND = Generation()
