"""Runs run.py several times as __main__, each time in a fork, so that the imports are paid once. JSON in, JSON out."""

import json
import os
import runpy
import sys
import tempfile
import traceback
from pathlib import Path

import patientdx.pipeline
import patientdx.session
import patientdx.sweep


def _refuse_loading(*arguments, **options):
    raise AssertionError("a language model was about to be loaded")


def _child(program: str, arguments: list[str], out: Path, err: Path) -> None:
    for stream, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.argv = [program, *arguments]
    code: object = 0
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def main() -> None:
    asked = json.load(sys.stdin)
    if not asked["models_may_load"]:
        patientdx.session.load_model = _refuse_loading
    ended = []
    with tempfile.TemporaryDirectory() as away:
        out, err = Path(away, "out"), Path(away, "err")
        for arguments in asked["commands"]:
            child = os.fork()
            if child == 0:
                _child(asked["run"], arguments, out, err)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            ended.append((arguments, code, out.read_text(), err.read_text()))
    json.dump(ended, sys.stdout)


if __name__ == "__main__":
    main()
