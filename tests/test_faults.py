"""What goes wrong in the middle of a sweep costs what it must and no more, and the same command does the rest."""

import csv
import json
from pathlib import Path

import pytest
from command_line import forked, killed, rows_of, small

from patientdx.evaluation.store import read_sealed_json

SWEEP = ("merge=slerp", "lambda=0.2,0.4")
ROUNDS = 5


def results(study: Path) -> dict[str, list[dict]]:
    """What every run of a study found."""
    return {path.name: rows_of(path) for path in study.glob("mortality_*")}


def single(arguments: list[str], place: Path) -> list[str]:
    """One run of a sweep alone."""
    return [*arguments[1:-1], "lambda=0.2", f"output={place / 'first'}"]


def scores(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (output / "scores").glob("*.parquet") if path.name[0] != "."}


@pytest.fixture(scope="module")
def arguments(tiny_base, tiny_pivot) -> list[str]:
    return ["-m", *small(tiny_base, tiny_pivot), *SWEEP]


def test_a_sweep_killed_at_random_steps_ends_with_the_same_bits(tmp_path, arguments):
    """Kills between any two things that a sweep does to a file or folder of its output."""
    undisturbed = tmp_path / "counted"
    codes = killed(tmp_path, arguments, first=single(arguments, tmp_path), kills=ROUNDS, seed=7)
    assert sum(code == -9 for starts in codes for code in starts) == ROUNDS
    assert max(map(len, codes)) > 2  # some were killed more than once
    told = (undisturbed / "default/sweep.csv").read_bytes()
    for number, starts in enumerate(codes):
        assert starts[-1] == 0
        output = tmp_path / str(number)
        assert (output / "default/sweep.csv").read_bytes() == told
        assert results(output / "default") == results(undisturbed / "default")
        assert scores(output) == scores(undisturbed)
        assert list((output / "default/.sweeps").iterdir()) == []
        assert sorted(path.name for path in (output / "default/sweep").iterdir()) == ["0.json", "1.json"]


@pytest.fixture(scope="module")
def errors(tmp_path_factory, arguments) -> tuple[Path, dict]:
    """Sweeps in which something fails, each started again without the fault."""
    folder = tmp_path_factory.mktemp("faults")
    happening = {
        "full disk": {"kind": "full_disk", "after": 3},
        "memory": {"kind": "score", "at": 7, "error": "memory"},
        "gpu": {"kind": "score", "at": 1, "error": "gpu"},
        "key": {"kind": "score", "at": 7, "error": "key"},
    }
    commands, wrong = {"undisturbed": [*arguments, "output=undisturbed"]}, [None]
    for name, fault in happening.items():
        command = [*arguments, f"output={name.replace(' ', '_')}"]
        commands |= {name: command} | ({} if name == "key" else {f"{name}, again": command})
        wrong += [fault] if name == "key" else [fault, None]
    commands["single"] = [*single(arguments, folder), "output=single"]
    wrong.append({"kind": "score", "at": 1, "error": "key"})
    tracked = [word.replace("tracking=none", "tracking=wandb_offline") for word in single(arguments, folder)]
    for becomes in ("nothing", "killed", "recorded", "recorded, again"):
        commands[becomes] = [*tracked, "output=tracked"]
        wrong.append({"kind": "tracker", "becomes": becomes.partition(",")[0]})
    ended = forked(folder, list(commands.values()), first=single(arguments, folder), errors=wrong)
    return folder, dict(zip(commands, ended, strict=True))


@pytest.mark.parametrize("name", ["full disk", "memory", "gpu"])
def test_the_same_command_does_the_rest(errors, name):
    folder, ended = errors
    again = ended[f"{name}, again"]
    assert again.returncode == 0, again.stderr
    table, told = (folder / one / "default/sweep.csv" for one in (name.replace(" ", "_"), "undisturbed"))
    assert table.read_bytes() == told.read_bytes()


def test_out_of_memory_in_one_job_leaves_the_others(errors):
    folder, ended = errors
    said = (
        "out of memory: this machine does not hold this run. Use dtype=bfloat16, fewer jobs at a time "
        "(hydra.launcher.n_jobs=1) or a machine with more; finished results are kept (tests/injected_faults.py:"
    )
    done = ended["memory"]
    assert done.returncode == 1
    assert said in done.stderr
    assert f"run 1 (lambda=0.4) failed: {said}" in done.stdout
    assert "default: 1 runs" in done.stdout
    with (folder / "memory/default/sweep.csv").open() as file:
        assert {row["lambda"] for row in csv.DictReader(file)} >= {"0.0", "0.2", "1.0"}
    # Starting again, what was finished is found.
    assert "1 of 2 runs were already finished" in ended["memory, again"].stdout


def test_a_gpu_that_is_full_is_said_so_and_the_next_job_runs(errors):
    done = errors[1]["gpu"]
    assert done.returncode == 1
    assert (
        "run 0 (lambda=0.2) failed: out of memory: the GPU does not hold this run. Lower scoring.batch_tokens"
    ) in done.stdout
    assert "default: 1 runs" in done.stdout


def test_any_other_error_keeps_its_place(errors):
    folder, ended = errors
    assert ended["key"].returncode == 1
    assert "run 1 (lambda=0.4) failed: KeyError in tests/injected_faults.py:" in ended["key"].stdout
    kept = json.loads((folder / "key/default/sweep/1.json").read_text())
    assert kept["failed"].endswith(": 'heart rate of the patient'")  # the synthetic hospital is open
    assert kept["traceback"][-1] == "KeyError"
    assert any(line.startswith("patientdx/evaluation/inference.py:") for line in kept["traceback"])
    assert str(folder) not in json.dumps(kept["traceback"])


def test_a_full_disk_is_said_and_costs_no_scores(errors):
    done = errors[1]["full disk"]
    assert done.returncode == 2
    assert "cannot be written: No space left on device. Free space or set output= to another folder." in done.stderr
    assert "run 0 (lambda=0.2) was refused: " in done.stdout
    assert "run 1 (lambda=0.4) was refused: " in done.stdout


def test_a_single_run_that_fails_has_its_place_and_code_1(errors):
    done = errors[1]["single"]
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("KeyError in tests/injected_faults.py:")
    assert "patientdx/evaluation/inference.py:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_the_tracker_missed_is_recorded_by_the_same_command(errors):
    """Offline for lack of a network, killed before it was called: results stand, and only the record is made up for."""
    folder, ended = errors
    assert [ended[name].returncode for name in ("nothing", "killed", "recorded", "recorded, again")] == [0, -9, 0, 0]
    for name in ("nothing", "recorded"):
        assert "written: " in ended[name].stdout
    assert "already finished, nothing was computed again: " in ended["recorded, again"].stdout
    (result,) = (folder / "tracked/default").glob("mortality_*")
    assert read_sealed_json(result / "tracked.json") == {"mode": "offline", "id": "a run"}
    (alike,) = (folder / "undisturbed/default").glob("mortality_slerp_lambda=0.2_*")
    assert rows_of(result) == rows_of(alike)
