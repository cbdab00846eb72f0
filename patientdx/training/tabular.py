"""Tabular models on features (n, k) of records, the comparators of a language model.

They are fitted in one thread, whatever the machine: sums of floats then have one order, and the same rows give the
same bits. Missing values are NaN.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from patientdx.core.errors import UserError


def tabular_gbm(
    *,
    seed: int = 0,
    learning_rate: float = 0.05,
    max_iter: int = 200,
    max_leaf_nodes: int = 15,
    min_samples_leaf: int = 20,
    l2_regularization: float = 1.0,
) -> Any:
    """Gradient-boosted trees on histograms, not yet fitted; a missing value takes the branch that lowers the loss.

    scikit-learn's HistGradientBoostingClassifier (after LightGBM; Ke et al., NeurIPS 2017). No early stopping: it
    would hold back rows by number, and a patient may have several. `seed` draws the rows that histograms are made from,
    where there are more than 200 000.
    """
    return make_pipeline(
        _measured(),
        HistGradientBoostingClassifier(
            learning_rate=learning_rate,
            max_iter=max_iter,
            max_leaf_nodes=max_leaf_nodes,
            min_samples_leaf=min_samples_leaf,
            l2_regularization=l2_regularization,
            early_stopping=False,  # pyright: ignore[reportArgumentType]
            random_state=seed,
        ),
    )


def tabular_logistic(*, C: float = 0.1, max_iter: int = 10000) -> Any:
    """Logistic regression with an L2 penalty of weight 1/C, not yet fitted.

    Missing values become the train split's median, and a column of 0 and 1 marks where that was done; all columns are
    then scaled to mean 0 and variance 1, by the train split too.
    """
    return make_pipeline(
        _measured(),
        SimpleImputer(strategy="median", add_indicator=True),
        StandardScaler(),
        LogisticRegression(C=C, max_iter=max_iter),
    )


def _measured() -> Any:
    """Leaves out the columns without any value in the rows of the fit: neither model accepts them."""
    return make_column_transformer(("passthrough", lambda values: ~np.isnan(values).all(axis=0)))


def fit(model: Any, values: NDArray[np.float64], labels: Sequence[int], *, name: str) -> Any:
    """The model, fitted on `values` (n, k) and `labels` (n,) of 0 and 1. UserError, by `name`, without convergence."""
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return model.fit(values, np.asarray(labels))
        except ConvergenceWarning:
            raise UserError(
                f"{name} did not converge on {len(labels)} rows of {values.shape[1]} features. Set max_iter higher or "
                f"C lower in conf/model/{name}.yaml, or leave it out: baselines=[]."
            ) from None


def log_mass(model: Any, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2) log of the probability that the outcome happens and that it does not, for `values` (n, k).

    Computed from the model's log odds, so that a probability next to 1 keeps its digits and its rank.
    """
    with threadpool_limits(limits=1):
        odds = np.asarray(model.decision_function(values), dtype=np.float64)
    return -np.logaddexp(0.0, np.stack([-odds, odds], axis=1))
