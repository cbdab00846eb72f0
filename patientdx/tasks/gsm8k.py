"""Task `gsm8k`: word problems of grade-school mathematics, answered step by step (Cobbe et al., 2021; MIT)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.records.parameters import check_numbers
from patientdx.records.splits import checked_fractions, position, split_of
from patientdx.tasks.data_files import located, split_files
from patientdx.tasks.example import Example, Generation, TaskData, fingerprint
from patientdx.tasks.hub_files import origin
from patientdx.tasks.item_files import limited, rows
from patientdx.tasks.repeats import Repeats, distinct_step

# Texts at which an answer ends: the next question, which a base model goes on to, or an end mark written as text.
STOPS = ("Question:", "</s>", "<|im_end|>")
# exact_match_strict: the number after ####; exact_match_flexible: the last number of the answer.
METRICS = ("exact_match_strict", "exact_match_flexible")
EXCLUDED = ("socratic",)  # files of the same problems with another kind of answer, in the same official folder
VERSION = 1  # of the scoring rule: raise it when an answer is scored in another way
SOURCE = "GSM8K, train.jsonl and test.jsonl: github.com/openai/grade-school-math."


@dataclass(frozen=True)
class Problem:
    """A question with its worked answer; `location` is its file and line, `same` that of the first equal problem."""

    location: str
    same: str
    split: str
    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Gsm8kTask:
    """The keys of the task, as conf/task/gsm8k.yaml explains them."""

    path: str | None = None
    seed: int = 0
    shots: int = 0
    chat: bool | None = None
    new_tokens: int = 256
    fractions: Mapping[str, float] | None = None
    limit: int | None = None
    train_limit: int | None = 1000

    def load(self) -> TaskData:
        """One example per problem. Raises UserError for keys, files and lines that are not valid."""
        check_numbers(
            shots=(self.shots, 0), new_tokens=(self.new_tokens, 1), limit=(self.limit, 1), seed=(self.seed, 0),
            train_limit=(self.train_limit, 0),
        )  # fmt: skip
        root = located("gsm8k", self.path, SOURCE)
        files = split_files(root, excluded=EXCLUDED)
        problems = _problems(files, across=self.fractions is not None)
        if self.fractions is not None:
            fractions = checked_fractions(self.fractions)
            problems = [
                replace(problem, split=split_of(problem.same, seed=self.seed, fractions=fractions))
                for problem in problems
            ]
        train = [problem for problem in problems if problem.split == "train"]
        train.sort(key=lambda problem: position("shot", self.seed, problem.location))
        kept = limited(
            problems,
            lambda problem: (problem.split, position("order", self.seed, problem.location)),
            {"train": self.train_limit, "pilot": self.limit, "test": self.limit},
        )
        examples = tuple(_example(problem, train, self.shots) for problem in kept)
        right = [number(problem.answer) for problem in kept]
        settings: dict[str, Any] = {
            "task": "gsm8k", "rule": VERSION, "shots": self.shots, "chat": self.chat, "new_tokens": self.new_tokens,
            "stops": STOPS, "fractions": None if self.fractions is None else dict(self.fractions),
            "limit": self.limit, "train_limit": self.train_limit, "seed": self.seed,
        }  # fmt: skip
        return TaskData(
            name="gsm8k",
            kind="generation",
            examples=examples,
            open_data=True,
            fingerprint=fingerprint(examples, settings | {"right": right}),
            provenance={"source": {name: sha256(file) for file, name, _ in files}, "settings": settings}
            | origin("gsm8k", self.path, root),
            cohort=[
                {"step": "read", "problems": len(problems)},
                {"step": "kept", "problems": len(kept)},
                *distinct_step("problems", len(kept), len({(problem.split, problem.same) for problem in kept})),
            ],
            chat=self.chat,
            generation=Generation(self.new_tokens, STOPS, METRICS, lambda i, text: judged(text, right[i])),
        )


def number(answer: str) -> str | None:
    """The number after the first ####, without commas, dollars and a final period; None if there is none."""
    match = re.search(r"#### (-?[0-9.,]+)", answer)
    return None if match is None else _plain(match[1])


def last_number(answer: str) -> str | None:
    """The last number of a text in the same form; None if there is none."""
    numbers = [match[0] for match in re.finditer(r"-?[$0-9.,]{2,}|-?[0-9]+", answer)]
    return _plain(numbers[-1]) if numbers else None


def judged(answer: str, right: str | None) -> dict[str, tuple[float, float]]:
    """(points, 1) by metric; numbers are compared as strings, as lm-eval does."""
    numbers = (number(answer), last_number(answer))
    return {name: (float(text == right), 1.0) for name, text in zip(METRICS, numbers, strict=True)}


def _plain(text: str) -> str:
    return text.replace(",", "").replace("$", "").removesuffix(".")


def _problems(files: Sequence[tuple[Path, str, str]], *, across: bool) -> list[Problem]:
    """The problems of all files. UserError for a line that is not valid, and for a file with its copy."""
    repeats, problems = Repeats(across), []
    for file, name, split in files:
        for location, row in rows(file, name, header=True):
            problem = _problem(location, row, split)
            problems.append(replace(problem, same=repeats.first(location, split, problem.question.strip())))
    repeats.check()
    return problems


def _problem(location: str, row: Mapping[str, Any], split: str) -> Problem:
    question, answer = row.get("question"), row.get("answer")
    if not (isinstance(question, str) and question.strip() and isinstance(answer, str) and answer.strip()):
        raise UserError(
            f"{location} has no question or an empty answer. Its columns are {', '.join(row)}; GSM8K's are question "
            "and answer."
        )
    if not number(answer):
        raise UserError(f"{location}: the answer names no number behind ####, so nothing can be compared with it.")
    return Problem(location, location, split, question, answer)


def _example(problem: Problem, train: Sequence[Problem], shots: int) -> Example:
    shown = [other for other in train[: shots + 1] if other.question != problem.question][:shots]
    if len(shown) < shots:
        raise UserError(
            f"task.shots={shots}: worked examples come from train alone, which has {len(train)} problems. Use fewer, "
            "give a folder with train.jsonl, or a share for train in task.fractions."
        )
    worked = "".join(f"Question: {other.question}\nAnswer: {other.answer}\n\n" for other in shown)
    return Example(
        uid=f"gsm8k:{problem.location}", subject=f"gsm8k:{problem.same}", split=problem.split, prefix=worked,
        context="", suffix=f"Question: {problem.question}\nAnswer:", reference=problem.answer.strip(),
    )  # fmt: skip
