"""What a run or a sweep comes to, in sentences: the chosen model against both parents, and what to beware of.

Each reported model is compared with both parents on the reported split by the task's first metric, on the same rows
(`patientdx.metrics.paired`), with Holm's correction over the comparisons of a group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from patientdx.core.errors import UserError
from patientdx.core.tables import Row, as_number, few_events, format_estimate, format_p_value, metric_title
from patientdx.reporting.groups import Group, ReportedModel
from patientdx.reporting.runs import Predictions

PARENTS = ("base", "pivot")
LOW_MASS = 0.5  # of the probability, on yes and no together: less says that the model mostly answers something else


@dataclass(frozen=True)
class Headline:
    """The sentences of a group: what its models come to, and warnings that belong beside them."""

    verdicts: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """All of them, for a terminal."""
        return [*self.verdicts, *(f"warning: {line}" for line in self.warnings)]


def headline(group: Group) -> Headline:
    """The sentences of a group; without verdicts where no λ was chosen or no merged model is reported."""
    comparison = _Comparison(group)
    verdicts = [] if group.has_unchosen else [comparison.sentence(model) for model in group.models]
    return Headline(tuple(verdicts), tuple(_warnings(group)))


@dataclass(frozen=True)
class _Comparison:
    """The reported models of a group against their parents."""

    group: Group

    @property
    def metric(self) -> str:
        """The one that λ is chosen by."""
        return self.group.metrics[0]

    @cached_property
    def differences(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        """Model minus parent by model and parent, each an estimate with `p_holm`."""
        from patientdx.metrics.paired import holm, paired_estimate

        made: dict[tuple[str, str], dict[str, Any]] = {}
        for model in self.group.models:
            function, scores = model.run.metric_functions.get(self.metric), self.scores(model, "merged")
            if function is None or scores is None:
                continue
            for parent in PARENTS:
                other = self.scores(model, parent)
                if other is None or not scores.is_paired_with(other, self.metric) or self.is_parent(model, parent):
                    continue
                (a, label), (b, _) = scores.of(self.metric), other.of(self.metric)
                try:
                    made[model.name, parent] = paired_estimate(
                        function, a, b, label, scores.subject, **model.run.bootstrap
                    )
                except (UserError, ValueError):  # one patient, or one class
                    continue
        corrected = holm({key: result["p_value"] for key, result in made.items() if result["p_value"] is not None})
        return {key: result | {"p_holm": corrected.get(key)} for key, result in made.items()}

    def scores(self, model: ReportedModel, role: str) -> Predictions | None:
        """Of a role on the reported split, from the model's own run or another of the group."""
        runs = [model.run] if role == "merged" else [model.run, *self.group.runs]
        known = (run.predictions.get((role, self.group.reported)) for run in runs)
        return next((scores for scores in known if scores is not None), None)

    def is_parent(self, model: ReportedModel, parent: str) -> bool:
        """Whether the model answers every row as that parent does."""
        scores, other = self.scores(model, "merged"), self.scores(model, parent)
        if scores is None or other is None or not scores.is_paired_with(other, self.metric):
            return False
        return scores.of(self.metric)[0].tolist() == other.of(self.metric)[0].tolist()

    def sentence(self, model: ReportedModel) -> str:
        """What the model is, and how it stands to each parent."""
        weight = as_number(model.row.get("lambda"))
        end = "" if weight is None else {0.0: "base", 1.0: "pivot"}.get(weight, "")
        same = [parent for parent in PARENTS if self.is_parent(model, parent)]
        parts = []
        if end in same or (not same and end and _has_exact_ends(model)):
            parts.append(f"{model.name} is the {end} itself: a parent, and no merge")
        elif same:
            parts.append(f"{model.name} answers every row as the {' and the '.join(same)} does")
        parts += [self.verdict(model, parent) for parent in PARENTS if (model.name, parent) in self.differences]
        if not any((model.name, parent) in self.differences for parent in PARENTS) and not same:
            parts.append(f"{model.name} is not compared with its parents, which have no scores of the same rows here")
        return "; ".join(parts)

    def verdict(self, model: ReportedModel, parent: str) -> str:
        """Better, not shown to be better, or worse; with the difference."""
        result = self.differences[model.name, parent]
        higher = model.run.higher_is_better(self.metric)
        p_value, alpha = result["p_holm"], 1 - model.run.bootstrap["level"]
        numbers = f"{metric_title(self.metric)} {format_estimate(result, 3)}"
        if p_value is not None:
            plain, corrected = format_p_value(result["p_value"]), format_p_value(p_value)
            numbers += f", p {plain}" + ("" if corrected == plain else f", with Holm's correction {corrected}")
        if higher is None:
            words = "differs from" if p_value is not None and p_value < alpha else "is not shown to differ from"
        elif p_value is None or p_value >= alpha:
            words = "is not shown to be better than"
        else:
            words = "is better than" if (result["value"] > 0) == higher else "is worse than"
        return f"{model.name} {words} the {parent} on {self.group.reported} (difference in {numbers})"


def _has_exact_ends(model: ReportedModel) -> bool:
    """Whether the merge method gives its parents back at λ=0 and λ=1."""
    from patientdx.core.functions import dotted
    from patientdx.merge.method import method_spec

    target = model.run.config.get("merge", {}).get("_target_")
    return target is not None and method_spec(dotted(target)).exact_ends == (0, 1)


def _warnings(group: Group) -> Iterator[str]:
    """Few events, and models that hardly answer."""
    rows = [row for row in group.rows if row["split"] == group.reported]
    few = next((row for row in rows if few_events(row)), None)
    if few is not None:
        yield (
            f"few events: {few['events']} of {few['n']} on {group.reported}. Intervals are wide, and may cover less "
            "than they say (docs/intervals.md)"
        )
    shown: dict[str, Row] = {model.name: model.row for model in group.models}
    shown |= {row["role"]: row for row in rows if row["role"] in PARENTS}
    for name, row in shown.items():
        mass = as_number(row.get("abstention_mass"))
        if mass is not None and mass < LOW_MASS:
            yield (
                f"{name} hardly answers: yes and no together have a probability of {mass:.2g} on {group.reported}, so "
                "its scores come from what it does not say"
            )
