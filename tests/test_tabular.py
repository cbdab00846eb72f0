"""Tabular models on rows made here: what they learn, what missing values do, and that bits repeat."""

import numpy as np
import pytest

from patientdx.core.errors import UserError
from patientdx.metrics.ranking import auroc
from patientdx.training.severity import severity_score
from patientdx.training.tabular import (
    choices,
    chosen,
    fit,
    log_mass,
    tabular_gbm,
    tabular_gbm_tuned,
    tabular_logistic,
    tabular_logistic_tuned,
)

MODELS = {"tabular_gbm": tabular_gbm, "tabular_logistic": tabular_logistic}
FEW = {"folds": 3, "candidates": 2, "max_iter": [20, 40], "max_leaf_nodes": [4]}


def rows(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, 4) values, of which the first two say something, a fifth missing; (n,) labels."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(n, 4))
    labels = (values[:, 0] - 0.5 * values[:, 1] + random.normal(size=n) > 1).astype(int)
    values[random.random((n, 4)) < 0.2] = np.nan
    return values, labels


def fit_of(model, values, labels, *, name, patients=None):
    """Fitted with every row of another patient, unless `patients` says whose they are."""
    return fit(model, values, labels, patients=patients or list(map(str, range(len(labels)))), name=name)


@pytest.fixture(params=MODELS)
def name(request) -> str:
    return request.param


def test_a_model_learns_what_is_there(name):
    model = fit_of(MODELS[name](), *rows(), name=name)
    values, labels = rows(seed=1)
    assert auroc(log_mass(model, values)[:, 0], labels) > 0.7
    nothing = fit_of(MODELS[name](), rows()[0][:, 2:], rows()[1], name=name)
    assert auroc(log_mass(nothing, values[:, 2:])[:, 0], labels) == pytest.approx(0.5, abs=0.08)


def test_masses_are_the_models_own_probabilities(name):
    model = fit_of(MODELS[name](), *rows(), name=name)
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
    first, again = (log_mass(fit_of(MODELS[name](), *rows(), name=name), values) for _ in range(2))
    assert first.tobytes() == again.tobytes()


def test_that_a_value_is_missing_can_say_something(name):
    values, labels = rows()
    values = np.where(labels[:, None] == 1, np.nan, 1.0)[:, :1]
    assert auroc(log_mass(fit_of(MODELS[name](), values, labels, name=name), values)[:, 0], labels) == 1


def test_columns_that_say_nothing_do_no_harm(name):
    values, labels = rows()
    odd = np.column_stack([values, np.full(len(values), np.nan), np.full(len(values), 3.0)])
    test, truth = rows(seed=1)
    empty = np.column_stack([test, np.full(len(test), np.nan), np.full(len(test), 3.0)])
    known = np.column_stack([test, np.full(len(test), 7.0), np.full(len(test), np.nan)])  # otherwise than in train
    model = fit_of(MODELS[name](), odd, labels, name=name)
    for args in (empty, known):
        assert auroc(log_mass(model, args)[:, 0], truth) > 0.7


def test_units_do_not_matter(name):
    values, labels = rows()
    scale = np.array([1e6, 1e-6, 1, 1])
    test, _ = rows(seed=1)
    plain = log_mass(fit_of(MODELS[name](), values, labels, name=name), test)
    scaled = log_mass(fit_of(MODELS[name](), values * scale, labels, name=name), test * scale)
    np.testing.assert_allclose(scaled, plain, atol=1e-3)


def test_a_fit_that_does_not_converge_is_an_error():
    with pytest.raises(UserError) as refused:
        fit_of(tabular_logistic(max_iter=1), *rows(), name="tabular_logistic")
    assert str(refused.value) == (
        "tabular_logistic did not converge on 600 rows of 4 features. Set max_iter higher or C lower in "
        "conf/model/tabular_logistic.yaml, or leave it out: baselines=[]."
    )


def test_the_best_of_the_values_listed_is_chosen_and_fitted_on_all_rows():
    values, labels = rows()
    grid = [1e-6, 0.1]
    model = fit_of(tabular_logistic_tuned(C=grid), values, labels, name="tuned")
    assert chosen(model).keys() == {"C", "auroc", "folds"}
    assert (chosen(model)["C"], chosen(model)["folds"]) == (0.1, 5)  # 1e-6 leaves the order of a sum of columns
    plain = fit_of(tabular_logistic(C=0.1), values, labels, name="plain")
    assert np.array_equal(log_mass(model, values), log_mass(plain, values))
    assert choices({"C": grid, "fit_on": ["train"], "folds": 5}) == list(chosen(model))


def test_a_tuned_model_repeats_its_bits_and_another_seed_draws_other_values():
    values, labels = rows(200)
    first, again = (fit_of(tabular_gbm_tuned(**FEW), values, labels, name="tuned") for _ in range(2))
    assert log_mass(first, values).tobytes() == log_mass(again, values).tobytes()
    assert chosen(first) == chosen(again)
    drawn = [
        fit_of(tabular_gbm_tuned(seed=s, **FEW), values, labels, name="tuned").cv_results_["params"] for s in (0, 1)
    ]
    assert drawn[0] != drawn[1]


def test_no_patient_is_on_both_sides_of_a_fold():
    values, labels = rows(300)
    patients = [str(number // 3) for number in range(300)]
    model = fit_of(tabular_logistic_tuned(), values, labels, name="tuned", patients=patients)
    folds = list(model.cv.split(values, labels, groups=np.asarray(patients)))
    assert len(folds) == 5
    for inside, outside in folds:
        assert not {patients[i] for i in inside} & {patients[i] for i in outside}
        assert set(labels[outside]) == {0, 1}
    # A row's own copies under its patient's name are no help to guess it: grouped, copies do not raise the AUROC.
    random = np.random.default_rng(3)
    noise, coin = random.normal(size=(60, 4)), random.integers(0, 2, 60)
    copied = np.repeat(noise, 4, axis=0), np.repeat(coin, 4)
    grouped = fit_of(tabular_gbm_tuned(**FEW), *copied, name="tuned", patients=[str(i // 4) for i in range(240)])
    apart = fit_of(tabular_gbm_tuned(**FEW), *copied, name="tuned")
    assert chosen(grouped)["auroc"] < 0.75 < chosen(apart)["auroc"]


def test_few_patients_with_an_event_make_few_folds_and_one_is_refused():
    values, labels = rows(100)
    labels = np.where(np.arange(100) < 3, 1, 0)
    assert chosen(fit_of(tabular_logistic_tuned(), values, labels, name="tuned"))["folds"] == 3
    with pytest.raises(UserError) as refused:
        fit_of(tabular_logistic_tuned(), values, labels, name="tuned", patients=["0"] * 3 + ["1"] * 97)
    assert str(refused.value) == (
        "tuned: hyperparameters are chosen by cross-validation, which needs at least 2 patients with each outcome "
        "among the 100 rows of the fit; of one there are 1. Use more stays or leave it out of baselines."
    )


def test_points_keep_their_order_and_get_a_probability():
    points = np.arange(12, dtype=float)[:, None].repeat(40, axis=0)
    random = np.random.default_rng(0)
    labels = (random.random(480) < 1 / (1 + np.exp(3 - 0.4 * points[:, 0]))).astype(int)
    model = fit_of(severity_score(score="sofa"), points, labels, name="sofa")
    assert (model.intercept, model.slope) == (pytest.approx(-3, abs=0.6), pytest.approx(0.4, abs=0.1))
    mean = np.exp(log_mass(model, points))[:, 0].mean()
    assert mean == pytest.approx(labels.mean(), abs=1e-4)  # as of every fit by maximum likelihood with an intercept
    worse = fit_of(severity_score(score="sofa"), points, 1 - labels, name="sofa")
    assert worse.slope == 0.01  # in this sample more points meant less risk; the score's order stays
    assert auroc(log_mass(worse, points)[:, 0], labels) == pytest.approx(auroc(points[:, 0], labels))
    apart = fit_of(severity_score(score="sofa"), points, (points[:, 0] > 5).astype(int), name="sofa")
    assert np.isfinite(apart.intercept)
    assert apart.slope == 3
