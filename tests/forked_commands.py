"""Runs run.py as __main__, each time in a fork, so that the imports are paid once for many tests.

One line of JSON for each request on stdin (see command_line.forked), one with its exit code on stdout. Imported beside
what run.py imports is what it imports once it needs it, as long as that starts no thread: no fork has those.
"""

import gc
import json
import os
import random
import runpy
import socket
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import altair  # noqa: F401
import duckdb  # noqa: F401
import injected_faults
import sklearn.compose
import sklearn.ensemble
import sklearn.model_selection  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401
import vl_convert  # noqa: F401

import patientdx.cli.sweep_summary
import patientdx.evaluation.runner
import patientdx.evaluation.session
import patientdx.reporting.pictures
import patientdx.reporting.run_tables
from patientdx.evaluation.registry import ANALYSES, KINDS, members

for package in (KINDS, ANALYSES):
    members(package)  # imports them


def _refuse_loading(*arguments, **options):
    raise AssertionError("a language model was about to be loaded")


def _draw_nothing(chart: object, path: Path) -> None:
    path.write_bytes(b"")


def _run(program: str, arguments: list[str]) -> object:
    """The exit code of run.py in this process."""
    sys.argv = [program, *arguments]
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        return end.code
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _started(
    program: str, arguments: list[str], fault: dict[str, Any] | None, out: Path, err: Path, place: dict[str, str]
) -> int:
    """The process id of a fork that runs run.py, and in which `fault` happens; place: its own among its fellows."""
    child = os.fork()
    if child:
        return child
    os.environ |= place
    for stream, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), stream)
    code: object = 1
    try:  # what is raised here would otherwise go on in a copy of the server
        if fault is not None:
            injected_faults.inject(**fault)
        code = _run(program, arguments)
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code or 0)


def _places(processes: int) -> list[dict[str, str]]:
    """What the environment of each of several processes says, as a launcher leaves it."""
    if processes == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(processes)}
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def _begun(
    program: str, arguments: list[str], fault: dict[str, Any] | None, out: Path, err: Path, processes: int = 1
) -> list[int]:
    """The process ids of run.py in so many processes, which write to the same two files."""
    for file in (out, err):
        file.write_bytes(b"")
    return [_started(program, arguments, fault, out, err, place) for place in _places(processes)]


def _ended(children: list[int]) -> int:
    """The first of their exit codes that is not 0."""
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return next(filter(None, codes), 0)


def _all(
    program: str, commands: list[list[str]], errors: list, at_once: bool, processes: int, away: Path
) -> list[tuple]:
    """(arguments, exit code, stdout, stderr) of each command, one after the other or all at once."""
    ended, running = [], []
    for number, (arguments, fault) in enumerate(zip(commands, errors, strict=True)):
        out, err = away / f"{number}.out", away / f"{number}.err"
        running.append((arguments, _begun(program, arguments, fault, out, err, processes), out, err))
        if at_once and number + 1 < len(commands):
            continue
        ended += [(words, _ended(children), out.read_text(), err.read_text()) for words, children, out, err in running]
        running = []
    return ended


def _killed(program: str, arguments: list[str], kills: int, seed: int, place: Path, away: Path) -> list[list[int]]:
    """Kill a sweep and start it again, at a random one of its steps on disk, until it is through; then a new one.

    So often that `kills` hit. Returns, for each sweep, the exit codes of its starts; it is in `place`/<number>.
    """
    draw, codes, out, err = random.Random(seed), [], away / "out", away / "err"
    counted = place / "counted"
    fault = {"kind": "count", "below": str(counted), "into": str(away / "steps")}
    if _ended(_begun(program, [*arguments, f"output={counted}"], fault, out, err)) != 0:
        raise RuntimeError(err.read_text())
    steps = int((away / "steps").read_text())
    while kills > 0 or codes[-1][-1] != 0:
        if not codes or codes[-1][-1] == 0:
            codes.append([])
        folder = place / str(len(codes) - 1)
        fault = {"kind": "kill", "below": str(folder), "at": draw.randint(1, steps)} if kills > 0 else None
        code = _ended(_begun(program, [*arguments, f"output={folder}"], fault, out, err))
        if code not in (0, -9):
            raise RuntimeError(f"exit code {code}: {err.read_text()}")
        codes[-1].append(code)
        kills -= code == -9
    return codes


def _answer(asked: dict[str, Any]) -> None:
    """Do what a request asks for, in this process, and write what came of it to the file `answer`."""
    program, commands = asked["run"], asked["commands"]
    # What the first one remembers is remembered in every fork: they start with task, tokens and model at hand.
    # It draws nothing, since the renderer of pictures starts threads.
    write_chart, patientdx.reporting.pictures.write_chart = patientdx.reporting.pictures.write_chart, _draw_nothing
    if asked["first"] is not None and _run(program, asked["first"]):
        raise RuntimeError("the first command failed")
    if asked["pictures"]:
        patientdx.reporting.pictures.write_chart = write_chart
    else:
        patientdx.cli.sweep_summary.reporting.write_report = lambda study: study / "report.html"
    if not asked["models_may_load"]:
        patientdx.evaluation.session.load_model = _refuse_loading
    with tempfile.TemporaryDirectory() as name:
        away = Path(name)
        errors = asked["faults"] or [None] * len(commands)
        found = {"ended": _all(program, commands, errors, asked["at_once"], asked["processes"], away)}
        if asked["killed"] is not None:
            found["killed"] = _killed(program, **asked["killed"] | {"place": Path(asked["killed"]["place"])}, away=away)
    Path(asked["answer"]).write_text(json.dumps(found))


def main() -> None:
    gc.freeze()  # no collection in a fork walks through what was imported, and so copies it
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            os.environ.clear()
            os.environ.update(asked["environment"])
            tempfile.tempdir = None  # TMPDIR may be another
            os.chdir(asked["folder"])
            for stream, file in ((0, os.devnull), (1, asked["said"]), (2, asked["said"])):
                os.dup2(os.open(file, os.O_RDONLY if stream == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
            try:
                _answer(asked)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
