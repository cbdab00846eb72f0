"""The one exception whose message is written for the user, and what a misspelt name may mean."""

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(ValueError):
    """A request that is not valid. The message says what was asked, why it is not valid, and what is."""


def meant(name: Any, known: Iterable[str]) -> str:
    """The question whether the most similar known name was meant, after a blank; empty where none is similar."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""
