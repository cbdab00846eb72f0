"""Tabular models on rows made here: what they learn, what missing values do, and that bits repeat."""

import numpy as np
import pytest

from patientdx.core.errors import UserError
from patientdx.metrics.ranking import auroc
from patientdx.training.tabular import fit, log_mass, tabular_gbm, tabular_logistic

MODELS = {"tabular_gbm": tabular_gbm, "tabular_logistic": tabular_logistic}


def rows(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, 4) values, of which the first two say something, a fifth missing; (n,) labels."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(n, 4))
    labels = (values[:, 0] - 0.5 * values[:, 1] + random.normal(size=n) > 1).astype(int)
    values[random.random((n, 4)) < 0.2] = np.nan
    return values, labels


@pytest.fixture(params=MODELS)
def name(request) -> str:
    return request.param


def test_a_model_learns_what_is_there(name):
    model = fit(MODELS[name](), *rows(), name=name)
    values, labels = rows(seed=1)
    assert auroc(log_mass(model, values)[:, 0], labels) > 0.7
    nothing = fit(MODELS[name](), rows()[0][:, 2:], rows()[1], name=name)
    assert auroc(log_mass(nothing, values[:, 2:])[:, 0], labels) == pytest.approx(0.5, abs=0.08)


def test_masses_are_the_models_own_probabilities(name):
    model = fit(MODELS[name](), *rows(), name=name)
    values, _ = rows(seed=1)
    mass = np.exp(log_mass(model, values))
    assert mass.shape == (600, 2)
    np.testing.assert_allclose(mass.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(mass[:, 0], model.predict_proba(values)[:, 1], rtol=1e-9)


def test_a_probability_next_to_one_keeps_its_rank():
    class Sure:
        def decision_function(self, values):
            return values[:, 0]

    odds = np.array([[-800.0], [-40.0], [40.0], [41.0], [800.0]])
    result = log_mass(Sure(), odds)
    assert np.array_equal(np.diff(result, axis=1)[:, 0], -odds[:, 0])
    assert np.isfinite(result).all()


def test_the_same_rows_give_the_same_bits(name):
    values, _ = rows(seed=1)
    first, again = (log_mass(fit(MODELS[name](), *rows(), name=name), values) for _ in range(2))
    assert first.tobytes() == again.tobytes()


def test_that_a_value_is_missing_can_say_something(name):
    values, labels = rows()
    values = np.where(labels[:, None] == 1, np.nan, 1.0)[:, :1]
    assert auroc(log_mass(fit(MODELS[name](), values, labels, name=name), values)[:, 0], labels) == 1


def test_columns_that_say_nothing_do_no_harm(name):
    values, labels = rows()
    odd = np.column_stack([values, np.full(len(values), np.nan), np.full(len(values), 3.0)])
    test, truth = rows(seed=1)
    empty = np.column_stack([test, np.full(len(test), np.nan), np.full(len(test), 3.0)])
    known = np.column_stack([test, np.full(len(test), 7.0), np.full(len(test), np.nan)])  # otherwise than in train
    model = fit(MODELS[name](), odd, labels, name=name)
    for args in (empty, known):
        assert auroc(log_mass(model, args)[:, 0], truth) > 0.7


def test_units_do_not_matter(name):
    values, labels = rows()
    scale = np.array([1e6, 1e-6, 1, 1])
    test, _ = rows(seed=1)
    plain = log_mass(fit(MODELS[name](), values, labels, name=name), test)
    scaled = log_mass(fit(MODELS[name](), values * scale, labels, name=name), test * scale)
    np.testing.assert_allclose(scaled, plain, atol=1e-3)


def test_a_fit_that_does_not_converge_is_an_error():
    with pytest.raises(UserError) as refused:
        fit(tabular_logistic(max_iter=1), *rows(), name="tabular_logistic")
    assert str(refused.value) == (
        "tabular_logistic did not converge on 600 rows of 4 features. Set max_iter higher or C lower in "
        "conf/model/tabular_logistic.yaml, or leave it out: baselines=[]."
    )
