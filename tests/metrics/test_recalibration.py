import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from patientdx.metrics.calibration import (
    Recalibration,
    calibration_intercept,
    calibration_slope,
    fit_logistic,
    fit_temperature,
    log_loss,
)
from patientdx.metrics.ranking import auroc


def stays(n: int = 2000, seed: int = 0):
    """Probabilities that are too bold and too high."""
    random = np.random.default_rng(seed)
    truth = random.normal(-1.5, 1, n)
    return expit(2 * truth + 1), (random.random(n) < expit(truth)).astype(int)


def test_logistic_is_scikit_learns_regression_on_the_logit():
    score, label = stays()
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(logit(score)[:, None], label)
    fit = fit_logistic(score, label)
    assert (fit.intercept, fit.slope) == pytest.approx((model.intercept_[0], model.coef_[0, 0]), abs=1e-7)
    assert fit(score) == pytest.approx(model.predict_proba(logit(score)[:, None])[:, 1], abs=1e-7)


def test_logistic_undoes_the_distortion_on_other_stays():
    fit = fit_logistic(*stays())
    score, label = stays(n=20_000, seed=1)
    mended = fit(score)
    assert calibration_slope(mended, label) == pytest.approx(1, abs=0.1)
    assert calibration_intercept(mended, label) == pytest.approx(0, abs=0.15)
    assert log_loss(mended, label) < log_loss(score, label)
    assert auroc(mended, label) == auroc(score, label)


def test_temperature_is_the_likeliest_one():
    score, label = stays()
    fit = fit_temperature(score, label)
    found = minimize_scalar(lambda s: log_loss(expit(s * logit(score)), label), bounds=(0.01, 5), method="bounded",
                            options={"xatol": 1e-9})  # fmt: skip
    assert fit.intercept == 0
    assert fit.slope == pytest.approx(found.x, abs=1e-5)
    # Scores that are too timid are sharpened, beyond the first bracket.
    assert fit_temperature(expit(logit(score) / 8), label).slope == pytest.approx(8 * fit.slope)


def test_probabilities_of_zero_and_one_stay_finite():
    fitted = Recalibration(0.5, 0.1)(np.array([0.0, 0.5, 1.0]))
    assert np.isfinite(logit(fitted)).all()
    assert fitted[1] == pytest.approx(expit(0.5))


@pytest.mark.parametrize(
    ("fit", "score", "message"),
    [
        (fit_logistic, [0.1, 0.2, 0.8, 0.9], "no slope can be fitted: the score is constant, or a threshold separates"),
        (
            fit_temperature,
            [0.1, 0.2, 0.8, 0.9],
            "no fit_temperature can be fitted: every score is on its label's side of 0.5",
        ),
        (fit_temperature, [0.5] * 4, "no fit_temperature can be fitted: every score is on its label's side of 0.5"),
        (
            fit_temperature,
            [0.9, 0.8, 0.7, 0.3],
            "no fit_temperature can be fitted: a probability of 0.5 for all rows is likelier",
        ),
    ],
)
def test_what_cannot_be_fitted_says_why(fit, score, message):
    with pytest.raises(ValueError, match=message):
        fit(score, [0, 0, 1, 1])
