"""Runs run.py several times as __main__, each time in a fork, so that the imports are paid once. JSON in, JSON out."""

import json
import os
import random
import runpy
import sys
import tempfile
import traceback
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import injected_faults

import patientdx.pipeline
import patientdx.session
import patientdx.sweep


def _refuse_loading(*arguments, **options):
    raise AssertionError("a language model was about to be loaded")


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


def _started(program: str, arguments: list[str], fault: dict[str, Any] | None, out: Path, err: Path) -> int:
    """The process id of a fork that runs run.py, and in which `fault` happens."""
    child = os.fork()
    if child:
        return child
    for stream, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    if fault is not None:
        injected_faults.inject(**fault)
    code = _run(program, arguments)
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def _ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _all(program: str, commands: list[list[str]], faults: list, at_once: bool, away: Path) -> list[tuple]:
    """(arguments, exit code, stdout, stderr) of each command, one after the other or all at once."""
    ended, running = [], []
    for number, (arguments, fault) in enumerate(zip(commands, faults, strict=True)):
        out, err = away / f"{number}.out", away / f"{number}.err"
        running.append((arguments, _started(program, arguments, fault, out, err), out, err))
        if at_once and number + 1 < len(commands):
            continue
        ended += [(words, _ended(child), out.read_text(), err.read_text()) for words, child, out, err in running]
        running = []
    return ended


def _killed(program: str, arguments: list[str], kills: int, seed: int, place: Path, away: Path) -> list[list[int]]:
    """Kill a sweep and start it again, at a random one of its steps on disk, until it is through; then a new one.

    So often that `kills` hit. Returns, for each sweep, the exit codes of its starts; it is in `place`/<number>.
    """
    draw, codes, out, err = random.Random(seed), [], away / "out", away / "err"
    counted = place / "counted"
    fault = {"kind": "count", "below": str(counted), "into": str(away / "steps")}
    if _ended(_started(program, [*arguments, f"output={counted}"], fault, out, err)) != 0:
        raise RuntimeError(err.read_text())
    steps = int((away / "steps").read_text())
    while kills > 0 or codes[-1][-1] != 0:
        if not codes or codes[-1][-1] == 0:
            codes.append([])
        folder = place / str(len(codes) - 1)
        fault = {"kind": "kill", "below": str(folder), "at": draw.randint(1, steps)} if kills > 0 else None
        code = _ended(_started(program, [*arguments, f"output={folder}"], fault, out, err))
        if code not in (0, -9):
            raise RuntimeError(f"exit code {code}: {err.read_text()}")
        codes[-1].append(code)
        kills -= code == -9
    return codes


def main() -> None:
    asked = json.load(sys.stdin)
    program, commands = asked["run"], asked["commands"]
    if asked["first"] is not None:
        # What it remembers is remembered in every fork: they start with task, tokens and model at hand.
        with redirect_stdout(sys.stderr):
            if _run(program, asked["first"]):
                raise RuntimeError("the first command failed")
    if not asked["page"]:
        patientdx.sweep.report.write_report = lambda study: study / "report.html"
    if not asked["models_may_load"]:
        patientdx.session.load_model = _refuse_loading
    with tempfile.TemporaryDirectory() as name:
        away = Path(name)
        faults = asked["faults"] or [None] * len(commands)
        found = {"ended": _all(program, commands, faults, asked["at_once"], away)}
        if asked["killed"] is not None:
            found["killed"] = _killed(program, **asked["killed"] | {"place": Path(asked["killed"]["place"])}, away=away)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
