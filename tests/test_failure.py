"""What may be said of an error."""

import errno
import os
import sys

import pytest
import torch

from patientdx.cli import ending
from patientdx.core import redaction
from patientdx.core.errors import UserError

RECORD = "Patient, 71 years: heart rate 118 bpm"


def caught(error: BaseException) -> BaseException:
    """The error after it was raised here."""
    try:
        raise error
    except type(error) as found:
        return found


def read_a_record() -> None:
    raise ValueError(f"cannot parse {RECORD}")


def raised(step) -> Exception:
    try:
        step()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def chained() -> None:
    try:
        read_a_record()
    except ValueError as error:
        raise RuntimeError(RECORD) from error


@pytest.mark.parametrize("step", [read_a_record, chained])
def test_a_message_that_may_quote_a_record_is_kept_of_open_data_alone(step):
    error = raised(step)
    kind = type(error).__name__
    said = redaction.describe(error)
    assert said.startswith(f"{kind} in tests/test_failure.py:")
    assert said.endswith("; its message may quote a record and is not kept (HYDRA_FULL_ERROR=1 shows it on a terminal)")
    assert "heart rate" not in said
    # A line of code is shown, but none of its values.
    assert "118" not in "\n".join(redaction.trace(error)).replace('RECORD = "', "")
    assert RECORD in redaction.describe(error, open_data=True)


@pytest.mark.parametrize("open_data", [False, True])
@pytest.mark.parametrize("is_terminal", [False, True])
def test_whole_tracebacks_are_for_open_data_and_for_terminals(monkeypatch, capsys, open_data, is_terminal):
    """The error files of submitit's jobs are no terminal, and stay."""
    monkeypatch.setenv("PATIENTDX_FRAMES", "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    assert ending.report_error(raised(read_a_record), open_data=open_data) == 1
    said = capsys.readouterr().err
    assert ("Traceback" in said) == (RECORD in said) == (open_data or is_terminal)


def test_a_trace_has_the_cause_first_and_no_place_of_this_machine():
    lines = redaction.trace(raised(chained))
    assert lines[-1] == "RuntimeError"
    assert lines.index("ValueError") < lines.index("RuntimeError")
    assert any(line.startswith("tests/test_failure.py:") and "in read_a_record" in line for line in lines)
    assert os.fspath(os.getcwd()) not in "\n".join(lines)


def test_a_refusal_is_its_message():
    assert redaction.describe(UserError("lambda=2 is outside [0, 1]")) == "lambda=2 is outside [0, 1]"


def allocate() -> None:
    torch.empty(2**50)


def python_allocates() -> None:
    raise MemoryError


def wrapped() -> None:
    try:
        allocate()
    except RuntimeError as error:
        raise ValueError("could not load") from error


@pytest.mark.parametrize("step", [allocate, python_allocates, wrapped])
def test_memory_that_is_short_is_said_with_what_helps(step):
    said = redaction.describe(raised(step))
    assert said.startswith(
        "out of memory: this machine does not hold this run. Use dtype=bfloat16, fewer jobs at a time"
    )
    assert "(tests/test_failure.py:" in said


def test_a_gpu_that_is_full_is_another_thing():
    said = redaction.describe(caught(torch.OutOfMemoryError("CUDA out of memory")))
    assert said.startswith(
        "out of memory: the GPU does not hold this run. Lower scoring.batch_tokens (16384 unless set)"
    )


def test_errors_of_the_system_and_of_packages_that_see_no_text_are_told():
    error = caught(OSError(errno.EIO, os.strerror(errno.EIO), f"/data/{RECORD}"))
    assert redaction.describe(error).endswith(": Input/output error")
    said = redaction.describe(raised(lambda: torch.nn.Linear(2, 3)(torch.zeros(5))))
    assert said.startswith("RuntimeError in tests/test_failure.py:")
    assert "size mismatch" in said or "shapes cannot be multiplied" in said


def test_an_error_that_was_never_raised_has_no_place():
    assert redaction.describe(KeyError("a"), open_data=True) == "KeyError in an unknown location: 'a'"
