"""Tabular models on features (n, k) of records, the comparators of a language model.

They are fitted in one thread, whatever the machine: sums of floats then have one order, and the same rows give the
same bits. Missing values are NaN.

The tuned ones choose their hyperparameters by AUROC, as λ is chosen, in an inner cross-validation on the rows of the
fit, with all rows of a patient in one fold, and are then fitted on all those rows.

scikit-learn takes seconds to import. A configuration is checked by the signatures here, so each function imports it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from patientdx.core.errors import UserError

# The splits whose rows a model is fitted on; it is scored on the others alone.
FitOn = Sequence[Literal["train", "pilot"]]
_CHOSEN_BY = "roc_auc"


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
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline

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
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        _measured(),
        SimpleImputer(strategy="median", add_indicator=True),
        StandardScaler(),
        LogisticRegression(C=C, max_iter=max_iter),
    )


def tabular_gbm_tuned(
    *,
    seed: int = 0,
    fit_on: FitOn = ("train",),
    folds: int = 5,
    candidates: int = 8,
    learning_rate: Sequence[float] = (0.02, 0.05, 0.1),
    max_iter: Sequence[int] = (50, 100, 200),
    max_leaf_nodes: Sequence[int] = (4, 8, 15),
    min_samples_leaf: Sequence[int] = (5, 20, 50),
    l2_regularization: Sequence[float] = (0.1, 1.0, 10.0),
) -> Any:
    """`tabular_gbm` with the best of `candidates` combinations, drawn with `seed` from the values listed; not yet
    fitted. `fit_on` is read by the pipeline, which gives `fit` the rows of these splits.
    """
    from sklearn.model_selection import RandomizedSearchCV

    grid = {"learning_rate": learning_rate, "max_iter": max_iter, "max_leaf_nodes": max_leaf_nodes,
            "min_samples_leaf": min_samples_leaf, "l2_regularization": l2_regularization}  # fmt: skip
    lists = {f"histgradientboostingclassifier__{name}": list(values) for name, values in grid.items()}
    draws = min(candidates, int(np.prod([len(values) for values in lists.values()])))
    return RandomizedSearchCV(
        tabular_gbm(seed=seed), lists, n_iter=draws, scoring=_CHOSEN_BY, cv=_folds(folds, seed), random_state=seed,
        error_score="raise",  # pyright: ignore[reportArgumentType]
    )  # fmt: skip


def tabular_logistic_tuned(
    *,
    seed: int = 0,
    fit_on: FitOn = ("train",),
    folds: int = 5,
    C: Sequence[float] = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0),
    max_iter: int = 10000,
) -> Any:
    """`tabular_logistic` with the best of the values of `C`, not yet fitted. `seed` draws the folds; `fit_on` as in
    `tabular_gbm_tuned`.
    """
    from sklearn.model_selection import GridSearchCV

    grid = {"logisticregression__C": list(C)}
    return GridSearchCV(
        tabular_logistic(max_iter=max_iter), grid, scoring=_CHOSEN_BY, cv=_folds(folds, seed),
        error_score="raise",  # pyright: ignore[reportArgumentType]
    )  # fmt: skip


def _folds(folds: int, seed: int) -> Any:
    from sklearn.model_selection import StratifiedGroupKFold

    return StratifiedGroupKFold(folds, shuffle=True, random_state=seed)


def _measured() -> Any:
    """Leaves out the columns without any value in the rows of the fit: neither model accepts them."""
    from sklearn.compose import make_column_transformer

    return make_column_transformer(("passthrough", lambda values: ~np.isnan(values).all(axis=0)))


def fit(model: Any, values: NDArray[np.float64], labels: Sequence[int], *, patients: Sequence[str], name: str) -> Any:
    """The model, fitted on `values` (n, k) and `labels` (n,) of 0 and 1 of the stays of `patients` (n,).

    UserError, by `name`, without convergence, and where a tuned model has too few patients for two folds.
    """
    from sklearn.exceptions import ConvergenceWarning

    tuned = _is_search(model)
    if tuned:
        _fit_folds(model, labels, patients, name)
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return model.fit(values, np.asarray(labels), **({"groups": np.asarray(patients)} if tuned else {}))
        except ConvergenceWarning:
            raise UserError(
                f"{name} did not converge on {len(labels)} rows of {values.shape[1]} features. Set max_iter higher or "
                f"C lower in conf/model/{name}.yaml, or leave it out: baselines=[]."
            ) from None


def _is_search(model: Any) -> bool:
    """Whether a model chooses its hyperparameters by cross-validation."""
    return hasattr(model, "cv")


def _fit_folds(search: Any, labels: Sequence[int], patients: Sequence[str], name: str) -> None:
    """No more folds than there are patients with either outcome, so that each fold has both."""
    with_outcome = Counter(outcome for outcome, _ in set(zip(labels, patients, strict=True)))
    fewest = min(with_outcome.get(0, 0), with_outcome.get(1, 0))
    if fewest < 2:
        raise UserError(
            f"{name}: hyperparameters are chosen by cross-validation, which needs at least 2 patients with each "
            f"outcome among the {len(labels)} rows of the fit; of one there are {fewest}. Use more stays or leave it "
            "out of baselines."
        )
    search.cv.n_splits = min(search.cv.n_splits, fewest)


def chosen(model: Any) -> Mapping[str, float]:
    """What a fitted search chose: the hyperparameters by name, `auroc` in the inner cross-validation, and `folds`.

    Empty for a model that is not tuned. In the order of `choices`.
    """
    if not _is_search(model):
        return {}
    best = {name.rpartition("__")[2]: float(value) for name, value in sorted(model.best_params_.items())}
    return best | {"auroc": float(model.best_score_), "folds": float(model.n_splits_)}


def choices(arguments: Mapping[str, Any]) -> list[str]:
    """The names of what `chosen` returns for a model with these arguments."""
    listed = (name for name, value in sorted(arguments.items()) if isinstance(value, list) and name != "fit_on")
    return [*listed, "auroc", "folds"]


def log_mass(model: Any, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2) log of the probability that the outcome happens and that it does not, for `values` (n, k).

    Computed from the model's log odds, so that a probability next to 1 keeps its digits and its rank.
    """
    with threadpool_limits(limits=1):
        odds = np.asarray(model.decision_function(values), dtype=np.float64)
    return -np.logaddexp(0.0, np.stack([-odds, odds], axis=1))
