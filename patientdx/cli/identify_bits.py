"""Hypotheses computed again with our own merge functions: with which λ are the most elements the merged ones?

Least squares takes roundings as random. Where they are not, λ is off by more than its error says, while the λ that was
used gives every bit: it is looked for among the decimals near the fitted one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from patientdx.checkpoints.identity import Source
from patientdx.cli.identify_search import Explanation, Measured, Sampling, read_sample
from patientdx.core.threads import workers
from patientdx.merge.curve import evaluate

_CHECKED = 6  # explanations that are computed: those of the table
STRONG = 10.0  # a difference of two Bayesian information criteria that is very strong evidence (Kass, Raftery 1995)
_CLEAR = 5.0  # standard deviations of a difference of two counts
_DIGITS = range(1, 7)
_ENOUGH = 0.999  # of the most equal bits: with so many, fewer digits are preferred to more
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class _Counts:
    """Equal bits of one tensor: with the common λ rounded to each number of digits, and with the tensor's best λ."""

    common: tuple[int, ...]
    separate: int


def with_bits(
    explanations: Sequence[Explanation],
    rows: Sequence[Measured],
    merged: Source,
    models: Sequence[Source],
    sampling: Sampling,
) -> list[Explanation]:
    """The explanations, the first of those that explain any tensor with `bits` and `values`. Reads the sample again.

    The first is the one that `by_bits` says.
    """
    checked = [item for item in explanations[:_CHECKED] if item.explained]

    def count(at: int) -> list[_Counts]:
        target, *tensors = (read_sample(model, rows[at].name, sampling) for model in (merged, *models))
        return [_count(item, rows[at], at, target, tensors) for item in checked]

    with workers() as parallel:
        by_row = list(parallel(count, range(len(rows)))) if checked else []
    computed = {id(item): _chosen(item, [row[at] for row in by_row]) for at, item in enumerate(checked)}
    return by_bits([computed.get(id(item), item) for item in explanations], sum(row.elements for row in rows))


def _count(item: Explanation, row: Measured, at: int, target: Tensor, tensors: Sequence[Tensor]) -> _Counts:
    counts: dict[tuple[float, ...], int] = {}

    def equal(weights: Sequence[float]) -> int:
        # Undetermined: all λ give the same tensor.
        key = tuple(0.0 if math.isnan(weight) else weight for weight in weights)
        if key not in counts:
            counts[key] = equal_bits(item, row, key, target, tensors)
        return counts[key]

    common = [summary.mean for summary in item.weights]
    fitted = item.fits[at].weights
    rounded = tuple(equal([round(weight, digits) for weight in common]) for digits in _DIGITS)
    near = [equal([round(weight, digits) for weight in fitted]) for digits in _DIGITS]
    return _Counts(rounded, max([*near, equal(fitted)]))


def _chosen(item: Explanation, counts: Sequence[_Counts]) -> Explanation:
    """The fewest digits of a common λ that give about as many bits as anything; else each tensor's best."""
    totals = [sum(count.common[at] for count in counts) for at in range(len(_DIGITS))]
    separate = sum(count.separate for count in counts)
    for at, digits in enumerate(_DIGITS):
        if totals[at] >= _ENOUGH * max(separate, *totals):
            values = tuple(round(summary.mean, digits) + 0.0 for summary in item.weights)
            return replace(item, bits=tuple(count.common[at] for count in counts), values=values)
    return replace(item, bits=tuple(count.separate for count in counts))


def fewer_bits(item: Explanation, other: Explanation, elements: int) -> bool:
    """Whether clearly fewer of all sampled elements agree than with the other; False where either was not computed."""
    if not item.bits or not other.bits:
        return False
    wrong, fewer = elements - sum(item.bits), elements - sum(other.bits)
    return wrong - fewer > _CLEAR * math.sqrt(wrong + fewer)


def by_bits(explanations: Sequence[Explanation], elements: int) -> list[Explanation]:
    """The explanations, the first exchanged for the one with the most equal bits where these contradict it.

    Fits take roundings as random, and prefer a wrong curve where candidates differ by few steps of their dtype; bits do
    not. Only explanations of as many tensors with no more λ can come first.
    """
    best = explanations[0]
    better = [item for item in _rivals(explanations) if fewer_bits(best, item, elements)]
    if better:
        best = max(better, key=lambda item: sum(item.bits))
    return [best, *(item for item in explanations if item is not best)]


def equivalent(explanations: Sequence[Explanation], elements: int) -> list[Explanation]:
    """Explanations that neither fit nor bits distinguish from the first, with no more λ."""
    return [item for item in _close(explanations) if not fewer_bits(item, explanations[0], elements)]


def decided_by_bits(explanations: Sequence[Explanation], elements: int) -> list[Explanation]:
    """Explanations that fit as well as the first, with fewer equal bits."""
    return [item for item in _close(explanations) if fewer_bits(item, explanations[0], elements)]


def _rivals(explanations: Sequence[Explanation]) -> list[Explanation]:
    """Those that explain as many tensors as the first, with no more λ."""
    best, *rest = explanations
    return [
        item
        for item in rest
        if item.explained == best.explained and item.hypothesis.weight_count <= best.hypothesis.weight_count
    ]


def _close(explanations: Sequence[Explanation]) -> list[Explanation]:
    return [item for item in _rivals(explanations) if item.criterion - explanations[0].criterion < STRONG]


def equal_bits(
    item: Explanation, row: Measured, weights: Sequence[float], target: Tensor, tensors: Sequence[Tensor]
) -> int:
    """How many sampled elements (n,) of the merged tensor our merge of the candidates' gives, rounded as they are."""
    curve, weight = item.hypothesis.curve(tensors, weights, row.arcs)
    ours = evaluate(curve, weight, torch.empty(target.numel(), dtype=row.rounding.dtype)).to(target.dtype)
    kind = _INTEGERS[target.dtype.itemsize]
    return int((ours.view(kind) == target.view(kind)).sum())
