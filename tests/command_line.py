"""run.py as a user starts it, on tiny models and a synthetic hospital of 60 stays."""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from select import select

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from patientdx.evaluation.config.run_config import RunConfig, parse

ROOT = Path(__file__).resolve().parents[1]
RUN, CONSOLE = ROOT / "run.py", ROOT / "patientdx/cli/__main__.py"  # the programs: `python run.py` and `patientdx`
PILOT, TEST = 17, 24  # stays of `small`


def tiny(base: Path, pivot: Path, *more: str) -> list[str]:
    """The overrides of a run of tiny models on a task of any kind, which takes a second."""
    return [
        f"base_model.source={base}",
        f"pivot_model.source={pivot}",
        "pivot_model.adapter=null",
        "dtype=float32",
        "bootstrap.resamples=100",
        "tracking=none",
        "splits=[test]",
        *more,
    ]


def small(base: Path, pivot: Path, *more: str) -> list[str]:
    """The same on the synthetic hospital: language models alone, and no evaluation for the clinic."""
    stays = ("task.synthetic.stays=60", "task.threads=1", "baselines=[]", "clinical=false")
    return [*tiny(base, pivot)[:-1], "splits=[pilot,test]", *stays, *more]


def without_task(words: Sequence[str]) -> list[str]:
    """The same without a task, whose keys there is nothing to override with."""
    return [*(word for word in words if not word.startswith(("task.", "baselines=", "clinical="))), "task=none"]


def composed(*overrides: str, **options: bool) -> DictConfig:
    """The configuration of a command as Hydra composes it. options: of Hydra's `compose`."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", list(overrides), **options)


def parsed(*overrides: str) -> RunConfig:
    """The configuration of a command, validated."""
    return parse(composed(*overrides))


def settings(base: Path, pivot: Path, output: Path, *more: str) -> RunConfig:
    """That of the run of `small`."""
    return parsed(*small(base, pivot, f"output={output}", *more))


def tiny_settings(base: Path, pivot: Path, output: Path, *more: str) -> RunConfig:
    """That of the run of `tiny`."""
    return parsed(*tiny(base, pivot, f"output={output}", *more))


def listed(error: Exception, mark: str) -> list[str]:
    """What a message lists below its first line; each line begins with `mark`, which is left out."""
    lines = str(error).split("\n")[1:]
    assert all(line.startswith(mark) for line in lines)
    return [line.removeprefix(mark) for line in lines]


def environment() -> dict[str, str]:
    """This process's, with one thread and no GPU."""
    return os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def launch(folder: Path, *arguments: str, program: Sequence[str] = (sys.executable,)) -> subprocess.CompletedProcess:
    """`python run.py <arguments>` in `folder`, to its end."""
    return subprocess.run(
        [*program, str(RUN), *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )


def forked(
    folder: Path,
    commands: Sequence[Sequence[str]],
    *,
    models_may_load: bool = True,
    first: Sequence[str] | None = None,
    errors: Sequence[dict | None] | None = None,
    at_once: bool = False,
    processes: int = 1,
    pictures: bool = False,
    program: Path = RUN,
) -> list[subprocess.CompletedProcess]:
    """The same for several commands, each in a process of its own that starts with everything imported.

    Unless `models_may_load`, loading a language model ends the command with a traceback. first: a single run before,
    whose task and model are at hand in all others (not a sweep: its page starts threads that no fork has). faults: what
    is to happen in each, see injected_faults.py. at_once: all run at the same time. processes: so many run each command
    together, as a launcher starts them. pictures: whether they and the page of a sweep are drawn, which takes seconds.
    program: what runs.
    """
    asked = {"models_may_load": models_may_load, "first": first, "faults": errors, "pictures": pictures}
    asked |= {"at_once": at_once, "processes": processes, "run": str(program)}
    found = _forked(folder, {"commands": commands, "killed": None} | asked)
    return [subprocess.CompletedProcess(*one) for one in found["ended"]]


def killed(folder: Path, arguments: Sequence[str], *, first: Sequence[str], kills: int, seed: int) -> list[list[int]]:
    """Sweeps that are killed at random steps and started again; see forked_commands.py. Exit codes of each's starts."""
    asked = {"models_may_load": True, "first": first, "faults": None, "pictures": False, "commands": []}
    asked |= {"at_once": False, "processes": 1, "run": str(RUN)}
    rounds = {"arguments": arguments, "kills": kills, "seed": seed, "place": str(folder)}
    return _forked(folder, asked | {"killed": rounds})["killed"]


# The first words of variables that the interpreter or a library reads when it starts; a fork gets all others.
_READ_AT_START = ("PYTHON", "LC_", "LANG", "XDG_", "HF_", "TRANSFORMERS_", "OMP_", "MKL_", "CUDA_")
_SERVERS: list[tuple[dict[str, str], subprocess.Popen]] = []  # with the variables that each read when it was started


def _server(wanted: dict[str, str]) -> subprocess.Popen:
    """The process that forks for all tests in this environment; beside the first one only the last is kept."""
    read = {name: value for name, value in wanted.items() if name.startswith(_READ_AT_START)}
    for started_with, server in _SERVERS:
        if started_with == read:
            return server
    _stop(1)
    command = [sys.executable, str(ROOT / "tests" / "forked_commands.py")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    _SERVERS.append((read, subprocess.Popen(command, env=wanted, **pipes)))
    return _SERVERS[-1][1]


@atexit.register
def _stop(kept: int = 0) -> None:
    while len(_SERVERS) > kept:
        with _SERVERS.pop()[1] as process:
            process.stdin.close()


def _forked(folder: Path, asked: dict) -> dict:
    wanted = environment() | {"PYTHONPATH": str(ROOT)}
    wanted.pop("PYTEST_CURRENT_TEST", None)
    server = _server(wanted)
    with tempfile.TemporaryDirectory() as name:
        said, answer = Path(name) / "said", Path(name) / "answer"
        told = {"folder": str(folder), "said": str(said), "answer": str(answer), "environment": wanted}
        server.stdin.write(json.dumps(told | asked) + "\n")
        server.stdin.flush()
        limit = 600 + 60 * len(asked["commands"])  # seconds
        if not select([server.stdout], [], [], limit)[0]:
            server.kill()
            _stop()
            raise TimeoutError(f"no end within {limit} s: {asked['commands']}")
        assert server.stdout.readline() == "0\n", said.read_text()
        return json.loads(answer.read_text())


def rows_of(folder: Path) -> list[dict]:
    """What metrics.json of a result folder holds, model by split."""
    return json.loads((folder / "metrics.json").read_text())["rows"]


def the_one(folder: Path, pattern: str) -> Path:
    """The only path in `folder` that matches."""
    (found,) = folder.glob(pattern)
    return found
