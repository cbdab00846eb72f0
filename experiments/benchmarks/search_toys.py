"""Pilot and test scores of models along λ, drawn so that the best λ is known; search strategies are tuned on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

SHAPES = ("inside", "end", "flat", "step")
STEPS = 101  # models along λ: 0, 0.01, …, 1


@dataclass(frozen=True)
class Toy:
    """Scores (101, n) of the models at λ = 0, 0.01, …, 1 on pilot and test rows, with labels and patients of the rows.

    best: the planted λ; None where all are equally good. area: (101,) the true AUROC of the models.
    """

    pilot: NDArray[np.float64]
    label: NDArray[np.bool_]
    subject: NDArray[np.int64]
    test: NDArray[np.float64]
    test_label: NDArray[np.bool_]
    test_subject: NDArray[np.int64]
    best: float | None
    area: NDArray[np.float64]


def toy(shape: str, patients: int, seed: int, *, prevalence: float = 0.15) -> Toy:
    """One toy; `patients` in the pilot and as many again in the test split, one to three stays each.

    An event lifts a score by the signal at λ, 0.4 to 1 standard deviation of the noise (AUROC 0.61 to 0.76): highest
    somewhere inside, at λ=0 or λ=1, or 0.7 throughout. The noise of a row is a smooth function of λ, as that of
    merged models is: half its variance is common to all λ, the rest is a Gaussian process of length 0.3 and a
    hundredth of white noise. The last shape is two models that have nothing in common, with a step between them:
    signal 0 to the left and 1 to the right, best at λ=1 by a hair, and nothing of the noise common to all λ.
    """
    random = np.random.default_rng([SHAPES.index(shape), patients, seed])
    weight = np.linspace(0, 1, STEPS)
    best = {"inside": random.uniform(0.2, 0.8), "end": float(random.integers(2)), "flat": None, "step": 1.0}[shape]
    distance = np.zeros(STEPS) if best is None else np.abs(weight - best)
    signal = {
        "inside": 0.4 + 0.6 * np.exp(-0.5 * (distance / 0.25) ** 2),
        "end": 1.0 - 0.6 * distance,
        "flat": np.full(STEPS, 0.7),
        "step": 1 / (1 + np.exp(-20 * (weight - 0.45))) + 0.02 * weight,
    }[shape]
    smooth = np.exp(-0.5 * ((weight[:, None] - weight) / 0.3) ** 2)
    common = 0.0 if shape == "step" else 0.5
    factor = np.linalg.cholesky(common + (0.99 - common) * smooth + 0.01 * np.eye(STEPS))
    parts = []
    for _ in range(2):
        subject = np.repeat(np.arange(patients), random.choice([1, 2, 3], patients, p=[0.8, 0.15, 0.05]))
        label = random.random(subject.size) < prevalence
        label[:2] = True, False
        parts += [signal[:, None] * label + factor @ random.standard_normal((STEPS, subject.size)), label, subject]
    return Toy(*parts, best, norm.cdf(signal / np.sqrt(2)))
