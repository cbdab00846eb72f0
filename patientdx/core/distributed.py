"""Values and errors shared by the processes of one run (torchrun, accelerate launch); a run of one process too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from patientdx.core.errors import UserError
from patientdx.core.redaction import describe


def broadcast(value: Any) -> Any:
    """The first process's value, in every process."""
    from accelerate.utils import broadcast_object_list  # not at the top: a merge to disk starts without it

    box = [value]
    broadcast_object_list(box)
    return box[0]


def all_gather(value: Any) -> list[Any]:
    """Every process's value, in the order of the processes, in every process."""
    from accelerate.utils import gather_object

    return gather_object([value])


def run_on_all_ranks(step: Callable[[], Any]) -> Any:
    """What `step` returns in this process, once it has ended in all.

    An error in one process is raised in all, so that no process waits for another for ever: a UserError is a
    UserError everywhere; any other error is a RuntimeError in the other processes, with a message without its data.
    """
    value, error = None, None
    try:
        value = step()
    except Exception as caught:
        error = caught
    errors = all_gather(None if error is None else (isinstance(error, UserError), describe(error)))
    if error is not None:
        raise error
    for is_user_error, message in filter(None, errors):
        raise UserError(message) if is_user_error else RuntimeError(f"another process failed: {message}")
    return value
