"""Task `ifeval`: does a model follow instructions (Zhou et al., 2023, arXiv:2311.07911)? Rules decide, not a model."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patientdx.core.errors import UserError
from patientdx.records.parameters import check_numbers
from patientdx.records.splits import SPLITS, checked_fractions, position, split_of
from patientdx.tasks.data_files import digests, located
from patientdx.tasks.example import Example, Generation, TaskData, fingerprint
from patientdx.tasks.hub_files import origin
from patientdx.tasks.ifeval_rules import PATTERNS, RELATIONS, RULES, loose, strict
from patientdx.tasks.item_files import limited, rows

REQUIRES = ("langdetect",)
# Names of lm-evaluation-harness. Strict: the answer as it is; loose: or without its first line, last line or asterisks.
METRICS = ("prompt_level_strict_acc", "inst_level_strict_acc", "prompt_level_loose_acc", "inst_level_loose_acc")
VERSION = 2  # of the rules: raise it when an answer is scored in another way
Instructions = tuple[tuple[str, dict[str, Any]], ...]

SOURCE = (
    "The official prompts are input_data.jsonl in github.com/google-research/google-research, "
    "instruction_following_eval/data."
)


@dataclass(frozen=True, kw_only=True)
class IfevalTask:
    """The keys of the task, as conf/task/ifeval.yaml explains them."""

    path: str | None = None
    seed: int = 0
    chat: bool | None = None
    new_tokens: int = 1280
    fractions: Mapping[str, float] | None = None
    limit: int | None = None

    def load(self) -> TaskData:
        """One example per prompt of the file. All are the test split unless `fractions` draws others.

        Raises UserError for keys, a file or a line of it that are not valid.
        """
        check_numbers(new_tokens=(self.new_tokens, 1), limit=(self.limit, 1), seed=(self.seed, 0))
        fractions = {"test": 1.0} if self.fractions is None else checked_fractions(self.fractions)
        root = located("ifeval", self.path, SOURCE)
        prompts = _prompts(root)
        split = {uid: split_of(uid, seed=self.seed, fractions=fractions) for uid, _, _ in prompts}
        kept = limited(
            prompts,
            lambda prompt: (split[prompt[0]], position("order", self.seed, prompt[0])),
            dict.fromkeys(SPLITS, self.limit),
        )
        examples = tuple(
            Example(uid=uid, subject=uid, split=split[uid], prefix="", context="", suffix=prompt)
            for uid, prompt, _ in kept
        )
        instructions = [instructions for _, _, instructions in kept]
        settings: dict[str, Any] = {
            "task": "ifeval", "rules": VERSION, "new_tokens": self.new_tokens, "chat": self.chat,
            "fractions": fractions, "limit": self.limit, "seed": self.seed,
        }  # fmt: skip
        return TaskData(
            name="ifeval",
            kind="generation",
            examples=examples,
            open_data=True,
            fingerprint=fingerprint(examples, settings | {"instructions": instructions}),
            provenance={"source": digests(root), "settings": settings} | origin("ifeval", self.path, root),
            cohort=[{"step": "read", "prompts": len(prompts)}, {"step": "asked", "prompts": len(kept)}],
            chat=self.chat,
            generation=Generation(self.new_tokens, (), METRICS, lambda i, text: judged(text, instructions[i])),
        )


def judged(answer: str, instructions: Instructions) -> dict[str, tuple[float, float]]:
    """(number of instructions that the answer follows, number of instructions) by metric."""
    count = len(instructions)
    strictly = sum(strict(answer, kind, arguments) for kind, arguments in instructions)
    loosely = sum(loose(answer, kind, arguments) for kind, arguments in instructions)
    return dict(zip(METRICS, [(strictly, count)] * 2 + [(loosely, count)] * 2, strict=True))


def _prompts(file: Path) -> list[tuple[str, str, Instructions]]:
    """(id, prompt, instructions) of every line, each with an id of its own."""
    if file.is_dir():
        raise UserError(f"task.path is {file}, a folder; give the one file in it that holds prompts. {SOURCE}")
    prompts, locations = [], {}
    for location, row in rows(file, file.name, header=True):
        uid, *rest = read_prompt(location, row)
        if locations.setdefault(uid, location) != location:
            raise UserError(f"{location}: its key is that of {locations[uid]} too. Take one of the two out.")
        prompts.append((uid, *rest))
    return prompts


def read_prompt(location: str, row: Mapping[str, Any]) -> tuple[str, str, Instructions]:
    """(id, prompt, instructions) of a line."""
    prompt, kinds, arguments = (row.get(name) for name in ("prompt", "instruction_id_list", "kwargs"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError(
            f"{location} has no prompt. Its columns are {', '.join(row)}; an IFEval file has prompt, "
            "instruction_id_list and kwargs."
        )
    if not isinstance(kinds, list) or not kinds or not isinstance(arguments, list) or len(arguments) != len(kinds):
        raise UserError(f"{location}: instruction_id_list and kwargs must be lists of one length, and not empty.")
    pairs = zip(kinds, arguments, strict=True)
    instructions = tuple(_instruction(location, kind, options or {}) for kind, options in pairs)
    return f"ifeval:{row.get('key', location)}", prompt, instructions


def _instruction(location: str, kind: Any, arguments: Any) -> tuple[str, dict[str, Any]]:
    """The rule's name, without the language that some copies put before it, and its arguments, checked."""
    name = str(kind).removeprefix("en:")
    if name not in RULES:
        raise UserError(
            f"{location}: there is no rule for the instruction {kind!r}. Known are {', '.join(sorted(RULES))}."
        )
    if not isinstance(arguments, Mapping):
        raise UserError(
            f"{location}: kwargs has a mapping for each instruction, but one of type {type(arguments).__name__}."
        )
    arguments = {key: value for key, value in arguments.items() if value is not None}
    parameters = set(inspect.signature(RULES[name]).parameters) - {"answer"}
    if set(arguments) != parameters:
        raise UserError(
            f"{location}: {name} takes {', '.join(sorted(parameters)) or 'no arguments'}, but kwargs has "
            f"{', '.join(sorted(arguments)) or 'none'}."
        )
    for key, value in arguments.items():
        texts = value if isinstance(value, list) else [value]
        is_number = key.startswith("num_") or key.endswith("frequency") or key == "nth_paragraph"
        if is_number:
            arguments[key] = _whole_number(location, name, key, value)
        if not is_number and not (texts and all(isinstance(text, str) and text for text in texts)):
            raise UserError(f"{location}: {name} needs a text as {key}, not {value!r}.")
        if key.endswith("relation") and value not in RELATIONS:
            raise UserError(f"{location}: {name} knows {' and '.join(RELATIONS)} as {key}, not {value!r}.")
        if key in PATTERNS:
            _check_patterns(location, name, PATTERNS[key], texts)
    return name, arguments


def _whole_number(location: str, name: str, key: str, value: Any) -> int:
    """The number as an int: copies that went through a table have 2.0 for 2. Paragraphs are counted from 1."""
    integer = value.is_integer() if isinstance(value, float) else isinstance(value, int) and not isinstance(value, bool)
    if not integer or (key == "nth_paragraph" and value < 1):
        least = " of 1 or more" if key == "nth_paragraph" else ""
        raise UserError(f"{location}: {name} needs a whole number{least} as {key}, not {value!r}.")
    return int(value)


def _check_patterns(location: str, name: str, pattern: Callable[[str], str], texts: Sequence[str]) -> None:
    for text in texts:
        try:
            re.compile(pattern(text))
        except (re.error, OverflowError, RecursionError) as error:
            raise UserError(
                f"{location}: {name} reads {text!r} as a regular expression, and it is none: {error}."
            ) from None
