"""How much the run's own system depends on the wording of the question, on the reported split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from patientdx.core.errors import UserError
from patientdx.evaluation.analyses import Analysis
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.inference import Array, Request, cached
from patientdx.evaluation.kinds import Kind
from patientdx.evaluation.kinds.binary import mass, probability
from patientdx.evaluation.language_systems import language_model, response_key
from patientdx.evaluation.plan import Run
from patientdx.evaluation.prompting import variant_prompts
from patientdx.metrics import prompt_variants
from patientdx.tasks.example import PromptVariant, TaskData


class PromptVariants(Analysis):
    """As `metrics.prompt_variants.variant_spread` has it, and of each wording the fingerprint of its responses."""

    name = "prompt_variants"

    def not_applicable(self, config: RunConfig, data: TaskData, kind: Kind) -> str | None:
        """It is off by default; a task needs other wordings of its question."""
        if not config.analyses.prompt_variants:
            return "prompt_variants=false"
        if not data.prompt_variants:
            raise UserError(
                f"prompt_variants=true asks the question of task={config.task_config.name} in other words, "
                "and it has none. Leave prompt_variants out, or use a task that has."
            )
        return None

    def fingerprint(self, run: Run) -> Any:
        """The keys of the responses to the other wordings."""
        return [key for _, _, key in _variants(run)]

    def collect(self, run: Run) -> dict[str, tuple[PromptVariant, str, Array]]:
        """The responses to each wording, with their key."""
        collected = {}
        for variant, prompts, key in _variants(run):
            rows, system = range(len(prompts.ids)), language_model(run.plan.main)
            label = f"prompt variant {variant.name}"
            request = Request(run.session, run.config, run.plan.data, prompts, rows, system, label, run.timer)
            scores = cached(
                run.session, run.config, key, len(rows), lambda request=request: run.plan.context.kind.respond(request)
            )
            collected[variant.name] = variant, key, scores
        return collected

    def compute(self, run: Run, collected: dict[str, tuple[PromptVariant, str, Array]]) -> dict[str, Any]:
        """The spread over all wordings."""
        split, role = run.config.inference.reported, run.plan.main.role
        measures = run.measures(role, split)
        wordings = {
            name: prompt_variants.VariantScores(probability(scores), variant.inverted)
            for name, (variant, _, scores) in collected.items()
        }
        spread = prompt_variants.variant_spread(
            probability(run.responses[role, split]),
            wordings,
            measures.events.astype(int),
            measures.clusters(run.plan.data),
            **run.config.bootstrap.keywords,
        )
        for name, wording in spread["wordings"].items():
            _, key, scores = collected[name]
            wording |= {"fingerprint": key, "abstention_mass": float(mass(scores).mean())}
        return {"role": role, "split": split} | spread


def _variants(run: Run) -> Iterator[tuple[PromptVariant, Any, str]]:
    """Each wording, its prompts of the reported split, and the key of its responses."""
    context, split = run.plan.context, run.config.inference.reported
    for variant in context.data.prompt_variants:
        prompts = variant_prompts(run.session, context.kind, context.spec, variant, split)
        identity = run.plan.main.identity
        yield variant, prompts, response_key(run.session, run.config, context, identity, prompts.fingerprint, split)


ANALYSIS = PromptVariants()
