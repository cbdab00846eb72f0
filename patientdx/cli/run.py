"""One job of run.py: check → save → search λ → run → tracking → tables."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Any

import torch
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from patientdx.cli import sweep, sweep_points, sweep_state
from patientdx.cli.compose import with_recipe
from patientdx.cli.ending import report_error
from patientdx.cli.messages import is_first_process
from patientdx.cli.user_errors import user_error
from patientdx.core import distributed
from patientdx.core.atomic_io import write_atomically
from patientdx.core.errors import UserError
from patientdx.evaluation import store
from patientdx.evaluation.config.run_config import RunConfig, parse
from patientdx.evaluation.session import Session

if TYPE_CHECKING:
    from patientdx.evaluation.results import EvaluationResult

SESSION = Session()  # what the jobs of a sweep in this process share
RANK, PROCESSES = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def run_points(cfg: DictConfig, job: HydraConf) -> None:
    """Run one job: itself, or each point of its chunk, whose others go on if one fails."""
    if sweep_points.CHUNK not in cfg:
        run_job(cfg, job)
        return
    folder = sweep.folder_of(cfg, job.runtime.output_dir)
    master: Any = HydraConfig.instance().cfg
    for number, words in sweep_points.chunk_of(cfg, folder):
        try:
            point = sweep_points.enter(master, words, number)
        except Exception as error:
            report_error(error)
            sweep.record_error(folder, number, user_error(error, words) or error, words, open_data=False)
        else:
            run_job(*point)


def run_job(cfg: DictConfig, job: HydraConf) -> None:
    """Run one job. A single run that fails ends the program with its exit code; in a sweep the next job follows."""
    code = _attempt(cfg, job)
    if code and job.mode != RunMode.MULTIRUN:
        sys.exit(code)
    if code:  # frees the memory that the error held
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def _attempt(cfg: DictConfig, job: HydraConf) -> int:
    """Config in, merged model and result folder out. Returns 0, 2 for a UserError, 1 for any other error."""
    in_sweep = job.mode == RunMode.MULTIRUN
    try:
        config = parse(with_recipe(cfg), sweep=in_sweep, overrides=job.overrides.task)
        is_scored = config.task is not None and not config.save.dry_run
        if config.save.dry_run or config.save.folder is not None:
            if is_scored:
                _check(config)  # before gigabytes are written
            _save(config)
        if is_scored:
            _evaluate(cfg, config, job)
        elif in_sweep and is_first_process():
            _record_job(cfg, job, {"saved": True})
    except Exception as error:
        return _report_error(error, cfg, job)
    return 0


def _report_error(error: Exception, cfg: DictConfig, job: HydraConf) -> int:
    """Print the error and record it for the sweep; returns the exit code."""
    open_data = _is_open(cfg)
    in_all_processes = isinstance(error, UserError)
    error = user_error(error) or error
    code = report_error(error, open_data=open_data)
    if job.mode == RunMode.MULTIRUN:
        folder = sweep.folder_of(cfg, job.runtime.output_dir)
        sweep.record_error(folder, job.job.num, error, job.overrides.task, open_data=open_data)
    elif PROCESSES > 1 and in_all_processes:
        # All processes have the same error. The first one to end would have the others ended before it has printed.
        SESSION.accelerator(str(cfg.device)).wait_for_everyone()
    return code


def _is_open(cfg: DictConfig) -> bool:
    """Whether the task reads a synthetic hospital and no files, as far as the config can be read."""
    try:
        task = cfg.task
        files = task.get("path") or ("path" in task and cfg.get("data"))
        outside = set(task.get("external") or ()) - {"synthetic"}
        return task.get("mimic_root", "somewhere") is None and not files and not outside
    except (OmegaConfBaseException, AttributeError, TypeError):
        return False


def _record_job(cfg: DictConfig, job: HydraConf, content: dict) -> None:
    folder = sweep.folder_of(cfg, job.runtime.output_dir)
    sweep_state.write_job(folder, job.job.num, content | {"overrides": list(job.overrides.task)})


def _check(config: RunConfig) -> None:
    from patientdx.evaluation import runner

    runner.check(SESSION, config)


def _save(config: RunConfig) -> None:
    """Write the merged model, or print what that would take."""
    from patientdx.cli.save import save

    if PROCESSES == 1:
        save(SESSION, config)
        return
    SESSION.accelerator(config.inference.device)
    distributed.run_on_all_ranks(lambda: save(SESSION, config, (RANK, PROCESSES)))


def _evaluate(cfg: DictConfig, config: RunConfig, job: HydraConf) -> None:
    """Evaluate, and show the result."""
    from patientdx import reporting

    result = evaluate(SESSION, config)
    if not is_first_process():
        return
    if not result.reused:
        _draw_training(result.folder)
    note = "already finished, nothing was computed again: " if result.reused else "written: "
    if job.mode == RunMode.MULTIRUN:
        state = {"folder": result.folder.name, "reused": result.reused, "seconds": result.seconds}
        _record_job(cfg, job, state)
        if sys.stdout.isatty():
            note = f"{sweep_state.progress(sweep.folder_of(cfg, job.runtime.output_dir))}. {note}"
    else:
        from patientdx.cli.sweep_summary import draw

        reporting.show_run(result.folder)
        draw(result.rows, result.folder)
    Console(soft_wrap=True, highlight=False, markup=False).print(f"{note}{result.folder}")


def evaluate(session: Session, config: RunConfig) -> EvaluationResult:
    """Search λ where the config asks for it, evaluate, and record the run with its tracker; nothing is shown.

    Raises UserError for whatever the user can correct.
    """
    # Not at the top: a merge to disk starts without the libraries that run a model.
    from patientdx.evaluation import runner
    from patientdx.evaluation.inference import Timer
    from patientdx.selection import find_weight
    from patientdx.tracking.publish import TrackingPublisher

    publisher, timer, search = TrackingPublisher(config.tracking), Timer(), None
    if config.search is not None:
        runner.check(session, config)
        config, search = find_weight.search(session, config, timer)
    return runner.run(session, config, timer=timer, search=search, publisher=publisher)


def _draw_training(folder) -> None:
    """The losses of a fine-tuned model as a picture, beside their numbers."""
    record = store.read_json(folder / "finetune.json")
    if record is not None:
        from patientdx.reporting.training_loss import draw_loss

        write_atomically(folder / "finetune_loss.png", lambda aside: draw_loss(record, aside))
