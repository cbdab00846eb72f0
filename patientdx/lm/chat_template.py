"""A tokenizer's chat template, which is a program of others: rendered within a time, and its errors named."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from patientdx.core.errors import UserError

SECONDS = 10.0  # of one message; templates take a thousandth of one
_TRIAL = ({"role": "user", "content": "text"},)


def check_rendering(tokenizer: Any) -> None:
    """Render a message that holds no record. UserError with the cause where the template is damaged or does not end."""
    rendered(tokenizer, _TRIAL, tokenize=False, quotes_nothing=True)


def rendered(
    tokenizer: Any, messages: Sequence[Mapping[str, str]], *, tokenize: bool = True, quotes_nothing: bool = False
) -> Any:
    """The messages with the opening of the answer: their token ids, or their text. UserError as in `check_rendering`.

    quotes_nothing: the messages hold no record, so that the template's own message may be shown.
    """
    where = f"the chat template of the tokenizer in {tokenizer.name_or_path}"
    remedy = "Download the folder again, or set base_model.chat_template=false."
    try:
        with _time_limit(UserError(f"{where} does not end within {SECONDS:g} s. {remedy}")):
            made = tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=True, tokenize=tokenize, return_dict=tokenize
            )
            return made["input_ids"] if tokenize else made
    except (UserError, MemoryError):
        raise
    except Exception as error:
        # A template's message may quote the message that it renders.
        cause = f"{type(error).__name__}: {error}" if quotes_nothing else type(error).__name__
        raise UserError(f"{where} cannot be rendered ({cause}). {remedy}") from None


@contextmanager
def _time_limit(error: Exception) -> Iterator[None]:
    """Raise `error` in the block after SECONDS. Only the main thread can be interrupted so; others run on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise error

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
