"""Systems compared on the reported split, on the same units and through the same resamples."""

from __future__ import annotations

from typing import Any

import numpy as np

from patientdx.core.functions import dotted
from patientdx.evaluation.analyses import Analysis
from patientdx.evaluation.analyses.comparison_tables import differences, of_questions
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.kinds import Kind
from patientdx.evaluation.plan import Run
from patientdx.metrics import paired
from patientdx.tasks.example import TaskData


class Paired(Analysis):
    """The run's own system minus each other one, and each other one minus a reference, by every metric.

    `comparisons`: difference with paired interval and p-value; where a unit is entirely right or wrong
    also McNemar's exact test (`only_a`, `only_b`, `p_value`), which takes the `rows` for independent, though they may
    be of fewer `subjects`.
    """

    name = "paired"

    def not_applicable(self, config: RunConfig, data: TaskData, kind: Kind) -> str | None:
        """The clinical evaluation compares systems that give probabilities."""
        return "the clinical evaluation compares the models of such a task" if kind.gives_probability else None

    def compute(self, run: Run, collected: Any) -> dict[str, Any]:
        """All comparisons."""
        context, draws, measures = run.plan.context, run.config.bootstrap.keywords, run.reported()
        main, *others = measures
        clusters = measures[main].clusters(context.data)
        references = [system.role for system in run.plan.systems if system.is_reference]
        pairs = [(main, role) for role in others]
        pairs += [(role, reference) for reference in references for role in others if role not in references]
        comparisons = []
        for a, b in pairs:
            for name, target in context.metrics:
                metric = dotted(target)
                (first, right), (second, _) = measures[a].values[name], measures[b].values[name]
                comparison: dict[str, Any] = {"a": a, "b": b, "metric": name}
                comparison["difference"] = paired.paired_estimate(metric, first, second, right, clusters, **draws)
                if metric.__name__ == "accuracy":
                    comparison["mcnemar"] = vars(paired.mcnemar(first == right, second == right))
                comparisons.append(comparison)
        return {
            "split": run.config.inference.reported,
            "comparisons": comparisons,
            "rows": len(clusters),
            "subjects": int(np.unique(clusters).size),
        }

    def summary(self, result: dict[str, Any], task: str) -> dict[str, float]:
        """The run's own system minus each parent."""
        pairs = of_questions(result, {})
        return differences(pairs, pairs[0].a, task) if pairs else {}


ANALYSIS = Paired()
