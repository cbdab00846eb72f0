"""What run.py and `patientdx run` do: Hydra with the yamls of conf/, one job or a sweep."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from patientdx.cli import ending
from patientdx.cli.messages import print_error
from patientdx.cli.unlisted_models import register
from patientdx.core.paths import CONF


def job(cfg: DictConfig) -> None:
    """One run, or one job of a sweep, whose other jobs go on if it fails; it may score a chunk of the points."""
    # Not at the top: --help, shell completion and errors of the command start without the libraries.
    from patientdx.cli.run import run_points

    run_points(cfg, HydraConfig.get())


def run(words: Sequence[str]) -> int:
    """Run Hydra with the words of the command line, to the end of the job or the sweep; returns the exit code."""
    main = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)

    def start() -> None:
        sys.argv[1:] = words  # Hydra, and what describes its errors, read them there
        sys.argv[1:] = register(words)
        main()

    try:
        return ending.ended(start)
    finally:
        if "torch" in sys.modules:
            # A process group left to the interpreter's end can abort it: its threads are still running.
            import torch

            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


def merge(words: Sequence[str]) -> int:
    """Write the merged model and score nothing: `run` with ``task=none``, which needs ``save=`` or ``dry_run=true``."""
    if not any(word.lstrip("+").startswith(("save=", "dry_run=")) or word.startswith("-") for word in words):
        print_error("merge writes a merged model: add save=<folder>, or dry_run=true to see what that takes.")
        return 2
    return run(["task=none", *words])


def preflight(words: Sequence[str]) -> int:
    """Look at what the run or every point of the sweep needs, and end: nothing is scored or sent."""
    # Hydra takes its overrides side by side alone, and options before or behind them.
    first = next(
        (i for i, word in enumerate(words) if word.startswith("~") or ("=" in word and not word.startswith("-"))),
        len(words),
    )
    return run([*words[:first], "++hydra.callbacks.sweep.only_check=true", *words[first:]])
