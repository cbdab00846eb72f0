"""Dashboards of a study at Weights & Biases: a workspace and a report over the keys that runs log.

    python -m experiments.dashboard ENTITY/PROJECT                           # make both; their addresses are printed
    python -m experiments.dashboard ENTITY/PROJECT --task mortality --task readmission_30d
    python -m experiments.dashboard ENTITY/PROJECT --dry-run --json FILE     # only say what would be made

Needs `pip install wandb-workspaces==0.4.13`, and unless it is a dry run an account and runs that were sent
(tracking=wandb, or `wandb sync`). Each call makes a new view and a new report; none is changed or deleted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from rich.console import Console

from patientdx.core import extras
from patientdx.core.errors import UserError
from patientdx.evaluation.analyses.privacy_tables import ATTACKS
from patientdx.evaluation.registry import kind_traits

TASKS = Path(__file__).resolve().parents[1] / "conf" / "task"
REPORTED = "test"  # the split whose numbers go by the task's own name, and whose curves are drawn
_SECONDS = 20  # that a dead network may cost
_SHOWN = 100  # runs in one panel; W&B's own default is 10, fewer than a sweep has
_INTERVAL = "value between the ends of its interval"


def keys(stem: str, metric: str) -> list[str]:
    """A metric and the ends of its interval, as a run's summary names them."""
    return [f"{stem}/{metric}{end}" for end in ("_ci_low", "", "_ci_high")]


def metrics(task: str) -> list[str]:
    """The names of a task's metrics. UserError for a task that does not exist."""
    known = sorted(one.stem for one in TASKS.glob("*.yaml") if one.stem != "none" and not one.stem.startswith("_"))
    if task not in known:
        raise UserError(f"--task {task}: there is no such task to show; there are {', '.join(known)}")
    return list(_task(task)["metrics"])


def predicts(task: str) -> bool:
    """Whether the task asks for the risk of an event: only then are there calibration, decisions and abstention."""
    return kind_traits(_task(task)["kind"]).gives_probability


@cache
def _task(name: str) -> DictConfig:
    """The composed yaml of a task: most of its keys are those of its family."""
    with initialize_config_dir(str(TASKS.parent), version_base="1.3"):
        return compose(f"task/{name}").task


def sections(tasks: Sequence[str]) -> dict[str, list[Any]]:
    """The panels of each section, in order. Every key in them is one that a run logs."""
    found: dict[str, list[Any]] = {}
    for task in tasks:
        found[f"λ curves: {task}"] = list(_lambda_curves(task))
        found[f"Ablations: {task}"] = list(_ablations(task))
        if predicts(task):
            found[f"Calibration and decision: {task}"] = list(_clinical(task))
    found["Leakage"] = list(_leakage(tasks))
    return found


def _lambda_curves(task: str) -> Iterator[Any]:
    """Each metric against λ: a line a method with the ends of its interval; the parents' levels; a dot a run."""
    import wandb_workspaces.reports.v2 as wr

    for metric in metrics(task):
        key = f"{task}/{metric}"
        lines = {"groupby": wr.Config("method"), "groupby_aggfunc": "mean", "groupby_rangefunc": "none"}
        lines |= {"x": "lambda", "title_x": "λ", "title_y": metric, "smoothing_type": "none"}
        lines |= {"max_runs_to_show": _SHOWN}
        yield wr.LinePlot(title=f"{key} by method, with interval ends", y=keys(task, metric), **lines)
        if predicts(task):
            parents = [f"{task}/{role}/{metric}" for role in ("base", "pivot")]
            yield wr.LinePlot(title=f"{key} by method, beside base and pivot", y=[key, *parents], **lines)
        yield wr.LinePlot(
            title=f"{key} by method on pilot, where λ is chosen", y=keys(f"{task}_pilot", metric), **lines
        )
        yield wr.ScatterPlot(title=f"{key}, a dot a run", x=wr.SummaryMetric("lambda"), y=wr.SummaryMetric(key))


def _bars(title: str, names: Sequence[str]) -> Any:
    import wandb_workspaces.reports.v2 as wr

    return wr.BarPlot(title=title, metrics=list(names), max_runs_to_show=_SHOWN, max_bars_to_show=3 * _SHOWN)


def _ablations(task: str) -> Iterator[Any]:
    for metric in metrics(task):
        yield _bars(f"{task}/{metric}: {_INTERVAL}", keys(task, metric))
    if predicts(task):
        yield _bars(f"{task}: mass on yes and no together", [f"{task}/abstention_mass"])


def _clinical(task: str) -> Iterator[Any]:
    """The curves, all runs in one picture, and what of calibration is one number."""
    import wandb_workspaces.reports.v2 as wr

    from patientdx.tracking.wandb_run import AXES

    for curve in ("calibration", "decision", "roc", "pr"):
        x, y = AXES[curve]
        key = f"{task}/{REPORTED}/{curve}"
        yield wr.CustomChart(
            query={"summaryTable": {"tableKey": f"{key}_table"}},
            chart_name="wandb/line/v0",
            chart_fields={"x": x, "y": y},
            chart_strings={"title": key},
        )
    for name in ("slope", "intercept", "ece", "brier", "observed_minus_expected"):
        yield _bars(f"{task} {name}: {_INTERVAL}", keys(f"{task}/calibration", name))


def _leakage(tasks: Sequence[str]) -> Iterator[Any]:
    """Of runs with privacy=…: what a model tells of the patients it saw, beside what it is good for."""
    import wandb_workspaces.reports.v2 as wr

    for stem, whose in (("", ""), ("finetuned/", " of the fine-tuned model")):
        for name in ("delta1", "delta2", "delta1_over_base", "delta2_over_base"):
            yield _bars(f"{name}{whose}, nats a token: {_INTERVAL}", keys(f"{stem}leakage", name))
        for name, what in (("auc", "AUC by attack (0.5: none)"), ("auc_over_base", "AUC above the base's, by attack")):
            yield _bars(f"membership inference{whose}, {what}", [f"{stem}mia/{attack}/{name}" for attack in ATTACKS])
        exposed = [f"{stem}canary/exposure_{copies}" for copies in (1, 4, 16)]
        yield _bars(f"exposure of canaries by copies{whose}, bits", exposed)
    yield _bars("AUC without any model", [f"mia/blind/{name}/auc" for name in ("bag_of_words", "length")])
    for task in tasks:
        for metric in metrics(task)[:1]:
            yield wr.ScatterPlot(
                title=f"use against leakage: {task}/{metric} and Δ2",
                x=wr.SummaryMetric("leakage/delta2"),
                y=wr.SummaryMetric(f"{task}/{metric}"),
            )


def columns(tasks: Sequence[str]) -> list[str]:
    """The columns of the run table, as W&B names them."""
    summary = [key for task in tasks for metric in metrics(task) for key in keys(task, metric)[1:2]]
    counts = [f"{task}/{name}" for task in tasks for name in ("n", "events") if name == "n" or predicts(task)]
    config = ("method.value", "base_model.value.name", "pivot_model.value.name", "seed.value")
    return [*(f"config:{name}" for name in config), *(f"summary:{name}" for name in ("lambda", *summary, *counts))]


def built(entity: str, project: str, tasks: Sequence[str]) -> tuple[Any, Any]:
    """The workspace and the report as objects of wandb-workspaces; nothing is sent. Same arguments, same content."""
    with _same_ids():
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws

        name = f"PatientDx: {', '.join(tasks)}"
        workspace = ws.Workspace(
            entity=entity,
            project=project,
            name=name,
            sections=[ws.Section(name=title, panels=panels, is_open=True) for title, panels in sections(tasks).items()],
            settings=ws.WorkspaceSettings(x_axis="lambda", max_runs=_SHOWN),
            runset_settings=ws.RunsetSettings(
                pinned_columns=columns(tasks), order=[ws.Ordering(ws.Summary("lambda"), ascending=True)]
            ),
        )
        blocks: list[Any] = [
            wr.P(
                "λ is chosen on the pilot split and reported once on test; the rest of the test curve is exploratory. "
                "Intervals are by patient."
            )
        ]
        for title, panels in sections(tasks).items():
            for place, panel in enumerate(panels):
                panel.layout = wr.Layout(x=8 * (place % 3), y=6 * (place // 3), w=8, h=6)
            blocks += [wr.H2(title), wr.PanelGrid(runsets=[_runs(tasks)], panels=panels)]
        compared = wr.RunComparer(diff_only=True, layout=wr.Layout(w=24, h=12))
        blocks += [wr.H2("Runs"), wr.PanelGrid(runsets=[_runs(tasks)], panels=[compared])]
        return workspace, wr.Report(entity=entity, project=project, title=name, blocks=blocks, width="fluid")


def _runs(tasks: Sequence[str]) -> Any:
    import wandb_workspaces.reports.v2 as wr

    # Without entity and project it is the report's own project, and needs no look-up.
    return wr.Runset(
        name="Runs", order=[wr.OrderBy(wr.SummaryMetric("lambda"), ascending=True)], pinned_columns=columns(tasks)
    )


@contextmanager
def _same_ids() -> Iterator[None]:
    """Panels are named by chance; here by the same chance each time."""
    before = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(before)


def content(workspace: Any, report: Any) -> dict[str, Any]:
    """What would be sent, as plain JSON."""
    found = {"workspace": workspace._to_model(), "report": report._to_model()}
    return {name: model.model_dump(mode="json", by_alias=True, exclude_none=True) for name, model in found.items()}


def saved(workspace: Any, report: Any) -> Iterator[str]:
    """Make one after the other at W&B; their addresses. UserError without key, network or project."""
    import wandb

    where = f"{workspace.entity}/{workspace.project}"
    try:
        api = wandb.Api(timeout=_SECONDS)
        if len(api.runs(where, per_page=1)) == 0:
            raise UserError(f"{where} holds no run yet. Send some first: {_SEND}")
        yield workspace.save().url
        yield report.save().url
    except UserError:
        raise
    except (wandb.errors.Error, ValueError, OSError, RuntimeError) as error:
        said = " ".join(str(error).split())[:300]
        raise UserError(
            f"W&B did not take the dashboard of {where}: {said}\nIt needs a key (wandb login, or WANDB_API_KEY), the "
            f"network, and a project that holds runs: {_SEND}\nTo see what would be made: --dry-run --json FILE"
        ) from None


_SEND = "python run.py tracking=wandb tracking.project=…, or cd <output> && wandb sync */*/wandb/offline-run-*"


def _place(text: str) -> tuple[str, str]:
    if not re.fullmatch(r"[^/\s]+/[^/\s\\#?%:]+", text):
        raise UserError(f"{text} is no project at W&B: give ENTITY/PROJECT, as in my-team/patientdx")
    entity, project = text.split("/")
    return entity, project


def _needed() -> None:
    """UserError where wandb-workspaces is not installed. It is silent, and sends no error reports."""
    os.environ |= {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
    try:
        import wandb_workspaces.workspaces  # noqa: F401
    except ImportError:
        raise UserError(f"python -m experiments.dashboard needs {extras.advice('wandb_workspaces')}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the dashboards, or write what they would hold; 2 with one message where that cannot be."""
    parser = argparse.ArgumentParser(prog="python -m experiments.dashboard", description=__doc__.splitlines()[0])
    parser.add_argument("project", metavar="ENTITY/PROJECT", help="where the runs are: a user or team, and a project")
    parser.add_argument("--task", action="append", help="a task to show; may be given again (mortality)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what is made as JSON")
    parser.add_argument("--dry-run", action="store_true", help="make nothing: no account, no network")
    asked = parser.parse_args(arguments)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    try:
        entity, project = _place(asked.project)
        tasks = list(dict.fromkeys(asked.task or ["mortality"]))
        shown = sum(len(metrics(task)) for task in tasks)
        _needed()
        workspace, report = built(entity, project, tasks)
        if asked.json is not None:
            text = json.dumps(content(workspace, report), indent=2, ensure_ascii=False, sort_keys=True)
            asked.json.write_text(text + "\n", encoding="utf-8")
            console.print(f"written: {asked.json}")
        if not asked.dry_run:
            for url in saved(workspace, report):
                console.print(url)
            return 0
    except (UserError, OSError) as fault:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(str(fault))
        return 2
    for section in workspace.sections:
        console.print(f"{section.name}: {len(section.panels)} panels")
    console.print(f"a workspace and a report over {shown} metrics would be made in {asked.project}; nothing was sent")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
