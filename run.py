"""python run.py merge=slerp lambda=0.4 · python run.py -m merge=slerp lambda=0.1,0.2,0.4 · see README.md"""

import logging
import os
import sys
import warnings

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from patientdx import sweep
from patientdx.refusal import Refusal
from patientdx.settings import Settings, parse

RANK, PROCESSES = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    """One run, or one job of a sweep: settings in, merged model and result folder out."""
    job = HydraConfig.get()
    number = job.job.num if job.mode == RunMode.MULTIRUN else None
    try:
        settings = parse(cfg, sweep=number is not None)
        if settings.dry_run or settings.save is not None:
            save(settings)
        if settings.task_name is not None and not settings.dry_run:
            score(cfg, settings, number)
    except Refusal as fault:
        sweep.refuse(fault)
        if number is None:
            if PROCESSES > 1:
                # All were refused alike. Whoever ends first has the others ended too: not before the word is out.
                from patientdx import session

                session.accelerator(str(cfg.device)).wait_for_everyone()
            sys.exit(2)
        sweep.leave_fault(cfg, number, fault)  # the other runs go on; the end of the sweep says which was refused


def save(settings: Settings) -> None:
    """Write the merged model, or say what that would take."""
    from patientdx import saving

    if PROCESSES == 1:
        saving.save(settings)
        return
    from patientdx import session

    session.accelerator(settings.device)
    session.together(lambda: saving.save(settings, (RANK, PROCESSES)))


def score(cfg: DictConfig, settings: Settings, number: int | None) -> None:
    """Score the run's models on the task, and show what was found."""
    # Not at the top: a merge to disk starts without the libraries that run a model.
    from patientdx import report
    from patientdx.pipeline import run

    outcome = run(settings)
    if not sweep.leads():
        return
    if number is not None:
        sweep.leave_pointer(cfg, number, outcome.folder, outcome.seconds, outcome.reused)
    else:
        console = Console()
        console.print(report.cohort(outcome.cohort), report.table(outcome.rows, title="\nModels"))
        if outcome.clinical is not None:
            console.print(report.evaluation(outcome.clinical))
            report.write_evaluation(outcome.clinical, outcome.folder)
        if outcome.probes is not None:
            console.print(report.probes(outcome.probes))
        sweep.draw(outcome.rows, outcome.folder)
    note = "found finished, nothing was computed again: " if outcome.reused else "written: "
    Console(soft_wrap=True, highlight=False, markup=False).print(f"{note}{outcome.folder}")


if __name__ == "__main__":
    if RANK > 0:  # of the processes of `accelerate launch` only the first speaks
        logging.disable()
        warnings.simplefilter("ignore")
    try:
        main()
    finally:
        # A process group left to the interpreter's end can abort it: its threads are still running.
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
