"""The one exception whose message is written for the user, what a misspelt name may mean, and what a run may lack."""

import difflib
from collections.abc import Iterable
from typing import Any, TypeVar

T = TypeVar("T")


class UserError(ValueError):
    """A request that is not valid. The message says what was asked, why it is not valid, and what is."""


def meant(name: Any, known: Iterable[str]) -> str:
    """The question whether the most similar known name was meant, after a blank; empty where none is similar."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""


def present(value: T | None, absence: str) -> T:
    """The value. ValueError with `absence` where there is none: a fault of the program, not of the request."""
    if value is None:
        raise ValueError(absence)
    return value
