"""What the study of merge methods checks of its runs: two that must be one model, a rule that was not tried, one that
depends on which parent comes first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from experiments.comparison import change_text
from experiments.study import Run
from patientdx.core.errors import UserError
from patientdx.merge.schedule import schedule
from patientdx.metrics.accuracy import share
from patientdx.metrics.bootstrap import interval, paired_difference

if TYPE_CHECKING:
    from experiments.hierarchical import Model
    from patientdx.evaluation.config.run_config import RunConfig


def identity(averages: Sequence[tuple[str, Run]], split: str, *, weights: bool) -> Iterator[str]:
    """Whether convex task arithmetic is linear averaging: by what both answered, with `weights` also weight by weight.

    averages: title and run of each merge by linear or task_arithmetic.
    """
    linear = {schedule(run.config["lambda"]): run for _, run in averages if run.config["merge"]["name"] == "linear"}
    for title, run in averages:
        place = schedule(run.config["lambda"])
        if run.config["merge"].get("form") == "convex" and place in linear:
            yield f"{title} beside linear averaging: {log_probabilities_agree(run, linear[place], split)}."
            if weights:
                yield f"{title} beside linear averaging: {weights_agree(run.config, linear[place].config)}."


def only_one_moved(runs: Sequence[Run]) -> Iterator[str]:
    """Says so where one parent is the ancestor, which decides the hierarchical rule without a cosine."""
    for config in (run.config for run in runs[:1]):
        given = config.get("ancestor") or {"name": config["pivot_model"]["ancestor"]}
        for key in ("base_model", "pivot_model"):
            if config[key]["name"] == given["name"]:
                yield (
                    f"The {key.partition('_')[0]} is the ancestor of this pair: the other parent alone has a task "
                    "vector, and hierarchical takes its layers whole, or none of them, whatever its numbers. The rule "
                    "is not tried here; python -m experiments.permuted_heads tries it. Nor is the election of signs of "
                    "DARE-TIES and DELLA: one parent has no one to agree with."
                )


def both_orders(models: Sequence[Model], draws: Mapping[str, Any]) -> Iterator[str]:
    """Of a hierarchical merge that was made in both orders of the parents the mean of the two accuracies.

    models: all of the study, linear averaging among them; draws: resamples, level and seed of the bootstrap.
    """
    linear = next(one for one in models if one.method == "linear")
    rules: dict[str, dict[str, Model]] = {}
    for one in models:
        if one.method == "hierarchical":
            config = one.runs[0].config
            rest = {key: value for key, value in config["merge"].items() if key != "order"}
            rule = json.dumps([rest, config["lambda"]], sort_keys=True)
            rules.setdefault(rule, {})[config["merge"]["order"]] = one
    for orders in rules.values():
        if len(orders) == 2:
            first, second = orders["base_first"], orders["pivot_first"]
            right = (first.right.mean(0) + second.right.mean(0)) / 2
            whole, subject = np.ones(right.size), first.answers[0].subject
            value = interval(share, right, whole, subject, **draws)
            over = paired_difference(share, right, linear.right.mean(0), whole, subject, **draws)
            yield (
                f"Mean of {first.title} and {second.title}: {value.value:.3f} [{value.low:.3f}, {value.high:.3f}], "
                f"less linear's {change_text(over)}."
            )


def log_probabilities_agree(a: Run, b: Run, split: str) -> str:
    """In words, whether two merged models gave every option of every question the same log-probability."""
    first, second = (_log_p(run, split) for run in (a, b))
    if first.keys() != second.keys():
        raise UserError(f"{a.folder.name} and {b.folder.name} did not answer the same questions; run both again.")
    gaps = [np.abs(first[name] - second[name]).max() for name in first]
    if not any(gaps):
        return f"the log-probabilities of all options of {len(gaps)} questions are equal, bit for bit"
    return (
        f"the log-probabilities of {np.count_nonzero(gaps)} of {len(gaps)} questions differ, by {max(gaps):.2g} at most"
    )


def _log_p(run: Run, split: str) -> dict[str, np.ndarray]:
    """Hashed id -> log-probability of each option, (options,), of the run's merged model."""
    filters = [("role", "=", "merged"), ("split", "=", split)]
    table = pq.read_table(run.folder / "predictions.parquet", columns=["id", "log_p"], filters=filters)
    return {
        name: np.array(values) for name, values in zip(*(table[c].to_pylist() for c in table.column_names), strict=True)
    }


def weights_agree(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """In words, whether the merges of two composed configs have the same weights. Reads the parents of both."""
    from omegaconf import OmegaConf

    from patientdx.evaluation.config.run_config import parse

    different, elements = differing_weights(*(parse(OmegaConf.create(dict(config))) for config in (a, b)))
    return (
        f"{different} of {elements} weights differ" if different else f"all {elements} weights are equal, bit for bit"
    )


def differing_weights(a: RunConfig, b: RunConfig) -> tuple[int, int]:
    """How many weights of two merges differ, and of how many. UserError where the merges are not of the same tensors.

    They are compared as they would be written, in the dtype of the base's files, a tensor or a layer at a time.
    """
    import torch

    from patientdx.evaluation.session import Session
    from patientdx.merge.curve import evaluate

    found = [Session().recipe(one.merge_config.spec, one.weight, one.cache, adapt=True) for one in (a, b)]
    if found[0].groups != found[1].groups:
        raise UserError(
            "the two merges are not of the same tensors: give both the same parents, and methods of one scope."
        )
    different = elements = 0
    for group in found[0].groups:
        first, second = ({name: (curve, merge) for name, curve in merge.curves(group).items()} for merge in found)
        for name in group:
            like = found[0].parents[0].read(name)
            points = [
                evaluate(curve, merge.weight_of(name), torch.empty_like(like))
                for curve, merge in (first[name], second[name])
            ]
            different += int((points[0] != points[1]).sum())
            elements += like.numel()
    return different, elements
