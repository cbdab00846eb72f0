"""The panels of a study's dashboards at Weights & Biases; see `experiments.dashboard`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from patientdx.core.errors import UserError
from patientdx.core.functions import dotted
from patientdx.evaluation.analyses.privacy_tables import ATTACKS
from patientdx.evaluation.registry import kind_traits
from patientdx.metrics.specification import higher_is_better

TASKS = Path(__file__).resolve().parents[1] / "conf" / "task"
REPORTED = "test"  # the split whose numbers go by the task's own name, and whose curves are drawn
RUNS = 100  # runs in one panel; W&B's own default is 10, fewer than a sweep has
_INTERVAL = "value between the ends of its interval"


def keys(stem: str, metric: str) -> list[str]:
    """A metric and the ends of its interval, as a run's summary names them."""
    return [f"{stem}/{metric}{end}" for end in ("_ci_low", "", "_ci_high")]


@dataclass(frozen=True)
class Shown:
    """What is shown: of the runs of a study those that `filters` (value by key of the config) let through.

    own: metrics of tasks that have no yaml here. methods: whose best λ the report shows. leakage: that of runs with
    privacy=….
    """

    study: str
    tasks: tuple[str, ...]
    filters: Mapping[str, str | int] = field(default_factory=dict)
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    methods: tuple[str, ...] = ("slerp", "linear")
    leakage: bool = False
    name: str | None = None

    def metrics(self, task: str) -> tuple[str, ...]:
        """The names of a task's metrics. UserError for a task that neither has a yaml here nor is described."""
        if task in self.own:
            return self.own[task]
        known = sorted(one.stem for one in TASKS.glob("*.yaml") if one.stem != "none" and not one.stem.startswith("_"))
        if task not in known:
            raise UserError(
                f"--task {task}: there is no such task to show; there are {', '.join(known)}. For a task of your own "
                f"give its metrics too, as in --task {task}=auroc,auprc"
            )
        return tuple(_task(task)["metrics"])

    def predicts(self, task: str) -> bool:
        """Whether the task asks for the risk of an event: else it has no calibration, decisions and abstention."""
        return task not in self.own and kind_traits(_task(task)["kind"]).gives_probability

    def ascends(self, task: str, metric: str) -> bool:
        """Whether the smallest value of a metric is the best; those of tasks without a yaml are best when large."""
        return task not in self.own and not higher_is_better(dotted(_task(task)["metrics"][metric]))


@cache
def _task(name: str) -> DictConfig:
    """The composed yaml of a task: most of its keys are those of its family."""
    with initialize_config_dir(str(TASKS.parent), version_base="1.3"):
        return compose(f"task/{name}").task


def sections(shown: Shown) -> dict[str, list[Any]]:
    """The panels of each section, in order. Every key in them is one that a run logs."""
    panels: dict[str, list[Any]] = {}
    for task in shown.tasks:
        panels[f"λ curves: {task}"] = list(_lambda_curves(shown, task))
        panels[f"Differences from the parents: {task}"] = list(_differences(shown, task))
        panels[f"Ablations: {task}"] = list(_ablations(shown, task))
        if shown.predicts(task):
            panels[f"Calibration and decision: {task}"] = list(_clinical(task))
    if shown.leakage:
        panels["Leakage"] = list(_leakage(shown))
    return panels


def _against_lambda(title: str, y: Sequence[str], metric: str, *, band: bool = True) -> Any:
    """A line a method. band: `y` are a value and the ends of its interval; their median is the value, their range the
    interval. Of several runs at one λ it is the median and the range of all."""
    import wandb_workspaces.reports.v2 as wr

    return wr.LinePlot(
        title=title, y=list(y), x="lambda", title_x="λ", title_y=metric, smoothing_type="none",
        groupby=wr.Config("method"), groupby_aggfunc="median", groupby_rangefunc="minmax" if band else "none",
        aggregate=band, max_runs_to_show=RUNS,
    )  # fmt: skip


def _lambda_curves(shown: Shown, task: str) -> Iterator[Any]:
    """Each metric against λ, with its interval as a band; beside the parents' levels; on pilot; a dot a run."""
    import wandb_workspaces.reports.v2 as wr

    for metric in shown.metrics(task):
        key = f"{task}/{metric}"
        yield _against_lambda(f"{key} by method, with its interval", keys(task, metric), metric)
        parents = [f"{task}/{role}/{metric}" for role in ("base", "pivot")]
        yield _against_lambda(f"{key} by method, beside base and pivot", [key, *parents], metric, band=False)
        title = f"{key} by method on pilot, where λ is chosen"
        yield _against_lambda(title, keys(f"{task}_pilot", metric), metric)
        yield wr.ScatterPlot(title=f"{key}, a dot a run", x=wr.SummaryMetric("lambda"), y=wr.SummaryMetric(key))


def _differences(shown: Shown, task: str) -> Iterator[Any]:
    """The merge minus each parent on the same records, against λ, with paired intervals."""
    for metric in shown.metrics(task):
        for role in ("base", "pivot"):
            stem = f"{task}/minus_{role}"
            yield _against_lambda(f"{task}/{metric} minus that of the {role}, paired", keys(stem, metric), metric)


def best(shown: Shown, task: str) -> Iterator[tuple[str, Any, Any]]:
    """Of each method: its name, the run that is best on pilot by the task's first metric, and its values on test."""
    import wandb_workspaces.reports.v2 as wr

    metric = shown.metrics(task)[0]
    order = wr.OrderBy(wr.SummaryMetric(f"{task}_pilot/{metric}"), ascending=shown.ascends(task, metric))
    for method in shown.methods:
        runs = wr.Runset(
            name=f"{method}, best on pilot first",
            filters=filters(shown, method=method),
            order=[order],
            pinned_columns=columns(shown),
        )
        names = ["lambda", *keys(task, metric)]
        title = f"{task}/{metric} of {method} at the λ chosen on pilot: {_INTERVAL}"
        yield method, runs, wr.BarPlot(title=title, metrics=names, max_runs_to_show=1, max_bars_to_show=len(names))


def _bars(title: str, names: Sequence[str]) -> Any:
    import wandb_workspaces.reports.v2 as wr

    return wr.BarPlot(title=title, metrics=list(names), max_runs_to_show=RUNS, max_bars_to_show=3 * RUNS)


def _ablations(shown: Shown, task: str) -> Iterator[Any]:
    for metric in shown.metrics(task):
        yield _bars(f"{task}/{metric}: {_INTERVAL}", keys(task, metric))
    if shown.predicts(task):
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


def _leakage(shown: Shown) -> Iterator[Any]:
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
    for task in shown.tasks:
        for metric in shown.metrics(task)[:1]:
            yield wr.ScatterPlot(
                title=f"use against leakage: {task}/{metric} and Δ2",
                x=wr.SummaryMetric("leakage/delta2"),
                y=wr.SummaryMetric(f"{task}/{metric}"),
            )


def columns(shown: Shown) -> list[str]:
    """The columns of the run table, as W&B names them."""
    summary = [key for task in shown.tasks for metric in shown.metrics(task) for key in keys(task, metric)[1:2]]
    counts = [
        f"{task}/{name}" for task in shown.tasks for name in ("n", "events") if name == "n" or shown.predicts(task)
    ]
    config = ("method", "base", "pivot", "seed", "data_id", "dtype")
    return [
        *(f"config:{name}.value" for name in config),
        *(f"summary:{name}" for name in ("lambda", *summary, *counts)),
    ]


def filters(shown: Shown, **more: str) -> Any:
    """What lets a run through: its study, W&B's group, and values by key of its config."""
    import wandb_workspaces.expr as expr

    keys = {**shown.filters, **more}
    return expr.And(expr.Metric("Group") == shown.study, *(expr.Config(key) == value for key, value in keys.items()))
