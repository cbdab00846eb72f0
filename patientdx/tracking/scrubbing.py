"""Nothing that says who or where: paths, user and host names, free text and credentials are taken out."""

from __future__ import annotations

import contextlib
import getpass
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Keys whose values say where something lies or open a door; they are left out whatever the value.
_PRIVATE_KEYS = re.compile(
    r"(?:^|_)(?:cache|path|root|dir|folder|file|output|outputs|cwd|host|hostname|user|username)s?$"
    r"|^(?:hydra|token|hf_token|api_key|password|secret)$"
)
_ABSOLUTE_PATH = re.compile(
    r"(?:(?<=^)|(?<=[\s=,;:'\"\[({]))(?:~[\w.-]*/|/[\w.~]|file:/|[A-Za-z]:[\\/]|\\\\)[^\s,;'\"\])}]*"
)
_LONGEST_PHRASE = 3  # words; a name or an option is shorter, a sentence is longer


def scrubbed(value: Any) -> Any:
    """The same nested value without anything that says who, where or what a record says.

    Keys that name places or credentials are left out, strings with an absolute path become `<path>`, strings
    of more than three words or of several lines become `<text of N characters>` (prompts, patient text), user
    and host names become `<user>` and `<host>`. Types that JSON does not know become the name of the type.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | Path):
        return _clean_text(str(value))
    if isinstance(value, Mapping):
        return {str(key): scrubbed(below) for key, below in value.items() if not _PRIVATE_KEYS.search(str(key))}
    if isinstance(value, list | tuple):
        return [scrubbed(item) for item in value]
    if hasattr(value, "item") and getattr(value, "size", 0) == 1:  # a number of numpy or torch
        return value.item()
    return f"<{type(value).__name__}>"


def phrase(text: str, longest: int) -> str:
    """A readable name, without paths and names of people and machines, of at most `longest` characters."""
    return _anonymous(_ABSOLUTE_PATH.sub("<path>", " ".join(str(text).split())))[:longest]


def reason(error: Exception) -> str:
    """The kind of error and the start of its message, on one line and without this machine's names."""
    return f"{type(error).__name__}: {phrase(str(error), 120)}"


def _clean_text(text: str) -> str:
    if _ABSOLUTE_PATH.search(text):
        return "<path>"
    if len(text.split()) > _LONGEST_PHRASE or "\n" in text or len(text) > 200:
        return f"<text of {len(text)} characters>"
    return _anonymous(text)


def _anonymous(text: str) -> str:
    with contextlib.suppress(OSError, KeyError):  # a container may run under a user id that has no name
        text = _without(text, getpass.getuser(), "<user>")
    with contextlib.suppress(RuntimeError):
        text = _without(text, Path.home().name, "<user>")
    host = socket.gethostname()
    return _without(_without(text, host, "<host>"), host.split(".")[0], "<host>")


def _without(text: str, name: str, instead: str) -> str:
    if len(name) < 2:
        return text
    return re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", instead, text)
