"""How a command ends: with an exit code and one message, and without frames of Hydra."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable

from patientdx.cli.messages import accept_all_characters, is_first_process, print_error

INTERRUPTED = 130  # what a shell gives for Ctrl-C
_FRAMES = "PATIENTDX_FRAMES"  # HYDRA_FULL_ERROR as the user set it
_STOPPED = "stopped by Ctrl-C"


def ended(command: Callable[[], object]) -> int:
    """Run a command to its end, and end its sweep where it has one; returns the exit code.

    0, or what the command returns or exits with; 2 for an error that the user can mend, 1 for another; 130 for Ctrl-C.
    """
    if not is_first_process():
        logging.disable()
        warnings.simplefilter("ignore")
    accept_all_characters()
    # Hydra then raises what it would print with its frames. What the user set is for this program.
    os.environ.setdefault(_FRAMES, os.environ.get("HYDRA_FULL_ERROR", "0"))
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        code = _exit_code(command())
    except SystemExit as end:
        code = _exit_code(end.code)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would cut off the table
        _close_sweep(_STOPPED)
        print_error(f"{_STOPPED}. What is finished is kept: the same command goes on from there.")
        return INTERRUPTED
    except Exception as error:
        code = report_error(error)
        _close_sweep()
        return code
    # A launcher that lost a worker exits without `on_multirun_end`; what the others finished is shown all the same.
    closed = _close_sweep()
    return code or closed


def report_error(error: Exception, *, open_data: bool = False) -> int:
    """Print the error, with the lines of code where the user cannot mend it; returns the exit code, 2 or 1.

    open_data: its message may be shown whatever it quotes. HYDRA_FULL_ERROR=1 shows the messages of other data on a
    terminal alone: what is written elsewhere stays, as the error files of submitit's jobs do.
    """
    from patientdx.cli.user_errors import user_error  # not at the top: --help does without its Hydra
    from patientdx.core import redaction

    mended = user_error(error)
    wants_frames = os.environ.get(_FRAMES, os.environ.get("HYDRA_FULL_ERROR")) == "1"
    if mended is None and wants_frames and (open_data or sys.stderr.isatty()):
        traceback.print_exception(error)
    elif mended is None:
        print_error("\n".join(redaction.trace(error)))
    print_error(redaction.describe(mended or error, open_data=open_data))
    return 1 if mended is None else 2


def _exit_code(value: object) -> int:
    """The code of what a program returns or exits with; a text is an error's message."""
    if isinstance(value, str):
        print_error(value)
    return value if isinstance(value, int) else int(isinstance(value, str))


def _close_sweep(reason: str | None = None) -> int:
    """Show the table of the sweep of this process, if there is one; its exit code."""
    sweep = sys.modules.get("patientdx.cli.sweep")
    return 0 if sweep is None else sweep.close(reason)
