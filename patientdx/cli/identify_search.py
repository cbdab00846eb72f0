"""How well each hypothesis explains a merged model: sampled tensors, their fits, the ranking and the bits that agree.

A tensor is read by runs of elements and leaves a triangle of a few numbers behind (`patientdx.merge.identification`).
Only SLERP needs complete tensors, for the angle between its parents; it gets them only where a sum of the two explains
the sampled elements at all.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from patientdx.checkpoints.identity import Source
from patientdx.cli.identify_hypotheses import Arc, Hypothesis, Pair, arc_of, beyond, hypotheses
from patientdx.core.progress import progress
from patientdx.core.threads import workers
from patientdx.merge.identification import (
    ALLOWED,
    Fit,
    Rounding,
    Triangle,
    WeightSummary,
    rounding,
    span_squares,
    summarise,
    triangle,
    weight_error,
)
from patientdx.merge.schedule import layer_of
from patientdx.reporting.angles import kind_of

RUN = 1 << 12  # elements read at a time: a few pages of a file
FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
_BLOCK = 1 << 16  # rows of a matrix that is reduced to its triangle


@dataclass(frozen=True)
class Sampling:
    """How much is read: at most so many tensors of each kind, so many elements of each tensor; `seed` chooses them."""

    tensors: int = 8
    elements: int = 1 << 18
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """One sampled tensor of n elements.

    factor: see `identification`. equal: for each candidate whether every element, rounded to the merged tensor's dtype,
    is the merged one. twins: for each candidate the first one with the same elements. arcs: of each pair; those of
    `exact` are between complete tensors, the others between the sampled elements.
    """

    name: str
    elements: int
    factor: Triangle
    rounding: Rounding
    equal: tuple[bool, ...]
    twins: tuple[int, ...]
    arcs: Mapping[Pair, Arc]
    exact: frozenset[Pair]

    @property
    def is_shared(self) -> bool:
        """Whether all candidates have the same elements, which says nothing about the merge."""
        return not any(self.twins)

    def excess(self, squares: float, parameters: int = 0) -> float:
        """Residual as a multiple of the expected rounding, both as root mean squares."""
        freedom = max(1, self.elements - parameters) / self.elements
        return math.sqrt(squares / freedom / self.rounding.total) if self.rounding.total else math.inf * (squares > 0)

    def explains(self, hypothesis: Hypothesis, fit: Fit) -> bool:
        """Whether rounding accounts for the residual. A copy is not computed, so that nothing but one rounding does."""
        if hypothesis.method == "copy" and not self.is_shared:
            return self.equal[hypothesis.parents[0]]
        return self.excess(fit.squares, fit.parameters) <= ALLOWED

    @property
    def length(self) -> float:
        """Length of the merged elements as a vector."""
        return float(np.linalg.norm(self.factor[:, -1]))


@dataclass(frozen=True)
class Explanation:
    """A hypothesis over all sampled tensors, whose fits are in their order.

    explained: how many of them. criterion: sum of the Bayesian information criteria, for noise of the better of
    expected rounding and best fit. bits: for each tensor, how many elements of ours are the merged ones bit for bit;
    empty where that was not computed. values: the λ common to all tensors with which they were computed; empty where
    tensors have different ones.
    """

    hypothesis: Hypothesis
    fits: tuple[Fit, ...]
    explained: int
    criterion: float
    weights: tuple[WeightSummary, ...]
    residual: float
    excess: float
    bits: tuple[int, ...] = ()
    values: tuple[float, ...] = ()


def common_names(merged: Source, models: Sequence[Source]) -> tuple[list[str], dict[str, list[str]]]:
    """Tensors that can be compared, in the order of the merged model's files, and the others by the reason."""
    names: list[str] = []
    skipped: dict[str, list[str]] = {}
    for name, header in merged.tensors.items():
        headers = [model.tensors.get(name) for model in models]
        if name.endswith("rotary_emb.inv_freq"):
            continue  # follows from the configuration
        if any(other is None for other in headers):
            skipped.setdefault("not in all models", []).append(name)
        elif any(other is not None and other.shape != header.shape for other in headers):
            skipped.setdefault("of different shapes", []).append(name)
        elif not all(other is not None and other.dtype in FLOATS for other in (header, *headers)):
            skipped.setdefault("no floats of 16 bits or more", []).append(name)
        elif math.prod(header.shape):
            names.append(name)
    return names, skipped


def sample_names(names: Sequence[str], count: int) -> list[str]:
    """At most `count` tensors of each kind, at equal distances from the first to the last."""
    by_kind: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: (layer_of(name) is None, layer_of(name) or 0)):
        by_kind.setdefault(kind_of(name), []).append(name)
    sampled = set()
    for listed in by_kind.values():
        sampled |= {listed[round(at)] for at in np.linspace(0, len(listed) - 1, min(count, len(listed)))}
    return [name for name in names if name in sampled]


def runs(name: str, count: int, sampling: Sampling) -> list[slice]:
    """Runs of the flat elements of a tensor, in order; all of them where it has no more than the sampling allows."""
    if count <= sampling.elements:
        return [slice(0, count)]
    generator = np.random.default_rng([sampling.seed, zlib.crc32(name.encode())])
    chosen = generator.choice(count // RUN, max(1, sampling.elements // RUN), replace=False)
    return [slice(int(at) * RUN, (int(at) + 1) * RUN) for at in sorted(chosen)]


def read_sample(checkpoint: Source, name: str, sampling: Sampling) -> Tensor:
    """The sampled elements (n,) of one tensor, in its stored dtype."""
    flat = checkpoint.read(name).reshape(-1)
    return torch.cat([flat[part] for part in runs(name, flat.numel(), sampling)])


def measure(merged: Source, models: Sequence[Source], sampling: Sampling, name: str) -> Measured | None:
    """One tensor of the merged model beside those of the candidates; None where an element is not finite."""
    columns = [read_sample(model, name, sampling) for model in (*models, merged)]
    if not all(bool(column.isfinite().all()) for column in columns):
        return None
    *candidates, target = columns
    count = target.numel()
    factor = triangle(
        torch.stack([column[start : start + _BLOCK].double() for column in columns], dim=1)
        for start in range(0, count, _BLOCK)
    )
    expected = rounding(target)
    twins = tuple(
        next(first for first, other in enumerate(candidates) if torch.equal(other.double(), candidate.double()))
        for candidate in candidates
    )
    equal = tuple(torch.equal(candidate.to(expected.dtype).to(target.dtype), target) for candidate in candidates)
    arcs, exact = {}, set()
    for base, pivot in combinations(range(len(models)), 2):
        complete = span_squares(factor, (base, pivot)) <= ALLOWED**2 * expected.total
        sides = models[base].read(name), models[pivot].read(name)
        arcs[base, pivot] = arc_of(*sides) if complete else arc_of(candidates[base], candidates[pivot])
        exact |= {(base, pivot)} if complete else set()
    return Measured(name, count, factor, expected, equal, twins, arcs, frozenset(exact))


def measure_all(
    merged: Source, models: Sequence[Source], names: Sequence[str], sampling: Sampling
) -> list[Measured | None]:
    """Every sampled tensor, in order; a bar on a terminal says how far it is."""
    with workers() as parallel, progress(total=len(names), leave=False, desc="identify") as bar:
        rows = []
        for row in parallel(partial(measure, merged, models, sampling), names):
            rows.append(row)
            bar.update()
        return rows


def representatives(rows: Sequence[Measured], count: int) -> list[int]:
    """For each candidate the first one that is the same in every row; itself where there is none."""
    columns = [tuple(row.twins[model] for row in rows) for model in range(count)]
    return [columns.index(column) for column in columns]


def rank(rows: Sequence[Measured], count: int, ancestor: int | None) -> list[Explanation]:
    """Explanations of the rows, best first: by tensors explained, then by their criterion.

    Candidates that equal an earlier one in every row are represented by it.
    """
    firsts = representatives(rows, count)
    start = None if ancestor is None else firsts[ancestor]
    listed = [entry for entry in hypotheses(count, start) if set(firsts).issuperset(entry.models)]
    fits = {entry: tuple(entry.fit(row.factor, row.arcs) for row in rows) for entry in listed}
    noises = [
        max(row.rounding.stored, min(fits[entry][at].squares for entry in listed)) / row.elements
        for at, row in enumerate(rows)
    ]
    explanations = []
    for entry in listed:
        weights = _summaries(entry, fits[entry], rows, noises)
        renamed = beyond(entry, [weight.median for weight in weights])
        if renamed != entry:
            fits[renamed] = tuple(renamed.fit(row.factor, row.arcs) for row in rows)
            weights = _summaries(renamed, fits[renamed], rows, noises)
        explanations.append(_explanation(renamed, fits[renamed], weights, rows, noises))
    return sorted(explanations, key=lambda item: (-item.explained, item.criterion))


def _summaries(
    entry: Hypothesis, fits: Sequence[Fit], rows: Sequence[Measured], noises: Sequence[float]
) -> tuple[WeightSummary, ...]:
    triples = list(zip(fits, rows, noises, strict=True))
    return tuple(
        summarise(
            [fit.weights[number] for fit in fits],
            [weight_error(fit.weights[number], fit.errors[number], noise, row.elements) for fit, row, noise in triples],
        )
        for number in range(entry.weight_count)
    )


def _explanation(
    entry: Hypothesis,
    fits: tuple[Fit, ...],
    weights: tuple[WeightSummary, ...],
    rows: Sequence[Measured],
    noises: Sequence[float],
) -> Explanation:
    pairs = list(zip(rows, fits, noises, strict=True))
    criterion = sum(
        fit.squares / noise + fit.parameters * math.log(row.elements) if noise else 0.0 for row, fit, noise in pairs
    )
    squares, length = sum(fit.squares for fit in fits), math.sqrt(sum(row.length**2 for row in rows))
    return Explanation(
        entry,
        fits,
        sum(row.explains(entry, fit) for row, fit, _ in pairs),
        criterion,
        weights,
        math.sqrt(squares) / length if length else 0.0,
        max((row.excess(fit.squares, fit.parameters) for row, fit, _ in pairs), default=0.0),
    )
