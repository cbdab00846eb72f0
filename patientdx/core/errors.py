"""The one exception whose message is written for the user, and the check of what a run may lack."""

from typing import TypeVar

T = TypeVar("T")


class UserError(ValueError):
    """A request that is not valid. The message says what was asked, why it is not valid, and what is."""


def present(value: T | None, absence: str) -> T:
    """The value. ValueError with `absence` where there is none: a fault of the program, not of the request."""
    if value is None:
        raise ValueError(absence)
    return value
