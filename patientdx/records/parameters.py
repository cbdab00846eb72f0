"""Checks of the plain values that a user gives in a task's yaml or on the command line."""

from collections.abc import Iterable

from patientdx.core.errors import UserError

OPTIONAL = ("limit", "train_limit")  # None means no limit


def check_numbers(**values: tuple[object, int]) -> None:
    """Check whole numbers, given as name=(value, minimum). A name in OPTIONAL may be None.

    Raises UserError for the first value that is not a whole number of at least the minimum.
    """
    for name, (value, minimum) in values.items():
        if name in OPTIONAL and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            key = name if name == "seed" else f"task.{name}"
            raise UserError(f"{key}={value!r}: a whole number of {minimum} or more is needed.")


def check_choice(name: str, value: object, known: Iterable[str]) -> None:
    """Raise UserError unless `value` of the key task.<name> is one of `known`."""
    known = tuple(known)
    if value not in known:
        raise UserError(f"task.{name}={value!r}: choose {' or '.join(known)}.")
