"""Types of configuration values for pydantic, and its findings as messages that say what was set, and what can be.

Every type is strict: true is no number, "3" is no whole number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from patientdx.core.paths import folder_path, plain_name

_EXPECTED = {"string": "give a word", "bool": "it is true or false", "int": "give a whole number",
             "float": "give a number", "tuple": "give a list", "dict": "give a mapping",
             "dataclass": "give a mapping"}  # fmt: skip


class ConfigErrors(ValueError):
    """Several errors of one value. A message that begins with one of ``=.[`` continues the value's key."""

    def __init__(self, messages: Iterable[str]) -> None:
        self.messages = list(messages)
        super().__init__("; ".join(self.messages))


def at_least(least: int) -> BeforeValidator:
    """Whole numbers from `least`."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"give a whole number of at least {least}.")
        return value

    return BeforeValidator(check)


def number(expected: str, fits: Callable[[float], bool]) -> BeforeValidator:
    """Finite numbers for which `fits` is true; `expected` is the end of the message otherwise."""

    def check(value: Any) -> float:
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        if not plain or not math.isfinite(value) or not fits(value):
            raise ValueError(expected)
        return float(value)

    return BeforeValidator(check)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("it is true or false.")
    return value


def _words(value: Any) -> tuple[str, ...]:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise ValueError("give a list of words.")
    return tuple(dict.fromkeys(words))


def _layer_names(value: Any) -> tuple[str, ...]:
    if not value:
        raise ValueError("give a list of names of linear layers, as in [q_proj,v_proj].")
    return _words(value)


Flag = Annotated[bool, BeforeValidator(_flag)]
Folder = Annotated[Path, BeforeValidator(folder_path)]
Name = Annotated[str, BeforeValidator(plain_name)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
LayerNames = Annotated[tuple[str, ...], BeforeValidator(_layer_names)]
Positive = Annotated[float, number("give a number above 0.", lambda value: value > 0)]
Fraction = Annotated[float, number("give a number of at least 0 and below 1.", lambda value: 0 <= value < 1)]


def in_yaml(value: Any) -> Any:
    """A value as a message shows it, and a yaml has it: null, true, false."""
    return {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else value


def messages(error: ValidationError, key_of: Callable[[Sequence[str | int]], str]) -> Iterator[str]:
    """Each finding of pydantic as a message that begins with the key, which `key_of` makes of pydantic's location."""
    for finding in error.errors(include_url=False):
        key, kind = key_of(finding["loc"]), finding["type"]
        value = in_yaml(finding["input"])
        group = key.removesuffix(".name")  # a group is chosen by its name: finetune=lora
        cause = finding.get("ctx", {}).get("error")
        if isinstance(cause, ConfigErrors):
            yield from (f"{key}{text}" if text[:1] in "=.[" else text for text in cause.messages)
        elif kind == "missing" or (finding["input"] is None and (kind == "string_type" or key.endswith(".name"))):
            yield f"{key} is missing."
        elif kind == "literal_error":
            choices = finding.get("ctx", {})["expected"].replace("'", "").replace("None", "null")
            yield f"{group}={value}: it is {choices}."
        elif kind == "value_error":
            yield f"{group}={value}: {cause}"
        elif kind == "unexpected_keyword_argument":
            yield f"{key}: there is no such key."
        else:
            expected = _EXPECTED.get(kind.partition("_")[0], finding["msg"])
            yield f"{group}={value}: {expected}."
