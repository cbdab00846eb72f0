"""Task `ifeval`: does a model do as it is told (Zhou et al., 2023, arXiv:2311.07911)? Rules decide, no judge model."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from patientdx.core.errors import UserError
from patientdx.records.splits import SPLITS, checked_fractions, position, split_of
from patientdx.tasks.example import Example, Generation, TaskData, fingerprint
from patientdx.tasks.hub_files import origin
from patientdx.tasks.ifeval_rules import PATTERNS, RELATIONS, RULES, loose, strict
from patientdx.tasks.item_files import first, rows
from patientdx.tasks.multiple_choice import Benchmark, Wording, digests, place_of
from patientdx.tasks.prediction import check_numbers

# As lm-evaluation-harness names them: of the answer as it stands, and without its first or last line or asterisks.
METRICS = ("prompt_level_strict_acc", "inst_level_strict_acc", "prompt_level_loose_acc", "inst_level_loose_acc")
VERSION = 2  # of the rules: raise it when an answer comes to be judged otherwise
Instructions = tuple[tuple[str, dict[str, Any]], ...]

_FILE = Benchmark(
    "ifeval",
    Wording(),
    lambda place, seed, answers_from: [],
    "The official prompts are input_data.jsonl in github.com/google-research/google-research, "
    "instruction_following_eval/data.",
)


def load(
    *,
    path: str | None = None,
    seed: int = 0,
    chat: bool | None = None,
    new_tokens: int = 1280,
    fractions: Mapping[str, float] | None = None,
    limit: int | None = None,
) -> TaskData:
    """The prompts of the official file with their instructions; every keyword is explained in conf/task/ifeval.yaml.

    All are the test split unless `fractions` draws others. Raises UserError for a file or a line of it that will not do.
    """
    check_numbers(new_tokens=(new_tokens, 1), limit=(limit, 1), seed=(seed, 0))
    shares = {"test": 1.0} if fractions is None else checked_fractions(fractions)
    place = place_of(_FILE, path)
    found = _prompts(place)
    parts = {uid: split_of(uid, seed=seed, fractions=shares) for uid, _, _ in found}
    kept = first(found, lambda one: (parts[one[0]], position("order", seed, one[0])), dict.fromkeys(SPLITS, limit))
    examples = tuple(
        Example(uid=uid, subject=uid, split=parts[uid], prefix="", context="", suffix=prompt) for uid, prompt, _ in kept
    )
    instructions = [one[2] for one in kept]
    settings: dict[str, Any] = {
        "task": "ifeval", "rules": VERSION, "new_tokens": new_tokens, "chat": chat, "fractions": shares, "limit": limit,
        "seed": seed,
    }  # fmt: skip
    return TaskData(
        name="ifeval",
        kind="generation",
        examples=examples,
        open_data=True,
        fingerprint=fingerprint(examples, settings | {"instructions": instructions}),
        provenance={"source": digests(place), "settings": settings} | origin("ifeval", path, place),
        cohort=[{"step": "read", "prompts": len(found)}, {"step": "asked", "prompts": len(kept)}],
        chat=chat,
        generation=Generation(new_tokens, (), METRICS, lambda i, text: judged(text, instructions[i])),
    )


def judged(answer: str, instructions: Instructions) -> dict[str, tuple[float, float]]:
    """By metric how many of the instructions the answer follows, and how many there are."""
    asked = len(instructions)
    strictly = sum(strict(answer, kind, arguments) for kind, arguments in instructions)
    loosely = sum(loose(answer, kind, arguments) for kind, arguments in instructions)
    return dict(zip(METRICS, [(strictly, asked)] * 2 + [(loosely, asked)] * 2, strict=True))


def _prompts(place: Path) -> list[tuple[str, str, Instructions]]:
    """(id, prompt, instructions) of every line, each with an id of its own."""
    if place.is_dir():
        raise UserError(f"task.path is {place}, a folder; give the one file in it that holds prompts. {_FILE.source}")
    found, held = [], {}
    for where, row in rows(place, place.name, header=True):
        found.append(read_prompt(where, row))
        if held.setdefault(found[-1][0], where) != where:
            raise UserError(f"{where}: its key is that of {held[found[-1][0]]} too. Take one of the two out.")
    return found


def read_prompt(place: str, row: Mapping[str, Any]) -> tuple[str, str, Instructions]:
    """(id, prompt, instructions) of a line."""
    prompt, kinds, arguments = (row.get(name) for name in ("prompt", "instruction_id_list", "kwargs"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError(f"{place} has no prompt. Its columns are {', '.join(row)}; an IFEval file has prompt, "
                      "instruction_id_list and kwargs.")  # fmt: skip
    if not isinstance(kinds, list) or not kinds or not isinstance(arguments, list) or len(arguments) != len(kinds):
        raise UserError(f"{place}: instruction_id_list and kwargs must be lists of one length, and not empty.")
    found = tuple(_instruction(place, kind, given or {}) for kind, given in zip(kinds, arguments, strict=True))
    return f"ifeval:{row.get('key', place)}", prompt, found


def _instruction(place: str, kind: Any, given: Any) -> tuple[str, dict[str, Any]]:
    """The rule's name, without the language that some copies put before it, and its arguments, checked."""
    name = str(kind).removeprefix("en:")
    if name not in RULES:
        raise UserError(
            f"{place}: there is no rule for the instruction {kind!r}. Known are {', '.join(sorted(RULES))}."
        )
    if not isinstance(given, Mapping):
        raise UserError(f"{place}: kwargs has a mapping for each instruction, but one of type {type(given).__name__}.")
    arguments = {key: value for key, value in given.items() if value is not None}
    wanted = set(inspect.signature(RULES[name]).parameters) - {"answer"}
    if set(arguments) != wanted:
        raise UserError(
            f"{place}: {name} takes {', '.join(sorted(wanted)) or 'no arguments'}, but kwargs has "
            f"{', '.join(sorted(arguments)) or 'none'}."
        )
    for key, value in arguments.items():
        texts = value if isinstance(value, list) else [value]
        whole = key.startswith("num_") or key.endswith("frequency") or key == "nth_paragraph"
        if whole:
            arguments[key] = _whole(place, name, key, value)
        if not whole and not (texts and all(isinstance(text, str) and text for text in texts)):
            raise UserError(f"{place}: {name} needs a text as {key}, not {value!r}.")
        if key.endswith("relation") and value not in RELATIONS:
            raise UserError(f"{place}: {name} knows {' and '.join(RELATIONS)} as {key}, not {value!r}.")
        if key in PATTERNS:
            _check_patterns(place, name, PATTERNS[key], texts)
    return name, arguments


def _whole(place: str, name: str, key: str, value: Any) -> int:
    """The number as an int: copies that went through a table have 2.0 for 2. Paragraphs are counted from 1."""
    whole = value.is_integer() if isinstance(value, float) else isinstance(value, int) and not isinstance(value, bool)
    if not whole or (key == "nth_paragraph" and value < 1):
        least = " of 1 or more" if key == "nth_paragraph" else ""
        raise UserError(f"{place}: {name} needs a whole number{least} as {key}, not {value!r}.")
    return int(value)


def _check_patterns(place: str, name: str, pattern: Callable[[str], str], texts: Sequence[str]) -> None:
    for text in texts:
        try:
            re.compile(pattern(text))
        except (re.error, OverflowError, RecursionError) as error:
            raise UserError(
                f"{place}: {name} reads {text!r} as a regular expression, and it is none: {error}."
            ) from None
