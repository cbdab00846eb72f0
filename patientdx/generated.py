"""Answers in a model's own words: said, judged by the task, kept as numbers, and as texts where the data is open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from patientdx import session
from patientdx.answers import Clock, batch_tokens, filled
from patientdx.plan import Plan, Point
from patientdx.results import write_text
from patientdx.scoring.generate import end_tokens, generate, texts
from patientdx.scoring.model import load_tokenizer
from patientdx.settings import Settings

TEXTS = "answers.jsonl"  # of a run's folder
TOGETHER = 4096  # padded tokens of a batch on a CPU, new ones counted: each new token reads all of the weights


def answers(settings: Settings, asked: Plan, point: Point, rows: Sequence[int], key: str, clock: Clock) -> np.ndarray:
    """(n, 2 m + 2) float64: for each of the task's m metrics how much of an answer is right and out of how much, then
    its tokens, and 1 where it ended before it was cut off.

    All processes say and judge their share. The texts of an open task are left beside the scores, by the same `key`.
    """
    where, how = session.accelerator(settings.device), asked.data.generation
    tokenizer = load_tokenizer(asked.opened.checkpoints[0].folder)

    def stopped(ids: Sequence[int]) -> bool:
        text = tokenizer.decode(ids, skip_special_tokens=True)
        return any(stop in text for stop in how.stops)

    def share() -> tuple[list[int], list[tuple[str, list[float]]]]:
        model = filled(settings, point, clock)
        places, found = generate(
            model,
            asked.tokens,
            rows,
            length=how.length,
            ends=end_tokens(model, tokenizer),
            batch_tokens=batch_tokens(settings, TOGETHER),
            stopped=stopped if how.stops else None,
            share=(where.process_index, where.num_processes),
            label=point.role,
        )
        said = list(texts(tokenizer, found, how.stops))
        judged = []
        for place, text, one in zip(places, said, found, strict=True):
            given = how.judge(rows[place], text)
            judged.append([*(float(part) for name in how.metrics for part in given[name]), len(one.ids), one.ended])
        return places, list(zip(said, judged, strict=True))

    scores, said = np.empty((len(rows), 2 * len(how.metrics) + 2)), [""] * len(rows)
    for places, found in session.gathered(session.together(share)):
        for place, (text, values) in zip(places, found, strict=True):
            said[place], scores[place] = text, values
    if asked.data.open_data and where.is_main_process:
        write_text("".join(json.dumps(text, ensure_ascii=False) + "\n" for text in said), _kept(settings, key))
    clock.lap("scoring")
    return scores


def write_answers(settings: Settings, asked: Plan, folder: Path) -> None:
    """All answers of an open task as answers.jsonl: question, split, model and text, one a line; else nothing."""
    lines: list[dict[str, Any]] = []
    for (role, split), key in asked.keys.items():
        try:
            said = _kept(settings, key).read_text(encoding="utf-8").splitlines()
        except OSError:
            continue  # scores without their texts
        for i, line in zip(asked.rows[split], said, strict=False):
            lines.append({"id": asked.data.examples[i].uid, "split": split, "role": role, "answer": json.loads(line)})
    if asked.data.open_data and lines:
        write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), folder / TEXTS)


def _kept(settings: Settings, key: str) -> Path:
    return settings.output / "scores" / f"{key}.jsonl"
