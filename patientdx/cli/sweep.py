"""A multirun from its first job to its last: their order, what each leaves, and at the end one table, csv, pictures
of the λ curve and the report, from what is on disk. Nothing is held in memory, so it does not matter which process a
job was in.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from patientdx import reporting
from patientdx.cli import sweep_order, sweep_state
from patientdx.core import redaction
from patientdx.core.errors import UserError
from patientdx.core.locks import exclusive_lock
from patientdx.core.tables import metric_title
from patientdx.evaluation.store import make_writable, write_json
from patientdx.reporting.tables import models

_ROOT = Path(__file__).resolve().parents[2]
_NOTHING: Mapping[str, bool | None] = MappingProxyType({})
_PICTURES = 4  # metrics of a task that are drawn, the first ones; all of them are in the tables
_SILENT = "its process ended without a word: killed, or out of memory"


@dataclass(frozen=True)
class Running:
    """The sweep that this process leads, and where its jobs leave word."""

    study: Path
    folder: Path
    jobs: int


_running: list[Running] = []  # one at most; not in the callback, which launchers pickle
_unsaid: dict[int, dict[str, Any]] = {}  # what jobs of this process could not leave on disk


def leads() -> bool:
    """Whether this is the one process, of those that accelerate started, that writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def say(text: str) -> None:
    """One line on stderr, once for all processes."""
    if leads():
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(text)


def folder_of(config: DictConfig, output_dir: str) -> Path:
    """Where the jobs of this sweep leave word; `output_dir` is what Hydra says is the job's own folder."""
    return sweep_state.running(_study(config)) / Path(output_dir).name


def leave_fault(folder: Path, job: int, error: Exception, overrides: Sequence[str], *, open_data: bool) -> None:
    """Say what became of job number `job`: refused, or failed, and why. Where the disk is full it is kept in memory."""
    if not leads():
        return
    kind = "refused" if isinstance(error, UserError) else "failed"
    content: dict[str, Any] = {kind: redaction.describe(error, open_data=open_data), "overrides": list(overrides)}
    if kind == "failed":
        content["traceback"] = redaction.trace(error)
    try:
        sweep_state.leave(folder, job, content)
    except UserError:
        _unsaid[job] = content


class SweepSummary(Callback):
    """Hydra callback: refuse what cannot be done at the start, put the jobs in order, show the sweep at the end.

    Hydra makes a warning of whatever a callback raises, so what goes wrong here ends the program.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Exit code 2 where results cannot be written: known before anything is read."""
        with _ends():
            make_writable(_study(config))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """The same; then the jobs' order, and a folder for what they leave."""
        with _ends():
            _arrange(config)
            study = _study(config)
            make_writable(study)
            # What a launcher starts elsewhere finds this package, wherever it is started.
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
            if not leads():
                return
            jobs = sweep_order.count(config.hydra.overrides.task)
            folder = sweep_state.begin(study, jobs)
            # Every job is composed anew, from these: so it knows the folder in whatever process it is.
            config.hydra.overrides.hydra.append(f"hydra.sweep.subdir={folder.relative_to(study).as_posix()}")
            _running[:] = [Running(study, folder, jobs)]
            _unsaid.clear()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Table, csv, pictures and report of all jobs of this sweep, and its exit code."""
        code = close()
        if code:
            sys.exit(code)


@contextlib.contextmanager
def _ends() -> Iterator[None]:
    """A UserError ends the program: code 2, and one message."""
    try:
        yield
    except UserError as fault:
        say(str(fault))
        sys.exit(2)


def _study(config: DictConfig) -> Path:
    return Path(str(config.output)).expanduser() / str(config.name)


def _arrange(config: DictConfig) -> None:
    """Nest the loops of Hydra's own sweeper as they cost least; an overlay's sweep and the command line's are one."""
    sweeper = config.hydra.sweeper
    if not str(sweeper._target_).endswith(".BasicSweeper"):
        return
    given = OmegaConf.to_container(config.hydra.overrides.task)
    found = sweep_order.ordered([*(f"{key}={value}" for key, value in (sweeper.params or {}).items()), *given])
    swept = sorted({"name", "output"} & sweep_order.choices(found).keys())
    if swept:
        raise UserError(
            f"{swept[0]} takes several values in one sweep, but a sweep is one study and has one table: give one "
            f"{swept[0]}, and start a sweep for each other. Studies below one output= share their scores."
        )
    config.hydra.overrides.task = found
    sweeper.params = None


def close() -> int:
    """End the sweep that this process leads, if there is one: show and write it; returns the exit code.

    2 where a job was refused, else 1 where one failed or left no word, else 0.
    """
    if not _running:
        return 0
    one = _running.pop()
    left = _unsaid | sweep_state.left(one.folder)
    _unsaid.clear()
    if not left:
        sweep_state.drop(one.folder)
        return 1
    for job in range(one.jobs):
        if job not in left:
            left[job] = {"failed": _SILENT}
            with contextlib.suppress(UserError):
                sweep_state.leave(one.folder, job, left[job])
    try:
        with exclusive_lock(
            one.study / sweep_state.PUBLISHED
        ):  # what is shown and written for the study is of one sweep
            sweep_state.publish(one.folder, one.study)
            if summarise(one.study, left):
                _report(one.study)
    except (UserError, OSError) as fault:
        say(redaction.describe(fault))
        return 2
    return 2 if any("refused" in one for one in left.values()) else int(any("failed" in one for one in left.values()))


def _report(study: Path) -> None:
    """The page of the sweep; where it cannot be made the table stands all the same."""
    try:
        path = reporting.write_report(study)
    except Exception as error:
        say(f"no report was made: {redaction.describe(error, open_data=True)}")  # it reads no text
    else:
        _printed(Console(), f"  {path}")


def summarise(study: Path, left: dict[int, dict[str, Any]], console: Console | None = None) -> list[dict[str, Any]]:
    """Show and write what a sweep of a study found; returns its rows, parents once. `left`: as in `pointers.left`."""
    console = console or Console()
    folders = [study / one["folder"] for one in left.values() if "folder" in one]
    runs = tuple(reporting.Run(folder) for folder in folders if (folder / "metrics.json").exists())
    found = reporting.Study(study, runs).rows
    better = {name: _better(run, name) for run in runs for name in reporting.metric_names(run.rows)}
    best = _best(found, folders) if found else None
    for task in dict.fromkeys(row["task"] for row in found):
        of_task = [row for row in found if row["task"] == task]
        reporting.show(models(of_task, title=f"{study.name}: {len(folders)} runs", best=best), console=console)
    lines = [*choices(found, better), *_told(left)]
    if found:
        reporting.write_csv(found, study / "sweep.csv")
        if seen := seen_on_pilot(found):
            write_json({"split": "pilot", "candidates": seen, "bits": math.log2(seen)}, study / "candidates.json")
        lines += ["written:", *(f"  {path}" for path in (study / "sweep.csv", *redrawn(found, study, better)))]
    for line in lines:
        _printed(console, line)
    return found


def _better(run: reporting.Run, metric: str) -> bool | None:
    """Whether more of it is better; None, so that nothing is chosen, where neither is or the metric does not say."""
    try:
        return run.higher_is_better(metric)
    except UserError:
        return None


def _best(rows: list[dict[str, Any]], folders: Sequence[Path]) -> Any:
    """What the paired tests say is best; None where they cannot be made, for the table's sake."""
    try:
        return reporting.best(rows, folders)
    except Exception as error:
        say(f"nothing is marked as best: {redaction.describe(error, open_data=True)}")
        return None


def _printed(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def choices(rows: list[dict[str, Any]], better: Mapping[str, bool | None] = _NOTHING) -> list[str]:
    """For each method with several λ: the one that is best on pilot, with its value on test; by the first metric.

    Of runs that differ in numbers of the method as well, the best of them all. `better`: whether more of a metric is
    better, as it is unless told; where neither is, nothing is chosen.
    Test is looked at once, for the λ that pilot chose; whatever else its curve shows is exploratory.
    """
    lines = []
    for metric in reporting.metric_names(rows)[:1]:
        for group, these in _groups(rows).items():
            for method in dict.fromkeys(row["method"] for row in these if row["role"] == "merged"):
                own = [row for row in these if row["method"] == method]
                best = chosen(own, metric, better.get(metric, True))
                if best is None:
                    continue
                value, low, high = (best["row"][key] for key in (metric, f"{metric}_ci_low", f"{metric}_ci_high"))
                where = "" if len(_groups(rows)) == 1 else f"{' '.join(filter(None, group))}: "
                lines.append(
                    f"{where}chosen on pilot: {reporting.model_name(best['row'])}, "
                    f"test {metric_title(metric)} {value:.2f} [{low:.2f}, {high:.2f}]"
                )
    if not lines:
        return []
    seen = seen_on_pilot(rows)
    told = f"chosen from {seen} models on pilot: at most {math.log2(seen):.2f} bits of its patients are in that choice"
    return [*lines, told, "the rest of the test curve is exploratory"]


def seen_on_pilot(rows: list[dict[str, Any]]) -> int:
    """How many merged models were looked at on pilot: log2 of it bounds what its patients can have put in a choice."""
    return len({row["fingerprint"] for row in rows if (row["role"], row["split"]) == ("merged", "pilot")})


def _told(left: dict[int, dict[str, Any]]) -> Iterator[str]:
    """What the jobs took together, and each that did not get through."""
    finished = [one for one in left.values() if "folder" in one]
    new = [one for one in finished if not one["reused"]]
    if len(new) < len(finished):
        yield f"{len(finished) - len(new)} of {len(finished)} runs were found finished"
    if new:
        phases = dict.fromkeys(phase for one in new for phase in one["seconds"])
        spent = (f"{phase} {sum(one['seconds'].get(phase, 0.0) for one in new):.1f}" for phase in phases)
        yield f"seconds: {', '.join(spent)}"
    words = [set(one["overrides"]) for one in left.values() if "overrides" in one]
    everywhere = set.intersection(*words) if words else set()
    for job, one in sorted(left.items()):
        own = [word for word in one.get("overrides", ()) if word not in everywhere]
        called = f"run {job}" + (f" ({' '.join(own)})" if own else "")
        if "refused" in one:
            yield f"{called} was refused: {one['refused']}"
        elif "failed" in one:
            yield f"{called} failed: {one['failed']}"


def _groups(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str, str], list[dict[str, Any]]]:
    """The rows of each task, pair of parents and setting; a tabular model has no parents, and stands on no curve."""
    groups: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    for row in (row for row in rows if row["base"] is not None):
        groups.setdefault((row["task"], row["base"], row["pivot"], row.get("setting", "")), []).append(row)
    return groups


def redrawn(rows: list[dict[str, Any]], study: Path, better: Mapping[str, bool | None]) -> list[Path]:
    """The pictures of a study's last sweep; those that an earlier one left under other names are gone."""
    written = draw(rows, study, better)
    for left in set(study.glob("lambda_curve_*.png")) - set(written):
        left.unlink()
    return written


def draw(rows: list[dict[str, Any]], folder: Path, better: Mapping[str, bool | None] = _NOTHING) -> list[Path]:
    """One picture of each of the first metrics against λ, for each task, pair of parents and setting of the rows."""
    written = []
    groups = _groups(rows)
    settings = list(dict.fromkeys(setting for *_, setting in groups))
    for (task, base, pivot, setting), these in groups.items():
        if not any(row["lambda"] is not None for row in these):
            continue
        # Settings may be long and hold what no name of a file can: the title says them.
        apart = [str(settings.index(setting) + 1)] if len(settings) > 1 else []
        suffix = "" if len(groups) == 1 else "_" + "_".join((task, base, pivot, *apart))
        named = [_named(row) for row in these]
        for metric in reporting.metric_names(these)[:_PICTURES]:
            path = folder / f"lambda_curve_{metric}{suffix}.png"
            best = chosen(these, metric, better.get(metric, True))
            reporting.lambda_curve(named, path, metric=metric, chosen=None if best is None else best["lambda"])
            written.append(path)
    return written


def _named(row: dict[str, Any]) -> dict[str, Any]:
    """The row for a picture: a line a method and variant, and the setting in the title."""
    task, method = ((row["task"], row.get("setting")), (row["method"], row.get("variant")))
    return row | {"task": ", ".join(filter(None, task)), "method": " ".join(filter(None, method)) or None}


def chosen(rows: list[dict[str, Any]], metric: str, higher: bool | None = True) -> dict[str, Any] | None:
    """`report.choose` on pilot; None where the rows hold no pilot or no λ to choose among, or no value is better."""
    merged = [row for row in rows if row["role"] == "merged" and row["lambda"] is not None]
    candidates = {(row["method"], row.get("variant"), row["lambda"]) for row in merged}
    if higher is None or len(candidates) < 2 or {"pilot", "test"} - {row["split"] for row in merged}:
        return None
    try:
        return reporting.choose(rows, metric, higher_is_better=higher)
    except UserError:
        return None
