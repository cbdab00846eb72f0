"""Dashboards of a study at Weights & Biases: a workspace and a report over the keys that runs log.

    python -m experiments.dashboard ENTITY/PROJECT --study NAME              # make both; their addresses are printed
    python -m experiments.dashboard ENTITY/PROJECT --study NAME --task mortality --task readmission_30d --seed 0
    python -m experiments.dashboard ENTITY/PROJECT --study NAME --task own=auroc,auprc    # a task without a yaml here
    python -m experiments.dashboard ENTITY/PROJECT --study NAME --dry-run --json FILE     # only say what would be made

A study is one name= of runs, W&B's group; --base, --pivot, --seed, --data and --dtype take a part of its runs.
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
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.dashboard_panels import RUNS, Shown, best, columns, filters, sections
from patientdx.core import extras
from patientdx.core.errors import UserError

_SECONDS = 20  # that a dead network may cost


def built(entity: str, project: str, shown: Shown) -> tuple[Any, Any]:
    """The workspace and the report as objects of wandb-workspaces; nothing is sent. Same arguments, same content."""
    with _same_ids():
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws

        name = shown.name or f"PatientDx, {shown.study}: {', '.join(shown.tasks)}"
        workspace = ws.Workspace(
            entity=entity,
            project=project,
            name=name,
            sections=[ws.Section(name=title, panels=panels, is_open=True) for title, panels in sections(shown).items()],
            settings=ws.WorkspaceSettings(x_axis="lambda", max_runs=RUNS),
            runset_settings=ws.RunsetSettings(
                filters=filters(shown),
                pinned_columns=columns(shown),
                order=[ws.Ordering(ws.Summary("lambda"), ascending=True)],
            ),
        )
        blocks: list[Any] = [
            wr.P(
                "λ is chosen on the pilot split and reported once on test; the rest of the test curve is exploratory. "
                "Intervals are by patient."
            )
        ]
        for task in shown.tasks:
            blocks.append(wr.H2(f"Best λ: {task}"))
            for _, runs, panel in best(shown, task):
                panel.layout = wr.Layout(w=12, h=8)
                blocks.append(wr.PanelGrid(runsets=[runs], panels=[panel]))
        for title, panels in sections(shown).items():
            for place, panel in enumerate(panels):
                panel.layout = wr.Layout(x=8 * (place % 3), y=6 * (place // 3), w=8, h=6)
            blocks += [wr.H2(title), wr.PanelGrid(runsets=[_runs(shown)], panels=panels)]
        compared = wr.RunComparer(diff_only=True, layout=wr.Layout(w=24, h=12))
        blocks += [wr.H2("Runs"), wr.PanelGrid(runsets=[_runs(shown)], panels=[compared])]
        return workspace, wr.Report(entity=entity, project=project, title=name, blocks=blocks, width="fluid")


def _runs(shown: Shown) -> Any:
    import wandb_workspaces.reports.v2 as wr

    # Without entity and project it is the report's own project, and needs no look-up.
    return wr.Runset(
        name=f"Runs of {shown.study}",
        filters=filters(shown),
        order=[wr.OrderBy(wr.SummaryMetric("lambda"), ascending=True)],
        pinned_columns=columns(shown),
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


def _shown(words: argparse.Namespace) -> Shown:
    """What the words of the command show. UserError for a task that is neither known nor described."""
    tasks = dict(word.partition("=")[::2] for word in words.task or ["mortality"])
    own = {name: tuple(filter(None, text.split(","))) for name, text in tasks.items() if text}
    chosen = {"base": words.base, "pivot": words.pivot, "seed": words.seed, "data_id": words.data, "dtype": words.dtype}
    known = {key: value for key, value in chosen.items() if value is not None}
    methods = tuple(words.method or ("slerp", "linear"))
    shown = Shown(words.study, tuple(tasks), known, own, methods, words.leakage, words.name)
    for task in tasks:
        shown.metrics(task)
    return shown


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.dashboard", description=__doc__.splitlines()[0])
    parser.add_argument("project", metavar="ENTITY/PROJECT", help="where the runs are: a user or team, and a project")
    parser.add_argument("--study", required=True, help="name= of the runs; other studies are not averaged with them")
    parser.add_argument("--task", action="append", help="a task, or task=metric,… of your own; may repeat (mortality)")
    parser.add_argument("--base", help="name of the base model of the runs")
    parser.add_argument("--pivot", help="name of their pivot model")
    parser.add_argument("--seed", type=int, help="their seed")
    parser.add_argument("--data", help="their data, by data_id in the table of runs")
    parser.add_argument("--dtype", help="what their model computed in, as bfloat16")
    parser.add_argument("--method", action="append", help="whose best λ is shown; may repeat (slerp and linear)")
    parser.add_argument("--leakage", action="store_true", help="panels of runs with privacy=…")
    parser.add_argument("--name", help="name of the workspace and title of the report")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what is made as JSON")
    parser.add_argument("--dry-run", action="store_true", help="make nothing: no account, no network")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the dashboards, or write what they would hold; 2 with one message where that cannot be."""
    words = _parser().parse_args(arguments)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    try:
        entity, project = _place(words.project)
        shown = _shown(words)
        _needed()
        workspace, report = built(entity, project, shown)
        if words.json is not None:
            text = json.dumps(content(workspace, report), indent=2, ensure_ascii=False, sort_keys=True)
            words.json.write_text(text + "\n", encoding="utf-8")
            console.print(f"written: {words.json}")
        if not words.dry_run:
            for url in saved(workspace, report):
                console.print(url)
            return 0
    except (UserError, OSError) as fault:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(str(fault))
        return 2
    for section in workspace.sections:
        console.print(f"{section.name}: {len(section.panels)} panels")
    count = sum(len(shown.metrics(task)) for task in shown.tasks)
    console.print(f"a workspace and a report over {count} metrics would be made in {words.project}; nothing was sent")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
