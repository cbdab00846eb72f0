"""Messages on stderr, once for all processes of a launch."""

import os

from rich.console import Console


def is_first_process() -> bool:
    """Whether this is the process, of those that accelerate started, that writes and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def print_error(text: str) -> None:
    """One line on stderr, once for all processes."""
    if is_first_process():
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(text)
