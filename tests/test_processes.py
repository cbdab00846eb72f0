"""Two processes, as `accelerate launch` starts them on a machine without a GPU."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, environment, forked, launch, rows_of, small

# `--multi_gpu` is accelerate's word for several processes; without it, it starts one where there is no second GPU.
ACCELERATE = (
    *(str(Path(sys.executable).with_name("accelerate")), "launch", "--multi_gpu", "--num_processes", "2"),
    # Port 0 lets it find a free one: two test runs may share a machine.
    *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
)
SWEEP = ("-m", "lambda=0.2,0.4")


@pytest.fixture(scope="module")
def alone(place, tiny_base, tiny_pivot) -> subprocess.CompletedProcess:
    """A sweep in one process."""
    (done,) = forked(place, [[SWEEP[0], *small(tiny_base, tiny_pivot), "output=alone", SWEEP[1]]], pictures=True)
    return done


@pytest.fixture(scope="module")
def pair(place, tiny_base, tiny_pivot) -> subprocess.CompletedProcess:
    """The same in two, started by accelerate's own program; a single run in two is in test_evaluated_run.py."""
    return launch(place, SWEEP[0], *small(tiny_base, tiny_pivot), "output=pair", SWEEP[1], program=ACCELERATE)


@pytest.mark.usefixtures("alone")
def test_a_sweep_in_two_processes_gives_the_same_table_and_metrics(pair, place):
    assert pair.returncode == 0, pair.stderr
    ours, theirs = place / "alone/default", place / "pair/default"
    assert (ours / "sweep.csv").read_bytes() == (theirs / "sweep.csv").read_bytes()
    names = [sorted(path.name for path in folder.iterdir()) for folder in (ours, theirs)]
    assert names[0] == names[1]
    runs = [name for name in names[0] if name.startswith("mortality_")]
    assert len(runs) == 2
    for name in runs:
        assert rows_of(ours / name) == rows_of(theirs / name)
        assert json.loads((theirs / name / "provenance.json").read_text())["scoring"]["processes"] == 2
    assert len(list(place.glob("pair/scores/*"))) == len(list(place.glob("alone/scores/*")))


def test_only_the_first_process_speaks(pair, alone):
    assert len(pair.stdout.splitlines()) == len(alone.stdout.splitlines())
    assert pair.stderr.strip() == ""


def test_a_refusal_ends_both_and_is_said_once(place, tiny_base, tiny_pivot):
    command = [*small(tiny_base, tiny_pivot), "task.limit=1", "output=refused"]
    (done,) = forked(place, [command], processes=2)
    assert done.returncode == 2
    assert done.stderr.count("AUROC needs both outcomes in every scored split") == 1
    assert done.stdout == ""


ASYMMETRIC = """
import sys
from patientdx.core.distributed import all_gather, broadcast, run_on_all_ranks
from patientdx.core.errors import UserError
from patientdx.evaluation.session import Session
rank = Session().accelerator("auto").process_index
assert broadcast(rank) == 0
assert all_gather(rank) == [0, 1]
assert run_on_all_ranks(lambda: rank) == rank
def refused():
    if rank == 1:
        raise UserError("one prompt does not fit")
def broken():
    if rank == 1:
        raise KeyError("a fault of ours")
for step in (refused, broken):
    try:
        run_on_all_ranks(step)
    except Exception as error:
        print(rank, type(error).__name__, error, flush=True)
"""


def test_what_fails_in_one_process_fails_in_both():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = environment() | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", ASYMMETRIC],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=600)[0] for process in started]
    assert said[1] == "1 UserError one prompt does not fit\n1 KeyError 'a fault of ours'\n"
    refused, failed = said[0].splitlines()
    assert refused == "0 UserError one prompt does not fit"
    # What the other process's error says stays there: it may quote a record.
    assert failed.startswith("0 RuntimeError another process failed: KeyError in patientdx/core/distributed.py:")
    assert "a fault of ours" not in failed
