"""The likelihood ratio attack, offline form (Carlini et al. 2022): how unusual is the target's confidence in a record?

Shadow models are trained on random halves of the patients. Those without a record give the confidence of a model that
has not seen it; a target far above that has seen it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.core.errors import UserError

LEAST = 2  # shadow models without a record: fewer give no spread
PER_RECORD_SPREAD = 32  # from here on each record has its spread, as the paper advises for many models


def halves(subjects: Sequence[str], shadows: int, *, seed: int = 0) -> NDArray[np.bool_]:
    """(shadows, n): which records each shadow model is trained on.

    Every patient is in half of the models (of an odd number one fewer or more), with all records. Patients are paired,
    and each model is trained on just one patient of a pair, so that all models have as many patients. The draw depends
    on the patients and the seed, not on the order of the records. UserError for fewer than 4 models, of which 2 are
    without each record.
    """
    if shadows < 2 * LEAST:
        raise UserError(
            f"privacy.shadows={shadows}: LiRA needs at least {2 * LEAST} shadow models, or 0 to leave it out."
        )
    random, trained_on = np.random.default_rng(seed), {}
    people = random.permutation(sorted(set(subjects))).tolist()
    for first in range(0, len(people), 2):
        inside = random.permutation(shadows) < shadows // 2
        trained_on |= dict(zip(people[first : first + 2], (inside, ~inside), strict=False))
    return np.stack([trained_on[subject] for subject in subjects], axis=1)


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
    if count.min() >= PER_RECORD_SPREAD:
        spread = np.nanstd(without, axis=0, ddof=1)
    else:
        squares = np.nansum((without - mean) ** 2, axis=0)
        spread = np.sqrt(squares.sum() / (count - 1).sum())
    return (confidence - mean) / np.maximum(spread, 1e-12)
