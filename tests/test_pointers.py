"""What the jobs of a sweep leave for its end."""

import multiprocessing
import os
from pathlib import Path

import pytest

from patientdx.cli import sweep_state


@pytest.fixture
def begin(tmp_path):
    """Starts a sweep; what still runs at the end is dropped."""
    begun: list[Path] = []

    def started(jobs: int) -> Path:
        begun.append(sweep_state.begin(tmp_path, jobs))
        return begun[-1]

    yield started
    for folder in begun:
        sweep_state.drop(folder)


def leave(folder: Path, job: int, *, reused: bool = False) -> None:
    sweep_state.write_job(folder, job, {"folder": f"result_{job}", "reused": reused, "seconds": {}})


def test_jobs_are_found_in_the_order_of_their_numbers(begin):
    folder = begin(12)
    for job in (11, 2, 10, 0):
        leave(folder, job)
    assert list(sweep_state.read_jobs(folder)) == [0, 2, 10, 11]
    assert sweep_state.job_count(folder) == 12


def test_what_is_published_replaces_the_last_and_is_all_that_is_there(begin, tmp_path):
    for jobs in (3, 1):
        folder = begin(jobs)
        for job in range(jobs):
            leave(folder, job)
        assert sweep_state.publish(folder, tmp_path) == tmp_path / "sweep"
        assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == [f"{job}.json" for job in range(jobs)]
    assert list((tmp_path / ".sweeps").iterdir()) == []


def _until_killed(study: Path, ready) -> None:
    folder = sweep_state.begin(study, 3)
    sweep_state.write_job(folder, 0, {"refused": "no"})
    ready.set()
    os.read(os.pipe()[0], 1)  # for ever


def test_a_sweep_that_runs_is_left_alone_and_a_killed_one_is_cleared(begin, tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    running = context.Process(target=_until_killed, args=(tmp_path, ready))
    running.start()
    assert ready.wait(60)
    (theirs,) = (path for path in sweep_state.running_folder(tmp_path).iterdir() if path.is_dir())
    assert begin(2) != theirs
    assert sweep_state.read_jobs(theirs) == {0: {"refused": "no"}}
    running.kill()
    running.join()
    begin(2)
    assert not theirs.exists()
    assert not theirs.with_suffix(".lock").exists()


def test_progress_counts_jobs_and_guesses_the_rest(begin):
    folder = begin(4)
    began = (folder / "jobs.txt").stat().st_mtime
    assert sweep_state.progress(folder) == "0 of 4 jobs done"
    leave(folder, 0, reused=True)
    assert sweep_state.progress(folder) == "1 of 4 jobs done"  # nothing was worked on yet: no guess
    leave(folder, 1)
    assert sweep_state.progress(folder, began + 180) == "2 of 4 jobs done, at most about 6 min left"
    assert sweep_state.progress(folder, began + 18000) == "2 of 4 jobs done, at most about 10.0 h left"
    for job in (2, 3):
        leave(folder, job)
    assert sweep_state.progress(folder) == "4 of 4 jobs done"
