"""Answers in a model's own words: said, judged by the task, kept as numbers, and as texts where the data is open."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from patientdx.checkpoints.patient_mark import mark
from patientdx.checkpoints.save import save
from patientdx.checkpoints.source import holds_patients
from patientdx.core import distributed
from patientdx.core.errors import UserError
from patientdx.evaluation import finetuned, session
from patientdx.evaluation.config.sections import RunConfig
from patientdx.evaluation.inference import GPU_BATCH_TOKENS, Timer, batch_tokens, filled
from patientdx.evaluation.merge_inputs import recipe
from patientdx.evaluation.plan import Plan, System
from patientdx.evaluation.store import write_text
from patientdx.lm import vllm
from patientdx.lm.bertscore import bertscore, load_encoder
from patientdx.lm.generate import end_tokens, generate, texts
from patientdx.lm.load import load_tokenizer
from patientdx.metrics import text_overlap
from patientdx.tasks.example import TaskData

TEXTS = "answers.jsonl"  # of a run's folder
BERTSCORE = "bertscore"
Judge = Callable[[int, str], Mapping[str, Sequence[float]]]


def judging(data: TaskData) -> tuple[Judge, dict[str, int]]:
    """What judges the answer to an example in words, and how many numbers it gives for each metric, in their order."""
    how = data.generation
    if how.judge is not None:
        return how.judge, dict.fromkeys(how.metrics, 2)
    return lambda i, text: text_overlap.compare(text, data.examples[i].reference), text_overlap.NUMBERS


def numbers(data: TaskData) -> dict[str, int]:
    """The same counts of all metrics that are kept of an answer, those that take an encoder among them."""
    return judging(data)[1] | ({} if data.generation.encoder is None else {BERTSCORE: 2})


def answers(config: RunConfig, asked: Plan, point: System, rows: Sequence[int], key: str, clock: Timer) -> np.ndarray:
    """(n, k + 2) float64: the k `numbers` of each answer, then its tokens, and 1 where it ended before it was cut off.

    All processes say and judge their share. The texts of an open task are left beside the scores, by the same `key`.
    """
    where, how = session.accelerator(config.inference.device), asked.data.generation
    judge, widths = judging(asked.data)
    by_vllm = config.inference.generator == vllm.NAME
    if by_vllm and where.num_processes > 1:
        raise UserError(f"generator=vllm fills a GPU by itself, but {where.num_processes} processes run. Start one.")
    tokenizer = load_tokenizer(asked.opened.checkpoints[0].folder)
    # An encoder that cannot be loaded is known before a model has said anything.
    encoder = None if how.encoder is None else load_encoder(how.encoder, where.device)

    def stopped(ids: Sequence[int]) -> bool:
        text = tokenizer.decode(ids, skip_special_tokens=True)
        return any(stop in text for stop in how.stops)

    def share() -> tuple[list[int], list[tuple[str, list[float]]]]:
        if by_vllm:
            with _written(config, point, clock) as folder:
                told = {"length": how.length, "stops": how.stops, "dtype": config.inference.dtype}
                places, found = vllm.generate(folder, tokenizer, asked.tokens, rows, **told)
        else:
            model = filled(config, point, clock)
            places, found = generate(
                model,
                asked.tokens,
                rows,
                length=how.length,
                ends=end_tokens(model, tokenizer),
                batch_tokens=batch_tokens(config, GPU_BATCH_TOKENS),
                stopped=stopped if how.stops else None,
                shard=(where.process_index, where.num_processes),
                label=point.role,
            )
        said = list(texts(tokenizer, found, how.stops))
        meant = []
        if encoder is not None:
            references = [asked.data.examples[rows[place]].reference for place in places]
            meant = [(value, 1.0) for value in bertscore(encoder, said, references)]
        judged = []
        for k, (place, text, one) in enumerate(zip(places, said, found, strict=True)):
            given = judge(rows[place], text)
            own = [float(part) for name in widths for part in given[name]]
            judged.append([*own, *(meant[k] if meant else ()), len(one.ids), one.ended])
        return places, list(zip(said, judged, strict=True))

    scores, said = np.empty((len(rows), sum(numbers(asked.data).values()) + 2)), [""] * len(rows)
    for places, found in distributed.all_gather(distributed.run_on_all_ranks(share)):
        for place, (text, values) in zip(places, found, strict=True):
            said[place], scores[place] = text, values
    if asked.data.open_data:
        lines = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in said)
        distributed.run_on_all_ranks(lambda: write_text(lines, _kept(config, key)) if where.is_main_process else None)
    clock.lap("scoring")
    return scores


@contextmanager
def _written(config: RunConfig, point: System, clock: Timer) -> Iterator[Path]:
    """The point as a folder of the cache, gone again at the end."""
    merge_spec = point.merge_spec
    if point.job is not None:
        merge_spec = finetuned.merge_spec(config, point.job)
        clock.lap("training")
    with TemporaryDirectory(dir=config.cache, prefix="vllm-") as place:
        target = Path(place) / "model"
        sources = finetuned.sources_of(merge_spec)
        merge = recipe(merge_spec, point.weight, config.cache)
        save(
            merge,
            target,
            cache=config.cache,
            sources=sources,
            tokenizer=merge_spec.tokenizer,
            dtype=config.inference.dtype,
        )
        if any(holds_patients(model) for model in merge_spec.models):
            mark(target)
        clock.lap("save")
        yield target


def write_answers(config: RunConfig, asked: Plan, folder: Path) -> None:
    """All answers of an open task as answers.jsonl: question, split, model and text, one a line; else nothing."""
    lines: list[dict[str, Any]] = []
    for (role, split), key in asked.keys.items():
        try:
            # Not splitlines: an answer may hold line ends that JSON leaves as they are.
            said = _kept(config, key).read_text(encoding="utf-8").split("\n")
        except OSError:
            continue  # scores without their texts
        for i, line in zip(asked.rows[split], said, strict=False):
            lines.append({"id": asked.data.examples[i].uid, "split": split, "role": role, "answer": json.loads(line)})
    if asked.data.open_data and lines:
        write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), folder / TEXTS)


def _kept(config: RunConfig, key: str) -> Path:
    return config.output / "scores" / f"{key}.jsonl"
