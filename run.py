"""python run.py merge=slerp lambda=0.4 · python run.py -m merge=slerp lambda=0.1,0.2,0.4 · see README.md"""

import sys

import hydra
from accelerate import PartialState
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from patientdx import report
from patientdx.pipeline import run
from patientdx.refusal import Refusal
from patientdx.settings import parse
from patientdx.sweep import draw, leave_pointer


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    """One run, or one job of a sweep: settings in, result folder out."""
    console = Console(soft_wrap=True, highlight=False)
    try:
        settings = parse(cfg)
        outcome = run(settings)
    except Refusal as fault:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(str(fault))
        sys.exit(2)
    if not PartialState().is_main_process:
        return
    job = HydraConfig.get()
    if job.mode == RunMode.MULTIRUN:
        leave_pointer(settings.output / settings.name, job.job.num, outcome.folder, outcome.seconds, outcome.reused)
    else:
        Console().print(report.table(outcome.rows))
        draw(outcome.rows, outcome.folder)
    note = "found finished, nothing was computed again: " if outcome.reused else "written: "
    console.print(f"{note}{outcome.folder}")


if __name__ == "__main__":
    main()
