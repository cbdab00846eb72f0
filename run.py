"""python run.py merge=slerp lambda=0.4 · python run.py -m merge=slerp lambda=0.1,0.2,0.4 · see README.md"""

from __future__ import annotations

import logging
import os
import sys
import warnings

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    """One run, or one job of a sweep, whose other jobs go on if it fails."""
    # Not at the top: --help, shell completion and errors of the command start without the libraries.
    from patientdx.cli.run import run_job

    run_job(cfg, HydraConfig.get())


if __name__ == "__main__":
    if int(os.environ.get("RANK", "0")) > 0:  # of the processes of `accelerate launch` only the first prints
        logging.disable()
        warnings.simplefilter("ignore")
    try:
        main()  # pyright: ignore[reportCallIssue]: Hydra gives the config
    except SystemExit as end:
        if "patientdx.cli.sweep" not in sys.modules:
            raise
        # A launcher that lost a worker exits without `on_multirun_end`; what the others finished is shown all the same.
        from patientdx.cli import sweep

        code = sweep.close()
        sys.exit(end.code or code)
    finally:
        if "torch" in sys.modules:
            # A process group left to the interpreter's end can abort it: its threads are still running.
            import torch

            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
