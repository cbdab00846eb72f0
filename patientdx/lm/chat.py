"""The one way from a text to the token ids of a prompt: by the chat template of a chat model, else as it is.

A prompt ends where the answer begins. What a tokenizer would add behind it is left out, the date in a template is
pinned, and a template behind whose prompt no answer can begin is refused.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from patientdx.core.errors import UserError

# Templates that write today's date get this one, which those of Llama 3 have by default: the same command has the same
# prompts on every day.
DATE = datetime(2024, 7, 26)
_QUESTION, _ANSWER = "Yes or no?", "Qx7"  # of a trial
SECONDS = 10.0  # of one message; templates take a thousandth of one
_ARGUMENTS = "chat_template_arguments"  # attribute of a tokenizer


def with_arguments(tokenizer: Any, arguments: Mapping[str, Any]) -> Any:
    """The tokenizer; its chat template is called with these arguments from now on (`enable_thinking`, …).

    `chat_template` among them names one of several templates.
    """
    setattr(tokenizer, _ARGUMENTS, dict(arguments))
    return tokenizer


def render(tokenizer: Any, text: str, chat: bool) -> str:
    """The text of a prompt; UserError where the chat template cannot render it."""
    return _rendered(tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True) if chat else text


def encode(tokenizer: Any, texts: Sequence[str], chat: bool) -> list[list[int]]:
    """Token ids of rendered prompts, without special tokens behind the last token of the text.

    A chat template writes the special tokens itself. Without one the tokenizer adds its own; some end every text with
    EOS, behind which no model was ever taught to answer.
    """
    if not texts:
        return []
    if chat:
        return tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    encoded = tokenizer(list(texts), return_special_tokens_mask=True)
    rows = []
    for ids, added in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
        length = len(ids)
        while length and added[length - 1]:
            length -= 1
        rows.append(list(ids[:length]))
    return rows


def check_template(tokenizer: Any, chat: bool) -> None:
    """UserError where a chat is configured and the template is absent, damaged, or opens no answer."""
    if not chat:
        return
    if not tokenizer.chat_template:
        raise UserError(
            f"the model is marked chat_template: true, but the tokenizer in {tokenizer.name_or_path} has no chat "
            "template. "
            "Set base_model.chat_template=false, or give a folder whose tokenizer has one."
        )
    question = {"role": "user", "content": _QUESTION}
    prompt = _rendered(tokenizer, [question], add_generation_prompt=True)
    if prompt.rfind("<think>") > prompt.rfind("</think>"):
        raise _no_answer(tokenizer, "it opens <think>, so that the model would reason before it answers")
    between = _text_before_answer(tokenizer, prompt, question, "assistant")
    # A template that writes both roles alike does not tell where answers begin.
    if between and between != _text_before_answer(tokenizer, prompt, question, "user"):
        raise _no_answer(tokenizer, f"an answer would begin with {between!r} instead")


def _text_before_answer(tokenizer: Any, prompt: str, question: dict[str, str], role: str) -> str | None:
    """What stands between the prompt and the next message of a role; None where the template does not tell."""
    try:
        text = _rendered(tokenizer, [question, {"role": role, "content": _ANSWER}], add_generation_prompt=False)
    except UserError:
        return None
    return text[len(prompt.rstrip()) :].partition(_ANSWER)[0].strip() if text.startswith(prompt.rstrip()) else None


def _rendered(tokenizer: Any, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
    arguments = getattr(tokenizer, _ARGUMENTS, {})
    where = f"the chat template in {tokenizer.name_or_path}"
    remedy = "Set base_model.template_args to what the template asks for, or base_model.chat_template=false."
    options = {"add_generation_prompt": add_generation_prompt, "tokenize": False}
    try:
        with _pinned_date(), _time_limit(UserError(f"{where} does not end within {SECONDS:g} s. {remedy}")):
            return tokenizer.apply_chat_template(messages, **options, **arguments)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a template is a program of others, which may raise anything
        # Its message may quote the message that it renders: it is shown where that holds no record.
        trial = all(message["content"] in (_QUESTION, _ANSWER) for message in messages)
        cause = type(error).__name__ + (f": {str(error).partition(chr(10))[0]}" if trial else "")
        names = tokenizer.chat_template if isinstance(tokenizer.chat_template, Mapping) else {}
        named = f" It has the templates {', '.join(names)}: base_model.template_args={{chat_template: …}} takes one."
        raise UserError(
            f"{where} cannot render a question without a system message ({cause}).{named if names else ''} {remedy}"
        ) from None


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


class _PinnedClock(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        """The pinned date."""
        return DATE


@contextmanager
def _pinned_date() -> Iterator[None]:
    """transformers gives templates a function of today and lets no caller replace it: so its clock stands still."""
    from transformers.utils import chat_template_utils

    name = "datetime"
    clock = getattr(chat_template_utils, name)
    setattr(chat_template_utils, name, _PinnedClock)
    try:
        yield
    finally:
        setattr(chat_template_utils, name, clock)


def _no_answer(tokenizer: Any, reason: str) -> UserError:
    return UserError(
        f"no answer can begin behind the prompt of the chat template in {tokenizer.name_or_path}: {reason}. Set "
        "base_model.template_args, as in base_model.template_args={enable_thinking: false}, or "
        "base_model.chat_template=false."
    )
