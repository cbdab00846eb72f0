"""A multirun from its first job to its last: the order of the jobs, their state on disk, and the summary at the end.

The summary is made from what is on disk, so it does not matter which process a job was in.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from patientdx.cli import preflight, sweep_order, sweep_points, sweep_state
from patientdx.cli.ending import report_error
from patientdx.cli.messages import is_first_process
from patientdx.core import redaction
from patientdx.core.errors import UserError
from patientdx.core.locks import exclusive_lock
from patientdx.core.paths import REPOSITORY, folder_path, study_name
from patientdx.core.validation import in_yaml
from patientdx.evaluation.store import make_writable

_NO_RECORD = "its process ended without a record: killed, or out of memory"


@dataclass(frozen=True)
class Running:
    """The sweep that this process runs, and the folder of its state."""

    study: Path
    folder: Path
    jobs: int


_running: list[Running] = []  # one at most; not in the callback, which launchers pickle
_unwritten: dict[int, dict[str, Any]] = {}  # states of jobs of this process that could not be written


def folder_of(config: DictConfig, output_dir: str) -> Path:
    """The folder of this sweep's state; `output_dir` is the job's folder, as Hydra has it."""
    return sweep_state.running_folder(study_of(config)) / Path(output_dir).name


def record_error(folder: Path, job: int, error: Exception, overrides: Sequence[str], *, open_data: bool) -> None:
    """Record why job number `job` was refused or failed; in memory where the disk is full."""
    if not is_first_process():
        return
    kind = "refused" if isinstance(error, UserError) else "failed"
    content: dict[str, Any] = {kind: redaction.describe(error, open_data=open_data), "overrides": list(overrides)}
    if kind == "failed":
        content["traceback"] = redaction.trace(error)
    try:
        sweep_state.write_job(folder, job, content)
    except UserError:
        _unwritten[job] = content


class SweepSummary(Callback):
    """Hydra callback: refuse what cannot be done at the start, put the jobs in order, show the sweep at the end.

    Hydra turns what a callback raises into a warning, so an error here ends the program itself.
    only_check: end after the check of `preflight`, before anything is scored.
    """

    def __init__(self, only_check: bool = False) -> None:
        self._only_check = only_check

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Exit with code 2 where results cannot be written, before anything is read."""
        with _exit_on_error():
            _refuse_folders(config)
            study = study_of(config)
            if config.dry_run is True:  # nothing is written, so no log either
                _set(config, "hydra.run.dir", Path.cwd())
                _set(config, "hydra.job_logging.root.handlers", ["console"])
                return
            _set(config, "hydra.run.dir", study)
            make_writable(study)
            if self._only_check:
                preflight.check(config, [config.hydra.overrides.task], sweep=False)
                sys.exit(0)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """The same; then set the order of the jobs, and begin the folder of their state."""
        with _exit_on_error():
            _refuse_folders(config)
            _arrange(config)
            study = study_of(config)
            _set(config, "hydra.sweep.dir", study)
            make_writable(study)
            # Processes that a launcher starts in another folder find this package.
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
            if not is_first_process():
                return
            points = _checked_points(config, only_check=self._only_check)
            jobs = len(points)
            folder = sweep_state.begin(study, jobs)
            # Every job is composed from these again, so it knows the folder in whatever process it is.
            quoted = QuotedString(str(study), Quote.single).with_quotes()
            subdir = folder.relative_to(study).as_posix()
            config.hydra.overrides.hydra += [f"hydra.sweep.dir={quoted}", f"hydra.sweep.subdir={subdir}"]
            if config.chunks is not None:
                config.hydra.overrides.task = sweep_points.split(points, config.chunks, folder)
            _running[:] = [Running(study, folder, jobs)]
            _unwritten.clear()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Summarise all jobs of this sweep, and exit with its code."""
        with _exit_on_error():
            code = close()
            if code:
                sys.exit(code)


@contextlib.contextmanager
def _exit_on_error() -> Iterator[None]:
    """An error ends the program with its code: 2 for a UserError, and one message. Hydra would go on with a warning."""
    try:
        yield
    except Exception as error:
        sys.exit(report_error(error))


def study_of(config: DictConfig) -> Path:
    """The study's folder, `<output>/<name>`. Raises UserError where it cannot be one."""
    parts = []
    for key, check in (("output", folder_path), ("name", study_name)):
        value = config[key]
        try:
            parts.append(check(value))
        except UserError as error:
            raise UserError(f"{key}={in_yaml(value)}: {error}") from None
    return parts[0] / parts[1]


def _refuse_folders(config: DictConfig) -> None:
    """UserError for a folder of Hydra's on the command line: results go where `output` and `name` say."""
    for word in config.hydra.overrides.hydra:
        key = word.lstrip("+~").partition("=")[0]
        if key in ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"):
            raise UserError(
                f"{word}: results and log go to <output>/<name>. Leave {key} out, and give output= and name=."
            )


def _set(config: DictConfig, key: str, value: Path | list[str]) -> None:
    """Hydra makes its folder where the results go, not where the command's words would have it, as in output='~'."""
    with read_write(config.hydra), open_dict(config.hydra):
        OmegaConf.update(config, key, str(value) if isinstance(value, Path) else value)


def _arrange(config: DictConfig) -> None:
    """Order the loops of Hydra's basic sweeper by cost; a study's sweep and the command line's are one."""
    sweeper = config.hydra.sweeper
    if not str(sweeper._target_).endswith(".BasicSweeper"):
        return
    overrides: Any = OmegaConf.to_container(config.hydra.overrides.task)
    words = sweep_order.ordered([*(f"{key}={value}" for key, value in (sweeper.params or {}).items()), *overrides])
    swept = sorted({"name", "output"} & sweep_order.choices(words).keys())
    if swept:
        raise UserError(
            f"{swept[0]} takes several values in one sweep, but a sweep is one study and has one table: give one "
            f"{swept[0]}, and start a sweep for each other. Studies below one output= share their scores."
        )
    config.hydra.overrides.task = words
    sweeper.params = None


def _checked_points(config: DictConfig, *, only_check: bool) -> list[list[str]]:
    """The overrides of every job; looked at before a launcher starts processes for them, see `preflight`."""
    points = sweep_order.points(config.hydra.overrides.task)
    in_this_process = str(config.hydra.launcher._target_).endswith(".BasicLauncher")
    if config.chunks is not None and in_this_process and not only_check:
        raise UserError(
            f"chunks={in_yaml(config.chunks)}: it is for launchers that start processes, as of machine=slurm_8gpu. "
            "In this process all points share one model already: leave chunks out."
        )
    if only_check or not in_this_process:
        preflight.check(config, points, sweep=True)
    if only_check:
        sys.exit(0)
    return points


def close(reason: str | None = None) -> int:
    """End the sweep that this process runs, if there is one: show and write its summary; returns the exit code.

    2 where a job was refused, else 1 where one failed or wrote no state, else 0. reason: why jobs wrote none.
    """
    if not _running:
        return 0
    running = _running.pop()
    jobs = _unwritten | sweep_state.read_jobs(running.folder)
    _unwritten.clear()
    if not jobs:
        sweep_state.drop(running.folder)
        return 1
    for number in range(running.jobs):
        if number not in jobs:
            jobs[number] = {"failed": reason or _NO_RECORD}
            with contextlib.suppress(UserError):
                sweep_state.write_job(running.folder, number, jobs[number])
    from patientdx.cli import sweep_summary  # tables and charts: not needed while jobs run

    try:
        # What is shown and written for the study is of one sweep.
        with exclusive_lock(running.study / sweep_state.PUBLISHED):
            sweep_state.publish(running.folder, running.study)
            if sweep_summary.summarise(running.study, jobs):
                sweep_summary.write_page(running.study)
    except (UserError, OSError) as error:
        report_error(error)
        return 2
    states = jobs.values()
    return 2 if any("refused" in state for state in states) else int(any("failed" in state for state in states))
