"""What a clinic needs to know of a run's systems; see `patientdx.metrics.clinical`."""

from __future__ import annotations

from typing import Any

from patientdx.evaluation.analyses import Analysis, Curves
from patientdx.evaluation.analyses.cohort_description import describe
from patientdx.evaluation.analyses.comparison_tables import differences, of_clinical
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.kinds import Kind
from patientdx.evaluation.kinds.binary import mass, probability
from patientdx.evaluation.plan import Run
from patientdx.metrics import clinical
from patientdx.metrics.thresholds import Rule
from patientdx.tasks.example import TaskData

# Part of the fingerprint: raise it when the same responses come to give other results.
EVALUATION = 2

_OF_FIT = ("fitted_on", "n", "events", "features", "chosen", "missing_components")
_NUMBERS = ("brier", "ece", "intercept", "slope", "observed_minus_expected")
_ENDS = {"": "value", "_ci_low": "low", "_ci_high": "high"}


class Clinical(Analysis):
    """Who was studied, discrimination, calibration, net benefit, thresholds, subgroups and paired differences."""

    name = "clinical"

    def not_applicable(self, config: RunConfig, data: TaskData, kind: Kind) -> str | None:
        """It needs probabilities of an outcome, and can be turned off."""
        if not config.analyses.clinical:
            return "clinical=false"
        return None if kind.gives_probability else f"{kind.name} tasks have no probability of an outcome"

    def fingerprint(self, run: Run) -> Any:
        """Its version, the groups, and what is set of groups and thresholds."""
        analyses = run.config.analyses
        settings = {"thresholds": analyses.thresholds.model_dump(), "subgroups": analyses.subgroups.model_dump()}
        return {"version": EVALUATION, "groups": dict(run.plan.data.groups), **settings}

    def compute(self, run: Run, collected: Any) -> dict[str, Any]:
        """The evaluation of every system that responds to the reported split."""
        config, plan, split = run.config, run.plan, run.config.inference.reported
        in_words = {system.role: system.in_words for system in plan.systems}
        scored = {}
        for (role, name), responses in run.responses.items():
            if (role, split) not in run.responses:  # a tabular model has no result on train
                continue
            measures = run.measures(role, name)
            scored[role, name] = clinical.Scored(
                probability(responses),
                measures.events.astype(int),
                measures.clusters(plan.data).tolist(),
                mass(responses) if in_words[role] else None,
            )
        rows = plan.context.rows[split]
        fitted = [
            part for system in plan.systems for part in system.provenance(config, plan.context).get("baselines", [])
        ]
        result = clinical.evaluate(
            scored,
            reported=split,
            pilot="pilot" if "pilot" in config.inference.splits and split != "pilot" else None,
            groups={name: [values[i] for i in rows] for name, values in plan.data.groups.items()},
            rule=Rule(**config.analyses.thresholds.model_dump()),
            **config.analyses.subgroups.model_dump(),
            **config.bootstrap.keywords,
        )
        return result | {
            "baselines": {part["name"]: {k: part[k] for k in _OF_FIT if k in part} for part in fitted},
            "description": describe(config, plan.data, result["models"]),
        }

    def summary(self, result: dict[str, Any], task: str) -> dict[str, float]:
        """Raw calibration and what is paired with each parent, with the ends of intervals."""
        raw = _main(result)["calibration"]["raw"]
        numbers = {
            f"{task}/calibration/{name}{end}": raw[name].get(key) for name in _NUMBERS for end, key in _ENDS.items()
        }
        paired = differences(of_clinical(result, {}), next(iter(result["models"])), task)
        return {name: value for name, value in numbers.items() if value is not None} | paired

    def curves(self, result: dict[str, Any], task: str) -> Curves:
        """Calibration and net benefit."""
        model, stem = _main(result), f"{task}/{result['reported']}"
        bins, benefit = model["calibration"]["raw"]["curve"], model["decision_curve"]["raw"]
        return {
            f"{stem}/calibration": [(part["probability"], part["observed"]) for part in bins],
            f"{stem}/decision": list(zip(benefit["threshold"], benefit["model"], strict=True)),
        }


def _main(result: dict[str, Any]) -> dict[str, Any]:
    """The system that the run is about is the first."""
    return next(iter(result["models"].values()))


ANALYSIS = Clinical()
