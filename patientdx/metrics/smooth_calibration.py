"""Calibration without bins: how far a probability is from the smoothed rate of events at that probability.

The rate is smoothed by a local straight line with tricube weights over the nearest three quarters of the rows (loess;
Cleveland, JASA 1979), as in Austin and Steyerberg, Stat. Med. 2019: ICI is the mean distance over the rows, E50 its
median and E90 its 90th percentile, all on the scale of probability; 0 is best. Noise counts as distance, as in an ECE.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.metrics.calibration import check_probabilities, lacks_class
from patientdx.metrics.ranking import running_sums, scalar_or_array
from patientdx.metrics.specification import Metric, Values

SPAN = 0.75
_POINTS = 40  # probabilities at which the line is fitted; between them it is straight
_GROUPS = 200  # of neighbouring rows that count as one, so that the time does not grow with the rows


def smooth_metrics() -> dict[str, Metric]:
    """`ici`, `e50` and `e90`. They share the curve of the rows and weights that they are called with one after another.

    Arguments and errors as of the metrics in `patientdx.metrics.calibration`.
    """
    last: list[tuple[object, object, NDArray[np.float64], NDArray[np.float64]]] = []

    def measured(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None, *, share: float | None) -> Values:
        score, label, weight, many = check_probabilities(score, label, weight)
        if not last or last[0][0] is not weight or last[0][1] is not score:
            last[:] = [(weight, score, *_distances(score, label, weight))]
        distance, mass = last[0][2:]
        with np.errstate(invalid="ignore"):
            mean = np.einsum("rg,rg->r", mass, distance) / mass.sum(axis=1)
        value = mean if share is None else _quantile(distance, mass, share)
        value[lacks_class(label, weight)] = np.nan
        return scalar_or_array(value, many)

    return {name: partial(measured, share=share) for name, share in (("ici", None), ("e50", 0.5), ("e90", 0.9))}


def smooth_curve(
    score: NDArray[np.float64], events: NDArray[np.float64], mass: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(m,) probabilities, rising, and (r, m) the smoothed rate of events there.

    `score` (g,) of groups of rows, `mass` (r, g) of the rows in each, `events` (r, g) of those with the event.
    """
    grid = np.unique(np.quantile(score, np.linspace(0, 1, _POINTS)))
    apart = score[:, None] - grid
    nearest = max(1, int(np.ceil(SPAN * score.size))) - 1
    # Groups as far as the last of the nearest count a little; where that many share one score, they alone count.
    reach = np.maximum(np.partition(np.abs(apart), nearest, axis=0)[nearest] * (1 + 1e-9), 1e-12)
    kernel = (1 - np.minimum(np.abs(apart) / reach, 1) ** 3) ** 3
    apart = apart / reach
    s0, s1, s2 = (np.einsum("rg,gm->rm", mass, part) for part in (kernel, kernel * apart, kernel * apart**2))
    t0, t1 = (np.einsum("rg,gm->rm", events, part) for part in (kernel, kernel * apart))
    spread = s0 * s2 - s1**2
    with np.errstate(invalid="ignore", divide="ignore"):
        line = np.where(spread > 1e-10 * s0**2, (s2 * t0 - s1 * t1) / spread, t0 / s0)
        overall = events.sum(axis=1, keepdims=True) / mass.sum(axis=1, keepdims=True)
    return grid, np.clip(np.where(s0 > 0, line, overall), 0, 1)


def _distances(score, label, weight) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(r, g) of each group of neighbouring rows: how far its rate is from its probability, and its weight."""
    order = np.argsort(score, kind="stable")
    starts = np.arange(min(_GROUPS, score.size)) * score.size // min(_GROUPS, score.size)
    mass = np.add.reduceat(weight[:, order], starts, axis=1)
    events = np.add.reduceat((weight * label)[:, order], starts, axis=1)
    means = np.add.reduceat(score[order], starts) / np.diff([*starts, score.size])
    grid, rate = smooth_curve(means, events, mass)
    return np.abs(_at(means, grid, rate) - means), mass


def _at(score: NDArray[np.float64], grid: NDArray[np.float64], rate: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rates (r, m) of the grid at each score, (r, g)."""
    if grid.size == 1:
        return np.repeat(rate, score.size, axis=1)
    right = np.clip(np.searchsorted(grid, score), 1, grid.size - 1)
    share = (score - grid[right - 1]) / (grid[right] - grid[right - 1])
    return rate[:, right - 1] * (1 - share) + rate[:, right] * share


def _quantile(distance: NDArray[np.float64], mass: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """(r,): the smallest distance (r, g) at which the weight below it reaches the share."""
    order = np.argsort(distance, axis=1, kind="stable")
    below = running_sums(np.take_along_axis(mass, order, axis=1))[:, 1:]
    first = (below >= share * below[:, -1:] - 1e-12).argmax(axis=1)
    return np.take_along_axis(distance, np.take_along_axis(order, first[:, None], axis=1), axis=1)[:, 0]
