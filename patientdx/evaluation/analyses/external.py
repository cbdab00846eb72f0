"""Systems inside and outside: on the reported split, and on patients of another hospital or of later years."""

from __future__ import annotations

from typing import Any

from patientdx.evaluation.analyses import Analysis
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.kinds import Kind
from patientdx.evaluation.kinds.binary import probability
from patientdx.evaluation.plan import Run
from patientdx.metrics.clinical import Scored
from patientdx.metrics.external import compare
from patientdx.records.splits import EXTERNAL
from patientdx.tasks.example import TaskData

# Part of the fingerprint: raise it when the same responses come to give other results.
VERSION = 1


class External(Analysis):
    """Every system on both sides, with what was fitted and chosen inside frozen; see `patientdx.metrics.external`."""

    name = "external"

    def not_applicable(self, config: RunConfig, data: TaskData, kind: Kind) -> str | None:
        """It needs scores of both sides, and an outcome."""
        splits = config.inference.splits
        if not kind.gives_probability:
            return f"{kind.name} tasks have no probability of an outcome"
        return None if EXTERNAL in splits and set(splits) - {EXTERNAL} else f"the split {EXTERNAL} is not scored"

    def fingerprint(self, run: Run) -> Any:
        """Its version."""
        return {"version": VERSION}

    def compute(self, run: Run, collected: Any) -> dict[str, Any]:
        """All systems that respond to both sides."""
        config = run.config
        inside = config.inference.reported
        roles = [role for role, split in run.responses if split == inside and (role, EXTERNAL) in run.responses]
        pilot = [role for role in roles if (role, "pilot") in run.responses and inside != "pilot"]
        result = compare(
            {role: _scored(run, role, inside) for role in roles},
            {role: _scored(run, role, EXTERNAL) for role in roles},
            {role: _scored(run, role, "pilot") for role in pilot},
            **config.bootstrap.keywords,
        )
        return {"inside": inside, "outside": EXTERNAL, "frozen_on": "pilot" if pilot else None, **result}

    def summary(self, result: dict[str, Any], task: str) -> dict[str, float]:
        """The measures outside and their losses, of the system that the run is about."""
        measures = next(iter(result["models"].values()))["measures"]
        numbers = {
            f"{task}/external/{name.replace(' ', '_')}{end}": measure.get(side, {}).get("value")
            for name, measure in measures.items()
            for side, end in (("outside", ""), ("loss", "_loss"))
        }
        return {name: value for name, value in numbers.items() if value is not None}


def _scored(run: Run, role: str, split: str) -> Scored:
    measures = run.measures(role, split)
    score = probability(run.responses[role, split])
    return Scored(score, measures.events.astype(int), measures.clusters(run.plan.data).tolist())


ANALYSIS = External()
