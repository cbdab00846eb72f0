"""The same sweep by Hydra's launchers: in this process, in two workers of joblib, in jobs of submitit."""

import json
import subprocess

import pytest
import submitit
from command_line import ROOT, forked, small
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict

# Two points, and one that is refused: its word must come back from wherever it ran.
SWEEP = "lambda=0.2,0.6,1.5"
LAUNCHERS = {
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit": ("hydra/launcher=submitit_local",),
    "chunks": ("hydra/launcher=submitit_local", "chunks=2"),
}


@pytest.fixture(scope="module")
def arguments(tiny_base, tiny_pivot) -> list[str]:
    return ["-m", *small(tiny_base, tiny_pivot), SWEEP]


@pytest.fixture(scope="module")
def basic(place, arguments) -> subprocess.CompletedProcess:
    return forked(place, [[*arguments, "output=basic"]])[0]


@pytest.fixture(scope="module", params=LAUNCHERS)
def other(request, place, arguments) -> tuple[str, subprocess.CompletedProcess]:
    (done,) = forked(place, [[*arguments, f"output={request.param}", *LAUNCHERS[request.param]]])
    return request.param, done


def test_another_launcher_leaves_the_same(basic, other, place):
    name, done = other
    assert (done.returncode, basic.returncode) == (2, 2), done.stderr
    assert (place / name / "default/sweep.csv").read_bytes() == (place / "basic/default/sweep.csv").read_bytes()
    scores = [{path.name: path.read_bytes() for path in (place / one / "scores").iterdir()} for one in (name, "basic")]
    assert scores[0] == scores[1]
    assert len(scores[0]) == 8
    for number in (0, 1):
        states = [json.loads((place / one / f"default/sweep/{number}.json").read_text()) for one in (name, "basic")]
        assert states[0]["folder"] == states[1]["folder"]
        assert all(f"lambda={(0.2, 0.6)[number]}" in state["overrides"] for state in states)
    if name == "chunks":  # two processes for three points; each loads the model once
        assert len([path for path in (place / name / "default/.submitit").iterdir() if path.name.isdigit()]) == 2


def test_what_was_refused_elsewhere_is_said_here(other):
    _, done = other
    assert "run 2 (lambda=1.5) was refused: 1 problem in this configuration\n  lambda=1.5 is outside" in done.stdout
    assert "run 2 (lambda=1.5) will be refused: 1 problem" in done.stdout  # before any process was started
    assert "checked: 2 of 3 can run" in done.stdout
    assert "default: 2 runs" in done.stdout
    assert "Warning" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def slurm(tmp_path) -> DictConfig:
    """The config of a sweep that slurm_8gpu starts, with what a cluster may ask for."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        told = {"partition": "gpu", "account": "lab", "qos": "high", "gres": "gpu:a100:1", "gpus_per_node": "null"}
        words = [f"hydra.launcher.{key}={value}" for key, value in told.items()]
        words = ["machine=slurm_8gpu", *words, f"output={tmp_path}"]
        config = compose("config", words, return_hydra_config=True)
        with open_dict(config.hydra.job):
            config.hydra.job.name = "run"
            yield config


def test_the_slurm_overlay_takes_eight_gpus_one_a_job(slurm, tmp_path, monkeypatch):
    """Submitit's own text for sbatch, from the overlay through Hydra's launcher; nothing is submitted."""
    for program in ("srun", "sbatch"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    texts = []

    def map_array(self, *given):
        self._executor.parameters["map_count"] = 22
        texts.append(self._executor._make_submission_file_text("python -m job", "id"))
        return []

    monkeypatch.setattr(submitit.AutoExecutor, "map_array", map_array)
    launcher = instantiate(slurm.hydra.launcher)
    launcher.setup(hydra_context=None, task_function=None, config=slurm)
    assert launcher.launch([["lambda=0.1"], ["lambda=0.2"]], initial_job_idx=0) == []
    text = texts[0]
    for line in (
        "array=0-21%8",
        "gres=gpu:a100:1",
        "partition=gpu",
        "account=lab",
        "qos=high",
        "requeue",
        "cpus-per-task=8",
        "mem=64GB",
        "time=720",
        "signal=USR2@120",
    ):
        assert f"#SBATCH --{line}\n" in text, text
    assert "gpus-per-node" not in text
    assert "export OMP_NUM_THREADS=8\n" in text
    assert slurm.chunks == 8
