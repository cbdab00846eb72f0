"""python run.py merge=slerp lambda=0.4 · python run.py -m merge=slerp lambda=0.1,0.2,0.4 · see README.md"""

from __future__ import annotations

import gc
import logging
import os
import sys
import traceback
import warnings
from typing import TYPE_CHECKING

import hydra
import torch
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from patientdx.cli import sweep, sweep_state
from patientdx.core import distributed, redaction
from patientdx.core.errors import UserError
from patientdx.evaluation import store
from patientdx.evaluation.config.run_config import RunConfig, parse
from patientdx.evaluation.session import Session

if TYPE_CHECKING:
    from patientdx.evaluation.results import EvaluationResult

SESSION = Session()  # what the jobs of a sweep share
RANK, PROCESSES = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    """One run, or one job of a sweep, whose other jobs go on whatever becomes of it."""
    job = HydraConfig.get()
    code = attempt(cfg, job)
    if code and job.mode != RunMode.MULTIRUN:
        sys.exit(code)
    if code:  # what the error held of memory is free by now
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def attempt(cfg: DictConfig, job: HydraConf) -> int:
    """RunConfig in, merged model and result folder out. Returns 0, 2 where that was refused, 1 where it failed."""
    swept = job.mode == RunMode.MULTIRUN
    try:
        config = parse(cfg, sweep=swept, overrides=job.overrides.task)
        scored = config.task is not None and not config.save.dry_run
        if config.save.dry_run or config.save.folder is not None:
            if scored:
                check(config)
            save(config)
        if scored:
            score(cfg, config, job)
        elif swept and sweep.leads():
            folder = sweep.folder_of(cfg, job.runtime.output_dir)
            sweep_state.leave(folder, job.job.num, {"saved": True, "overrides": list(job.overrides.task)})
    except Exception as error:
        task = cfg.get("task", {})
        files = task.get("path") or ("path" in task and cfg.get("data"))
        open_data = task.get("mimic_root", "somewhere") is None and not files  # a synthetic hospital
        complain(error, open_data)
        refused = isinstance(error, UserError)
        if swept:
            folder = sweep.folder_of(cfg, job.runtime.output_dir)
            sweep.leave_fault(folder, job.job.num, error, job.overrides.task, open_data=open_data)
        elif PROCESSES > 1 and refused:
            # All were refused alike. Whoever ends first has the others ended too: not before the word is out.
            SESSION.accelerator(str(cfg.device)).wait_for_everyone()
        return 2 if refused else 1
    return 0


def complain(error: Exception, open_data: bool) -> None:
    """Say on stderr what went wrong: for the user's own screen in full where HYDRA_FULL_ERROR=1 asks for it."""
    if not isinstance(error, UserError) and os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    elif not isinstance(error, UserError):
        sweep.say("\n".join(redaction.trace(error)))
    sweep.say(redaction.describe(error, open_data=open_data))


def check(config: RunConfig) -> None:
    """Refuse what cannot be scored before gigabytes are written."""
    from patientdx.evaluation import runner

    runner.check(SESSION, config)


def save(config: RunConfig) -> None:
    """Write the merged model, or say what that would take."""
    from patientdx.cli import save as saving

    if PROCESSES == 1:
        saving.save(SESSION, config)
        return
    SESSION.accelerator(config.inference.device)
    distributed.run_on_all_ranks(lambda: saving.save(SESSION, config, (RANK, PROCESSES)))


def score(cfg: DictConfig, config: RunConfig, job: HydraConf) -> None:
    """Score the run's models on the task, and show what was found."""
    # Not at the top: a merge to disk starts without the libraries that run a model.
    from patientdx.evaluation import runner
    from patientdx.evaluation.inference import Timer
    from patientdx.selection import find_weight
    from patientdx.tracking.publish import TrackingPublisher

    publisher, timer, search = TrackingPublisher(config.tracking), Timer(), None
    if config.search is not None:
        runner.check(SESSION, config)
        config, search = find_weight.search(SESSION, config, timer)
    outcome = runner.run(SESSION, config, timer=timer, search=search, publisher=publisher)
    if not sweep.leads():
        return
    overrides = list(job.overrides.task)
    if not outcome.reused:
        store.write_json({"overrides": overrides}, outcome.folder / "command.json")
    note = "found finished, nothing was computed again: " if outcome.reused else "written: "
    if job.mode == RunMode.MULTIRUN:
        folder = sweep.folder_of(cfg, job.runtime.output_dir)
        told = {"folder": outcome.folder.name, "reused": outcome.reused, "seconds": outcome.seconds}
        sweep_state.leave(folder, job.job.num, told | {"overrides": overrides})
        if sys.stdout.isatty():
            note = f"{sweep_state.progress(folder)}. {note}"
    else:
        show(outcome)
    Console(soft_wrap=True, highlight=False, markup=False).print(f"{note}{outcome.folder}")


def show(outcome: EvaluationResult) -> None:
    """A single run's tables on the terminal, and its pictures."""
    from patientdx import reporting

    reporting.show_run(outcome.folder)
    sweep.draw(outcome.rows, outcome.folder)


if __name__ == "__main__":
    if RANK > 0:  # of the processes of `accelerate launch` only the first speaks
        logging.disable()
        warnings.simplefilter("ignore")
    try:
        main()
    except SystemExit as end:
        # A launcher that lost a worker gives up without an end; what the others finished is shown all the same.
        code = sweep.close()
        sys.exit(end.code or code)
    finally:
        # A process group left to the interpreter's end can abort it: its threads are still running.
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
