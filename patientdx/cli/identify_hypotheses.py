"""What a merged model may be: a candidate, or a merge of two or three of them by linear, SLERP or task arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from torch import Tensor

from patientdx.merge.curve import Curve
from patientdx.merge.identification import Fit, Triangle, difference, fit_affine, fit_arc, fit_copy
from patientdx.merge.linear import linear
from patientdx.merge.slerp import slerp
from patientdx.merge.task_arithmetic import task_arithmetic

Pair = tuple[int, int]


@dataclass(frozen=True)
class Arc:
    """What SLERP makes of one tensor of two candidates.

    angle: radians, None where it takes the straight line. coefficients: λ -> of base and pivot, as in a `Curve`.
    """

    angle: float | None
    coefficients: Callable[[float], tuple[float | Tensor, ...]]


def arc_of(base: Tensor, pivot: Tensor) -> Arc:
    """The arc of our SLERP between two tensors of one shape; reads each of them once."""
    curve = slerp((base, pivot))
    angle = math.radians(float(curve.diagnostics["angle_degrees"]))
    return Arc(None if curve.diagnostics["branch"] == "line" else angle, curve.coefficients)


@dataclass(frozen=True)
class Hypothesis:
    """One explanation; candidates are numbered as in the command, an ancestor that is no candidate comes last.

    method: copy, linear, slerp or task_arithmetic. parents: base first; one for a copy, and the pivots for task
    arithmetic. ancestor: of task arithmetic. weighted: each parent beside the base, or each task vector, has its own λ.
    """

    method: str
    parents: tuple[int, ...]
    ancestor: int | None = None
    weighted: bool = False

    @property
    def models(self) -> tuple[int, ...]:
        """Numbers of all models that take part."""
        return self.parents if self.ancestor is None else (*self.parents, self.ancestor)

    @property
    def pair(self) -> Pair:
        """Base and pivot of SLERP."""
        return self.parents[0], self.parents[1]

    @property
    def weight_count(self) -> int:
        """How many λ it has."""
        if self.method == "copy":
            return 0
        return len(self.parents) - (self.ancestor is None) if self.weighted else 1

    def fit(self, factor: Triangle, arcs: Mapping[Pair, Arc]) -> Fit:
        """The best λ for one tensor, from its triangle (k + 1, k + 1) and the arcs between its candidates."""
        if self.method == "copy":
            return fit_copy(factor, self.parents[0])
        if self.method == "slerp":
            return fit_arc(factor, *self.pair, arcs[self.pair].angle)
        count, origin = factor.shape[1] - 1, self._origin
        pivots = [parent for parent in self.parents if parent != origin]
        if self.weighted:
            return fit_affine(factor, origin, [difference(count, [pivot], origin) for pivot in pivots])
        return fit_affine(factor, origin, [difference(count, pivots, origin)])

    def curve(
        self, tensors: Sequence[Tensor], weights: Sequence[float], arcs: Mapping[Pair, Arc]
    ) -> tuple[Curve, float]:
        """The curve of our merge function through tensors (one of each candidate), and the λ at which it is meant.

        weights: as many as `weight_count` says; with several, they are the method's `weights`.
        """
        terms = [tensors[parent] for parent in self.parents]
        if self.method == "copy":
            return Curve(tuple(terms), lambda weight: (1.0,)), 0.0
        if self.method == "slerp":
            return Curve(tuple(terms), arcs[self.pair].coefficients), weights[0]
        if self.ancestor is not None:
            numbers = list(weights) if self.weighted else None
            curve = task_arithmetic(terms, ancestor=tensors[self.ancestor], weights=numbers)
            return curve, 1.0 if self.weighted else weights[0]
        if not self.weighted:
            return linear(terms), weights[0]
        # The same point; `linear` refuses the negative weight that a fit can give to a model that takes no part.
        return task_arithmetic(terms[1:], ancestor=terms[0], weights=list(weights)), 1.0

    def named(self, names: Sequence[str], values: Sequence[str] = ()) -> str:
        """As a call with the models' names, such as slerp(base=a, pivot=b, λ=0.4); `values`: the λ as text, if any."""
        if self.method == "copy":
            return names[self.parents[0]]
        listed = [names[parent] for parent in self.parents]
        if self.ancestor is not None:
            parts = [f"ancestor={names[self.ancestor]}", f"parents=[{', '.join(listed)}]"]
        elif len(listed) == 2:
            parts = [f"base={listed[0]}", f"pivot={listed[1]}"]
        else:
            parts = [f"base={listed[0]}", f"others=[{', '.join(listed[1:])}]"]
        if self.weighted:
            parts += [f"weights=[{', '.join(values)}]"] if values else ["weights"]
        else:
            parts += [f"λ={value}" for value in values]
        return f"{self.method}({', '.join(parts)})"

    @property
    def _origin(self) -> int:
        return self.parents[0] if self.ancestor is None else self.ancestor


def hypotheses(count: int, ancestor: int | None) -> tuple[Hypothesis, ...]:
    """Every hypothesis about `count` models, the simplest first.

    The order of a pair is that of the command: SLERP and the line are the same set of models in both. ancestor: the
    only model that task arithmetic starts from; None: each in turn.
    """
    models = range(count)
    listed = [Hypothesis("copy", (model,)) for model in models]
    pairs = list(combinations(models, 2))
    for pair in pairs:
        if ancestor in pair:
            listed.append(Hypothesis("task_arithmetic", tuple(model for model in pair if model != ancestor), ancestor))
        else:
            listed.append(Hypothesis("linear", pair))
    listed += [Hypothesis("slerp", pair) for pair in pairs]
    triples = list(combinations(models, 3))
    for triple in triples:
        for start in triple if ancestor is None else {ancestor} & set(triple):
            listed.append(Hypothesis("task_arithmetic", tuple(model for model in triple if model != start), start))
    for triple in triples:
        if ancestor in triple:
            rest = tuple(model for model in triple if model != ancestor)
            listed.append(Hypothesis("task_arithmetic", rest, ancestor, weighted=True))
        else:
            listed.append(Hypothesis("linear", triple, weighted=True))
    return tuple(listed)


def beyond(hypothesis: Hypothesis, weights: Sequence[float]) -> Hypothesis:
    """The same models as task arithmetic, where linear would need a share below 0 or above 1: ancestor + Σ λᵢ τᵢ."""
    listed = (*weights, 1.0 - sum(weights))
    if hypothesis.method != "linear" or all(0.0 <= share <= 1.0 for share in listed):
        return hypothesis
    if hypothesis.weighted:
        return replace(
            hypothesis, method="task_arithmetic", parents=hypothesis.parents[1:], ancestor=hypothesis.parents[0]
        )
    base, pivot = hypothesis.pair
    away = weights[0] > 1.0
    return Hypothesis("task_arithmetic", (pivot,) if away else (base,), base if away else pivot)
