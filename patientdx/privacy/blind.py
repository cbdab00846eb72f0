"""Blind baselines: can members be told from non-members without the model? Then the split is shifted.

They never see the model. An area above chance says that the sides differ by themselves (in length, wording, time), and
that the areas of all attacks are inflated by it (Das et al. 2024; Meeus et al. 2024). An area below chance says
nothing: in halves of one set, what is frequent in the part learned from is rarer in the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler
from threadpoolctl import threadpool_limits

from patientdx.core.errors import UserError

FOLDS = 5


def blind_scores(
    texts: Sequence[str], tokens: ArrayLike, member: ArrayLike, subject: Sequence[str], *, seed: int = 0
) -> Mapping[str, NDArray[np.float64]]:
    """(n,) scores of the blind classifiers, each record scored by one that did not see its patient.

    bag_of_words: logistic regression on which words and numbers a text holds. length: on its number of tokens
    and its square. Both are fitted on four fifths of the patients and score the last fifth, in turn. Scores are ranks
    within a fold, from 0 to 1: the fits of other folds have other offsets, which pooled scores would mistake for
    membership. tokens, member (n,). UserError where a side has too few patients for the folds.
    """
    member, subject = np.asarray(member).astype(int), np.asarray(subject)
    check_patients(member, subject)
    length = np.asarray(tokens, dtype=np.float64)[:, None]
    inputs = {
        "bag_of_words": (np.asarray(texts, dtype=object), _words()),
        "length": (np.hstack([length, length**2]), make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))),
    }
    folds = list(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(texts, member, subject))
    found = {}
    with threadpool_limits(limits=1):
        for name, (values, model) in inputs.items():
            found[name] = np.empty(len(member))
            for seen, unseen in folds:
                odds = model.fit(values[seen], member[seen]).decision_function(values[unseen])
                found[name][unseen] = (rankdata(odds) - 0.5) / len(unseen)
    return found


def check_patients(member: ArrayLike, subject: Sequence[str]) -> None:
    """UserError where a side, member (n,) of 0 and 1, has fewer patients than the cross-validation has parts."""
    member, subject = np.asarray(member).astype(int), np.asarray(subject)
    fewest = min(len(set(subject[member == side])) for side in (0, 1))
    if fewest < FOLDS:
        raise UserError(
            f"the blind baseline is cross-validated by patient in {FOLDS} parts, and one side has {fewest} patients. "
            "Use more records (task.synthetic.stays, task.limit, finetune.examples)."
        )


def _words():
    words = CountVectorizer(token_pattern=r"[^\W\d_]+|\d+(?:\.\d+)?", binary=True)
    return make_pipeline(words, MaxAbsScaler(), LogisticRegression(max_iter=1000))
