"""Every metric of every system in each group of the reported split."""

from __future__ import annotations

from typing import Any

import numpy as np

from patientdx.core.functions import dotted
from patientdx.evaluation.analyses import Analysis
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.kinds import Kind
from patientdx.evaluation.plan import Run
from patientdx.metrics.intervals import Estimate, estimates
from patientdx.metrics.specification import Metric
from patientdx.tasks.example import TaskData


class Groups(Analysis):
    """`groups`: of each grouping and group `n` and, by system, every metric as an estimate."""

    name = "groups"

    def not_applicable(self, config: RunConfig, data: TaskData, kind: Kind) -> str | None:
        """The clinical evaluation has subgroups of stays."""
        if kind.gives_probability:
            return "the clinical evaluation has the subgroups of such a task"
        return None if data.groups else "the task has no groups"

    def fingerprint(self, run: Run) -> Any:
        """The groups."""
        return dict(run.plan.data.groups)

    def compute(self, run: Run, collected: Any) -> dict[str, Any]:
        """All groups."""
        context, measures = run.plan.context, run.reported()
        first = next(iter(measures.values()))
        clusters = first.clusters(context.data)
        metrics = {name: dotted(target) for name, target in context.metrics}
        groups: dict[str, Any] = {}
        for grouping, values in context.data.groups.items():
            column = np.array([values[i] for i in first.examples])
            for group in dict.fromkeys(column.tolist()):
                inside = np.flatnonzero(column == group)
                models = {
                    role: {
                        name: _estimate(metrics[name], answer[inside], right[inside], clusters[inside], run)
                        for name, (answer, right) in measured.values.items()
                        if name in metrics
                    }
                    for role, measured in measures.items()
                }
                groups.setdefault(grouping, {})[group] = {"n": int(inside.size), "models": models}
        return {"split": run.config.inference.reported, "groups": groups}


def _estimate(metric: Metric, answer: np.ndarray, right: np.ndarray, clusters: np.ndarray, run: Run) -> Estimate:
    if np.unique(clusters).size < 2:
        reason = f"one {run.plan.context.kind.unit} gives no interval"
        return {"value": float(metric(answer, right)), "low": None, "high": None, "dropped": 0, "reason": reason}
    return estimates({"": metric}, answer, right, clusters, **run.config.bootstrap.keywords)[0][""]


ANALYSIS = Groups()
