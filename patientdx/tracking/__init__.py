"""One finished evaluation becomes one run of a tracker: Weights & Biases, or trackio on this machine.

Tracking comes last and may fail: results are on disk before, and whatever goes wrong here ends in one warning. What is
recorded is the composed config, final numbers, small curves and, where the data are open, the scores of single examples
under hashed ids. Nothing that says who or where: see `scrubbing`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patientdx.evaluation.config.tracking import TrackingConfig
from patientdx.tracking import trackio_run, wandb_run
from patientdx.tracking.run import Run
from patientdx.tracking.scrubbing import phrase, reason, scrubbed

__all__ = ["TrackingConfig", "scrubbed", "track"]

_log = logging.getLogger(__name__)

# Set once W&B could not be reached: the later runs of this process are recorded offline at once.
_unreachable = False


def track(
    tracking: TrackingConfig,
    *,
    fingerprint: str,
    name: str,
    group: str,
    job_type: str,
    tags: Sequence[str],
    config: Mapping[str, Any],
    summary: Mapping[str, float | int | str],
    curves: Mapping[str, Sequence[tuple[float, float]]],
    folder: Path,
    output: Path,
    predictions: Path,
    open_data: bool,
) -> str | None:
    """Record one evaluation; the id of the run, or None where nothing was recorded.

    The id comes from `fingerprint`, so a repeat replaces the earlier run. `summary` keys are kept as they are
    (`mortality/auroc`). `curves` maps a name such as `mortality/roc` to its points (x, y), a few hundred at
    most. `folder` is the result folder below `output`; `predictions` is a file in it, which is sent only where
    `tracking` allows it. wandb writes below `folder`/wandb, trackio below `output`/trackio. Never raises for anything
    that goes wrong inside a tracker: online falls back to offline, and the others to nothing, with one warning.
    """
    if tracking.mode == "none":
        return None
    sends_predictions = tracking.predictions == "always" or (tracking.predictions == "open" and open_data)
    run_id = re.sub(r"[^A-Za-z0-9_-]", "-", fingerprint)[:64]
    run = Run(  # W&B takes no empty name, group, type or tag
        id=run_id,
        project=tracking.project,
        entity=tracking.entity,
        name=phrase(name, 128) or run_id,
        group=phrase(group, 128) or tracking.project,
        job_type=phrase(job_type, 64) or "evaluate",
        tags=tuple(dict.fromkeys(filter(None, (phrase(tag, 64).strip() for tag in (*tracking.tags, *tags))))),
        config=scrubbed(config),
        summary={key: scrubbed(value) for key, value in summary.items()},
        curves=curves,
        folder=Path(folder).absolute(),
        output=Path(output).absolute(),
        predictions=Path(predictions).absolute() if sends_predictions else None,
    )
    if tracking.mode == "online" and not _unreachable:
        return _online(run)
    try:
        if tracking.mode == "trackio":
            trackio_run.record(run)
        else:
            wandb_run.record(run, "offline")
    except Exception as error:
        tracker = "trackio" if tracking.mode == "trackio" else "W&B"
        _log.warning("%s recorded nothing (%s); the results on disk are complete", tracker, reason(error))
        return None
    return run.id


def _online(run: Run) -> str | None:
    """Send the run; record it offline where that fails, and all later ones of this process."""
    global _unreachable
    try:
        _log.info("W&B run: %s", wandb_run.record(run, "online"))
        return run.id
    except Exception as error:
        why = reason(error)
    try:
        wandb_run.record(run, "offline")
    except Exception as error:
        _log.warning(
            "W&B online failed (%s), and offline too (%s); the results on disk are complete", why, reason(error)
        )
        return None
    _unreachable = True
    _log.warning(
        "W&B online failed (%s); this and later runs are recorded offline, send them with\n  cd %s && %s",
        why,
        run.output,
        wandb_run.SYNC,
    )
    return run.id
