"""Task `gsm8k`: word problems of grade-school mathematics, answered step by step (Cobbe et al., 2021; MIT)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.records.splits import checked_fractions, position, split_of
from patientdx.tasks.example import Example, Generation, TaskData, fingerprint
from patientdx.tasks.hub_files import origin
from patientdx.tasks.item_files import first, rows
from patientdx.tasks.multiple_choice import Benchmark, Wording, place_of, split_files
from patientdx.tasks.prediction import check_numbers
from patientdx.tasks.repeats import Repeats, told_apart

# Where an answer ends: at the next question that a base model goes on to, or at an end mark written as text.
STOPS = ("Question:", "</s>", "<|im_end|>")
# exact_match_strict: the number behind ####; exact_match_flexible: the last number of the answer.
METRICS = ("exact_match_strict", "exact_match_flexible")
LEAVE = ("socratic",)  # files of the same problems with another kind of answer, beside them in the official folder
VERSION = 1  # of the rule: raise it when an answer comes to be judged otherwise

_FILE = Benchmark(
    "gsm8k",
    Wording(),
    lambda place, seed, answers_from: [],
    "GSM8K, train.jsonl and test.jsonl: github.com/openai/grade-school-math.",
)


@dataclass(frozen=True)
class Problem:
    """A question with its worked answer; `place` is its file and line, `same` that of the first that is equal to it."""

    place: str
    same: str
    split: str
    question: str
    answer: str


def load(
    *,
    path: str | None = None,
    seed: int = 0,
    shots: int = 0,
    chat: bool | None = None,
    new_tokens: int = 256,
    fractions: Mapping[str, float] | None = None,
    limit: int | None = None,
    train_limit: int | None = 1000,
) -> TaskData:
    """GSM8K; every keyword is explained in conf/task/gsm8k.yaml. Raises UserError for what will not do, with its line."""
    check_numbers(shots=(shots, 0), new_tokens=(new_tokens, 1), limit=(limit, 1), seed=(seed, 0))
    if train_limit is not None:
        check_numbers(train_limit=(train_limit, 0))
    place = place_of(_FILE, path)
    files = split_files(place, leave=LEAVE)
    problems = _problems(files, across=fractions is not None)
    if fractions is not None:
        shares = checked_fractions(fractions)
        problems = [replace(one, split=split_of(one.same, seed=seed, fractions=shares)) for one in problems]
    ranked = sorted(
        (one for one in problems if one.split == "train"), key=lambda one: position("shot", seed, one.place)
    )
    asked = first(
        problems,
        lambda one: (one.split, position("order", seed, one.place)),
        {"train": train_limit, "pilot": limit, "test": limit},
    )
    examples = tuple(_example(one, ranked, shots) for one in asked)
    right = [number(one.answer) for one in asked]
    settings: dict[str, Any] = {
        "task": "gsm8k", "rule": VERSION, "shots": shots, "chat": chat, "new_tokens": new_tokens, "stops": STOPS,
        "fractions": None if fractions is None else dict(fractions), "limit": limit,
        "train_limit": train_limit, "seed": seed,
    }  # fmt: skip
    different = len({(one.split, one.same) for one in asked})
    return TaskData(
        name="gsm8k",
        kind="generation",
        examples=examples,
        open_data=True,
        fingerprint=fingerprint(examples, settings | {"right": right}),
        provenance={"source": {name: sha256(file) for file, name, _ in files}, "settings": settings}
        | origin("gsm8k", path, place),
        cohort=[
            {"step": "read", "problems": len(problems)},
            {"step": "kept", "problems": len(asked)},
            *told_apart("problems", len(asked), different),
        ],
        chat=chat,
        generation=Generation(new_tokens, STOPS, METRICS, lambda i, text: judged(text, right[i])),
    )


def number(answer: str) -> str | None:
    """The number behind the first ####, without commas, dollars and a period at its end; None where there is none."""
    found = re.search(r"#### (-?[0-9.,]+)", answer)
    return None if found is None else _plain(found[1])


def last_number(answer: str) -> str | None:
    """The last number of a text, so written; None where there is none."""
    found = [one[0] for one in re.finditer(r"-?[$0-9.,]{2,}|-?[0-9]+", answer)]
    return _plain(found[-1]) if found else None


def judged(answer: str, right: str) -> dict[str, tuple[float, float]]:
    """By metric 1 for the right number, out of 1; numbers are compared as they are written, as lm-eval does."""
    said = (number(answer), last_number(answer))
    return {name: (float(one == right), 1.0) for name, one in zip(METRICS, said, strict=True)}


def _plain(text: str) -> str:
    return text.replace(",", "").replace("$", "").removesuffix(".")


def _problems(files: Sequence[tuple[Path, str, str]], *, across: bool) -> list[Problem]:
    """The problems of all files. UserError for a line that will not do, and for a file beside its copy."""
    repeats, found = Repeats(across), []
    for file, name, split in files:
        for place, row in rows(file, name, header=True):
            one = _problem(place, row, split)
            found.append(replace(one, same=repeats.first(place, split, one.question.strip())))
    repeats.check()
    return found


def _problem(place: str, row: Mapping[str, Any], split: str) -> Problem:
    texts = [row.get(name) for name in ("question", "answer")]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise UserError(
            f"{place} has no question or an empty answer. Its columns are {', '.join(row)}; GSM8K's are question and "
            "answer."
        )
    if not number(texts[1]):
        raise UserError(f"{place}: the answer names no number behind ####, so nothing can be compared with it.")
    return Problem(place, place, split, *texts)


def _example(one: Problem, ranked: Sequence[Problem], shots: int) -> Example:
    shown = [other for other in ranked[: shots + 1] if other.question != one.question][:shots]
    if len(shown) < shots:
        raise UserError(
            f"task.shots={shots}: worked examples come from train alone, which has {len(ranked)} problems. Use fewer, "
            "give a folder with train.jsonl, or a share for train in task.fractions."
        )
    worked = "".join(f"Question: {other.question}\nAnswer: {other.answer}\n\n" for other in shown)
    after = f"Question: {one.question}\nAnswer:"
    uid = f"gsm8k:{one.place}"
    return Example(
        uid=uid, subject=f"gsm8k:{one.same}", split=one.split, prefix=worked, context="", suffix=after,
        reference=one.answer.strip(),
    )  # fmt: skip
