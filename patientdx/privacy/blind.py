"""Blind baselines: can members be separated from non-members without the model? Then the split is shifted.

They never use the model. An area above chance means that the sides differ in themselves (in length, wording, time),
and that the areas of all attacks are inflated by it (Das et al. 2024; Meeus et al. 2024). An area below chance means
nothing: in halves of one set, what is frequent in the part learned from is rarer in the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from patientdx.core.errors import UserError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

FOLDS = 5


def blind_scores(
    texts: Sequence[str], tokens: ArrayLike, member: ArrayLike, subject: Sequence[str], *, seed: int = 0
) -> Mapping[str, NDArray[np.float64]]:
    """(n,) scores of the blind classifiers, each record scored by one that did not see its patient.

    bag_of_words: logistic regression on the words and numbers that a text contains. length: on its number of tokens
    and its square. Both are fitted on four fifths of the patients and score the last fifth, in turn. Scores are ranks
    within a fold, from 0 to 1: the fits of other folds have other offsets, which pooled scores would confuse with
    membership. tokens, member (n,). UserError where a side has too few patients for the folds.
    """
    from sklearn.linear_model import LogisticRegression  # not at the top: a run without privacy= starts without it
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    member = np.asarray(member).astype(int)
    check_patients(member, subject)
    length = np.asarray(tokens, dtype=np.float64)[:, None]
    inputs = {
        "bag_of_words": (np.asarray(texts, dtype=object), _bag_of_words()),
        "length": (np.hstack([length, length**2]), make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))),
    }
    folds = list(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(texts, member, np.asarray(subject)))
    scores = {}
    with threadpool_limits(limits=1):
        for name, (values, model) in inputs.items():
            scores[name] = np.empty(len(member))
            for train, test in folds:
                odds = model.fit(values[train], member[train]).decision_function(values[test])
                scores[name][test] = (rankdata(odds) - 0.5) / len(test)
    return scores


def check_patients(member: ArrayLike, subject: Sequence[str]) -> None:
    """UserError where a side, member (n,) of 0 and 1, has fewer patients than the cross-validation has parts."""
    member, patients = np.asarray(member).astype(int), np.asarray(subject)
    fewest = min(len(set(patients[member == side])) for side in (0, 1))
    if fewest < FOLDS:
        raise UserError(
            f"the blind baseline is cross-validated by patient in {FOLDS} parts, and one side has {fewest} patients. "
            "Use more records (task.synthetic.stays, task.limit, finetune.examples)."
        )


def _bag_of_words() -> Pipeline:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler

    words = CountVectorizer(token_pattern=r"[^\W\d_]+|\d+(?:\.\d+)?", binary=True)
    return make_pipeline(words, MaxAbsScaler(), LogisticRegression(max_iter=1000))
