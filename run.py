"""python run.py merge=slerp lambda=0.4 · python run.py -m merge=slerp lambda=0.1,0.2,0.4 · see README.md"""

from __future__ import annotations

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from patientdx.cli import ending


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    """One run, or one job of a sweep, whose other jobs go on if it fails."""
    # Not at the top: --help, shell completion and errors of the command start without the libraries.
    from patientdx.cli.run import run_job

    run_job(cfg, HydraConfig.get())


if __name__ == "__main__":
    try:
        code = ending.ended(main)
    finally:
        if "torch" in sys.modules:
            # A process group left to the interpreter's end can abort it: its threads are still running.
            import torch

            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
    sys.exit(code)
