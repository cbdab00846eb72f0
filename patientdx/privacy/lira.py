"""The likelihood ratio attack, offline form (Carlini et al. 2022): how odd is the target's confidence in a record?

Shadow models are trained on random halves of the patients. What those without a record say of it is what a model says
that has not seen it; a target far above that has.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.core.errors import UserError

LEAST = 2  # shadow models without a record: fewer have no spread
OWN_SPREAD = 32  # from here on each record has a spread of its own, as the paper advises for many models


def halves(subjects: Sequence[str], shadows: int, *, seed: int = 0) -> NDArray[np.bool_]:
    """(shadows, n): which records each shadow model is trained on.

    Every patient is in half of the models (of an odd number one fewer or more), and all their records go together.
    Patients are paired, and a pair shares every model out between them, so that all models see as many patients. The
    draw depends on the patients and the seed, not on the order of the records. UserError for fewer than 4 models, of
    which 2 are without each record.
    """
    if shadows < 2 * LEAST:
        raise UserError(
            f"privacy.shadows={shadows}: LiRA needs at least {2 * LEAST} shadow models, or 0 to leave it out."
        )
    random, dealt = np.random.default_rng(seed), {}
    people = random.permutation(sorted(set(subjects))).tolist()
    for first in range(0, len(people), 2):
        inside = random.permutation(shadows) < shadows // 2
        dealt |= dict(zip(people[first : first + 2], (inside, ~inside), strict=False))
    return np.stack([dealt[who] for who in subjects], axis=1)


def lira(confidence: ArrayLike, shadows: ArrayLike, inside: ArrayLike) -> NDArray[np.float64]:
    """(n,) how many standard deviations the target's confidence lies above that of shadows without the record.

    confidence (n,) of the target, shadows (s, n), inside (s, n) as `halves` has it. Confidence is the mean
    log-likelihood of the record, or the log odds of its right answer. The paper's score is the normal distribution
    function of this number, which ranks alike. With fewer than 32 models without it, all records share one spread.
    """
    confidence, shadows = np.asarray(confidence, dtype=np.float64), np.asarray(shadows, dtype=np.float64)
    without = np.where(np.asarray(inside, dtype=bool), np.nan, shadows)
    count = (~np.isnan(without)).sum(axis=0)
    if count.min() < LEAST:
        raise UserError(
            f"a record has {count.min()} shadow models that were trained without it; LiRA needs {LEAST} or more. "
            "Set privacy.shadows higher."
        )
    mean = np.nanmean(without, axis=0)
    if count.min() >= OWN_SPREAD:
        spread = np.nanstd(without, axis=0, ddof=1)
    else:
        squares = np.nansum((without - mean) ** 2, axis=0)
        spread = np.sqrt(squares.sum() / (count - 1).sum())
    return (confidence - mean) / np.maximum(spread, 1e-12)
