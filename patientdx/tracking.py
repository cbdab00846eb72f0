"""One finished evaluation becomes one run of Weights & Biases.

Tracking comes last and may fail: results are on disk before, and whatever goes wrong here ends in one
warning. What is recorded is the composed config, final numbers and small curves. Nothing that says who or
where: paths, user and host names, free text and credentials are taken out of whatever arrives (`scrubbed`),
and wandb's own collection (git, code, console, machine, packages, error reports) is switched off.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patientdx.refusal import Refusal

_log = logging.getLogger(__name__)

MODES = ("offline", "online", "none")

# Seconds that a dead network may cost at the beginning and at the end of an online run.
_INIT_SECONDS = 20.0
_FINISH_SECONDS = 60.0

# Keys whose values say where something lies or open a door; they are left out whatever the value.
_PRIVATE_KEYS = re.compile(
    r"(?:^|_)(?:cache|path|root|dir|folder|file|output|outputs|cwd|host|hostname|user|username)s?$"
    r"|^(?:hydra|token|hf_token|api_key|password|secret)$"
)
_ABSOLUTE_PATH = re.compile(
    r"(?:(?<=^)|(?<=[\s=,;:'\"\[({]))(?:~[\w.-]*/|/[\w.~]|file:/|[A-Za-z]:[\\/]|\\\\)[^\s,;'\"\])}]*"
)
_LONGEST_PHRASE = 3  # words; a name or an option is shorter, a sentence is longer

# The axes of the curves that have names of their own; matched with the last part of a curve's name.
_AXES = {
    "roc": ("false positive rate", "true positive rate"),
    "pr": ("recall", "precision"),
    "calibration": ("predicted risk", "observed share"),
    "decision": ("threshold", "net benefit"),
}


@dataclass(frozen=True)
class TrackingSettings:
    """The `tracking` group of the config. Raises Refusal for a mode that does not exist."""

    mode: str = "offline"
    project: str = "patientdx"
    entity: str | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise Refusal(f"tracking.mode={self.mode} does not exist; it is one of {', '.join(MODES)}")


def track(
    settings: TrackingSettings,
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
) -> str | None:
    """Record one evaluation; the id of the run, or None where nothing was recorded.

    The id comes from `fingerprint`, so a repeat replaces the earlier run. `summary` keys are kept as they are
    (`mortality/auroc`). `curves` maps a name such as `mortality/roc` to its points (x, y), a few hundred at
    most. wandb writes below `folder`/wandb and nowhere else. Never raises for anything that goes wrong inside
    wandb: online falls back to offline, and offline to nothing, with one warning.
    """
    if settings.mode == "none":
        return None
    run_id = re.sub(r"[^A-Za-z0-9_-]", "-", fingerprint)[:64]
    start = {
        "project": settings.project,
        "entity": settings.entity,
        "id": run_id,
        "name": _label(name, 128),
        "group": _label(group, 128),
        "job_type": _label(job_type, 64),
        "tags": list(dict.fromkeys(_label(tag, 64) for tag in (*settings.tags, *tags) if tag)),
        "config": scrubbed(config),
    }
    clean_summary = {key: scrubbed(value) for key, value in summary.items()}
    try:
        _record(settings.mode, start, clean_summary, curves, folder)
        return run_id
    except Exception as error:
        if settings.mode == "offline":
            _log.warning("W&B recorded nothing (%s); the results on disk are complete", _reason(error))
            return None
        reason = _reason(error)
    try:
        _forget_failed_run()
        _record("offline", start, clean_summary, curves, folder)
    except Exception as error:
        _log.warning(
            "W&B online failed (%s), and offline too (%s); the results on disk are complete",
            reason,
            _reason(error),
        )
        return None
    _log.warning(
        "W&B could not be reached (%s); recorded offline, send it later with: wandb sync %s",
        reason,
        folder / "wandb" / f"offline-run-*-{run_id}",
    )
    return run_id


def scrubbed(value: Any) -> Any:
    """The same nested value without anything that says who, where or what a record says.

    Keys that name places or credentials are left out, strings with an absolute path become `<path>`, strings
    of more than three words or of several lines become `<text of N characters>` (prompts, patient text), user
    and host names become `<user>` and `<host>`. Types that JSON does not know become the name of the type.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | Path):
        return _clean_text(str(value))
    if isinstance(value, Mapping):
        return {str(key): scrubbed(below) for key, below in value.items() if not _PRIVATE_KEYS.search(str(key))}
    if isinstance(value, list | tuple):
        return [scrubbed(item) for item in value]
    if hasattr(value, "item") and getattr(value, "size", 0) == 1:  # a number of numpy or torch
        return value.item()
    return f"<{type(value).__name__}>"


def _clean_text(text: str) -> str:
    if _ABSOLUTE_PATH.search(text):
        return "<path>"
    if len(text.split()) > _LONGEST_PHRASE or "\n" in text or len(text) > 200:
        return f"<text of {len(text)} characters>"
    return _anonymous(text)


def _label(text: str, longest: int) -> str:
    """A readable name, without paths and names of people and machines, no longer than wandb takes."""
    return _anonymous(_ABSOLUTE_PATH.sub("<path>", " ".join(str(text).split())))[:longest]


def _anonymous(text: str) -> str:
    with contextlib.suppress(OSError, KeyError):  # a container may run under a user id that has no name
        text = _without(text, getpass.getuser(), "<user>")
    with contextlib.suppress(RuntimeError):
        text = _without(text, Path.home().name, "<user>")
    host = socket.gethostname()
    return _without(_without(text, host, "<host>"), host.split(".")[0], "<host>")


def _without(text: str, name: str, instead: str) -> str:
    if len(name) < 2:
        return text
    return re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", instead, text)


def _record(mode: str, start: dict, summary: Mapping, curves: Mapping, folder: Path) -> None:
    """Start, fill and finish one run in `mode`; leaves nothing half open when it raises."""
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    _remove_runs(folder, start["id"])
    try:
        with _private_environment():
            import wandb

            run = wandb.init(
                **start, resume="allow", reinit="create_new", settings=_wandb_settings(wandb, mode, folder)
            )
            try:
                charts = {key: _chart(wandb, run, key, points) for key, points in curves.items()}
                if charts:
                    run.log(charts)
                run.summary.update(dict(summary))
            except BaseException:
                run.finish(exit_code=1)
                raise
            run.finish()
            if mode == "online":
                _log.info("W&B run: %s", run.url)
    finally:
        # wandb's own diary names this machine's folders and is not part of a run
        for place in _runs(folder, start["id"]):
            shutil.rmtree(place / "logs", ignore_errors=True)
            shutil.rmtree(place / "tmp", ignore_errors=True)


def _wandb_settings(wandb, mode: str, folder: Path):
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


def _chart(wandb, run, key: str, points: Sequence[tuple[float, float]]):
    """A line chart over a small table.

    The table is bound to the run before it is logged, which keeps it a plain file of the run: an artifact of
    its own would note a staging path of this machine, and its upload fails when an offline run is moved
    before it is synced (wandb/server issue 149).
    """
    x_title, y_title = _AXES.get(key.rsplit("/", 1)[-1], ("x", "y"))
    table = wandb.Table(columns=[x_title, y_title], data=[[float(x), float(y)] for x, y in points])
    table.bind_to_run(run, f"{key}_table", 0)
    return wandb.plot.line(table, x_title, y_title, title=key)


@contextlib.contextmanager
def _private_environment() -> Iterator[None]:
    """No error reports to wandb's makers, and its service's diary in a folder that goes away."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as away:
        ours = {"WANDB_ERROR_REPORTING": "false", "WANDB_CACHE_DIR": away, "WANDB_DATA_DIR": away}
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


def _runs(folder: Path, run_id: str) -> list[Path]:
    """wandb's folders of this run, named by the second of their start and the id."""
    started = "????????_??????"
    return [place for kind in ("run", "offline-run") for place in (folder / "wandb").glob(f"{kind}-{started}-{run_id}")]


def _remove_runs(folder: Path, run_id: str) -> None:
    for place in _runs(folder, run_id):
        shutil.rmtree(place, ignore_errors=True)


def _forget_failed_run() -> None:
    """wandb's service keeps the id of a run that did not start; only ending the service frees it."""
    import wandb

    wandb.teardown()


def _reason(error: Exception) -> str:
    """The kind of error and the start of its message, on one line and without this machine's names."""
    return f"{type(error).__name__}: {_label(str(error), 120)}"
