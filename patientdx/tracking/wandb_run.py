"""A run of Weights & Biases, offline or online. wandb's own collection (git, code, console, machine, packages,
error reports) is switched off, and it writes below `<result folder>/wandb` and nowhere else."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from patientdx.tracking.run import Run

# From the output folder; `program` would otherwise be the path of the wandb command on the machine that sends.
SYNC = "WANDB_PROGRAM=run.py wandb sync */*/wandb/offline-run-*"
PREDICTIONS = "predictions"

# Seconds that a dead network may cost at the beginning and at the end of an online run.
_INIT_SECONDS = 20.0
_FINISH_SECONDS = 60

# The axes of the curves that have names of their own; matched with the last part of a curve's name.
AXES = {
    "roc": ("false positive rate", "true positive rate"),
    "pr": ("recall", "precision"),
    "calibration": ("predicted risk", "observed share"),
    "decision": ("threshold", "net benefit"),
}


def record(run: Run, mode: Literal["offline", "online"]) -> str | None:
    """Start, fill and finish one run in `mode` (offline | online); its address, where it has one.

    Leaves nothing half open when it raises, which it does for whatever goes wrong in wandb. What was sent online is
    not kept here as well.
    """
    folder = run.folder
    folder.mkdir(parents=True, exist_ok=True)
    _remove(folder, run.id)
    try:
        with _private_environment(), _own_service(run.output) if mode == "online" else contextlib.nullcontext():
            url = _recorded(run, mode, folder)
    finally:
        # wandb's own diary names this machine's folders and is not part of a run
        for path in _places(folder, run.id):
            shutil.rmtree(path / "logs", ignore_errors=True)
            shutil.rmtree(path / "tmp", ignore_errors=True)
    if mode == "online":
        _remove(folder, run.id)
        with contextlib.suppress(OSError):  # an earlier run may be in it
            (folder / "wandb").rmdir()
    return url


def _recorded(run: Run, mode: Literal["offline", "online"], folder: Path) -> str | None:
    import wandb

    started = wandb.init(
        project=run.project,
        entity=run.entity,
        id=run.id,
        name=run.name,
        group=run.group,
        job_type=run.job_type,
        tags=list(run.tags),
        config=run.config,
        resume="allow",
        reinit="create_new",
        settings=_settings(mode, folder),
    )
    try:
        if "lambda" in run.numbers:  # so that W&B's own workspace draws every number against λ
            started.define_metric("lambda", hidden=True)
            started.define_metric("*", step_metric="lambda")
        # One row of history beside the summary: line plots draw from history only, against `lambda` for example.
        charts = {key: _chart(started, key, points) for key, points in run.curves.items()}
        started.log(charts | run.numbers)
        started.summary.update(run.summary)
        if run.predictions is not None:
            sent = started.log_artifact(_artifact(run, run.predictions))
            if mode == "online":
                sent.wait(timeout=_FINISH_SECONDS)  # an upload that failed is not told otherwise
    except BaseException:
        started.finish(exit_code=1)
        raise
    started.finish()
    return started.url if mode == "online" else None


def _settings(mode: Literal["offline", "online"], folder: Path):
    import wandb

    return wandb.Settings(
        mode=mode,
        root_dir=str(folder),
        use_dot_wandb=False,
        symlink=False,
        silent=True,
        console="off",
        save_code=False,
        disable_code=True,
        disable_git=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        host="-",
        program="run.py",
        init_timeout=_INIT_SECONDS,
        login_timeout=_INIT_SECONDS,
        finish_timeout=_FINISH_SECONDS,
        finish_timeout_raises=True,
    )


def _chart(started, key: str, points: Sequence[tuple[float, float]]):
    """A line chart over a small table.

    The table is bound to the run before it is logged, which keeps it a plain file of the run: an artifact of
    its own would note a staging path of this machine, and its upload fails when an offline run is moved
    before it is synced (wandb/server issue 149).
    """
    import wandb

    x_title, y_title = AXES.get(key.rsplit("/", 1)[-1], ("x", "y"))
    table = wandb.Table(columns=[x_title, y_title], data=[[float(x), float(y)] for x, y in points])
    table.bind_to_run(started, f"{key}_table", 0)
    return wandb.plot.line(table, x_title, y_title, title=key)


def _artifact(run: Run, predictions: Path):
    """The file of predictions as an artifact, without a copy of it.

    wandb notes where the file lies, reads it there when it sends, and sends the note too. It is noted from the output
    folder on, which says nothing of this machine and stays true where the folder as a whole is moved.
    """
    import wandb

    artifact = wandb.Artifact(
        f"{PREDICTIONS}-{run.id}", type=PREDICTIONS, description="hashed ids, label and scores by model; no text"
    )
    entry = artifact.add_file(str(predictions), policy="immutable", skip_cache=True)
    entry.local_path = predictions.relative_to(run.output).as_posix()
    return artifact


@contextlib.contextmanager
def _own_service(output: Path) -> Iterator[None]:
    """wandb's service for one online run, in the output folder, which the path of the predictions is noted from.

    It keeps its folder, and the id of a run that did not start: only ending it frees both.
    """
    import wandb

    wandb.teardown()
    try:
        with contextlib.chdir(output):
            yield
    finally:
        wandb.teardown()


@contextlib.contextmanager
def _private_environment() -> Iterator[None]:
    """No error reports to wandb's makers, no word from it, and its service's diary in a folder that goes away."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as away:
        ours = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
        ours |= {"WANDB_CACHE_DIR": away, "WANDB_DATA_DIR": away}
        before = {key: os.environ.get(key) for key in ours}
        os.environ.update(ours)
        try:
            yield
        finally:
            for key, value in before.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value


def _places(folder: Path, run_id: str) -> list[Path]:
    """wandb's folders of this run, named by the second of their start and the id."""
    started = "????????_??????"
    return [path for kind in ("run", "offline-run") for path in (folder / "wandb").glob(f"{kind}-{started}-{run_id}")]


def _remove(folder: Path, run_id: str) -> None:
    for path in _places(folder, run_id):
        shutil.rmtree(path, ignore_errors=True)
