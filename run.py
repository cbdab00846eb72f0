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

from patientdx import report, session, sweep
from patientdx.pipeline import run
from patientdx.refusal import Refusal
from patientdx.settings import parse


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    """One run, or one job of a sweep: settings in, result folder out."""
    job = HydraConfig.get()
    number = job.job.num if job.mode == RunMode.MULTIRUN else None
    try:
        outcome = run(parse(cfg, sweep=number is not None))
        if not sweep.leads(cfg):
            return
        if number is not None:
            sweep.leave_pointer(cfg, number, outcome.folder, outcome.seconds, outcome.reused)
        else:
            Console().print(report.table(outcome.rows))
            sweep.draw(outcome.rows, outcome.folder)
    except Refusal as fault:
        sweep.refuse(cfg, fault)
        if number is None:
            # All were refused alike. Whoever ends first has the others ended too: not before the word is out.
            session.accelerator(str(cfg.device)).wait_for_everyone()
            sys.exit(2)
        sweep.leave_fault(cfg, number, fault)  # the other runs go on; the end of the sweep says which was refused
        return
    note = "found finished, nothing was computed again: " if outcome.reused else "written: "
    Console(soft_wrap=True, highlight=False, markup=False).print(f"{note}{outcome.folder}")


if __name__ == "__main__":
    if int(os.environ.get("RANK", "0")) > 0:  # of the processes of `accelerate launch` only the first speaks
        logging.disable()
        warnings.simplefilter("ignore")
    try:
        main()
    finally:
        # A process group left to the interpreter's end can abort it: its threads are still running.
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
