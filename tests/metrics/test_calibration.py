import math

import numpy as np
import pytest
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve as sklearn_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, d2_brier_score
from sklearn.metrics import log_loss as sklearn_log_loss

from patientdx.metrics import calibration
from patientdx.metrics.bootstrap import intervals
from patientdx.metrics.calibration import (
    Recalibration,
    brier,
    calibration_curve,
    calibration_intercept,
    calibration_slope,
    ece,
    ece_if_calibrated,
    fit_logistic,
    fit_temperature,
    log_loss,
    observed_minus_expected,
    scaled_brier,
)
from patientdx.metrics.ranking import auroc

METRICS = (
    brier,
    scaled_brier,
    log_loss,
    ece,
    observed_minus_expected,
    calibration_intercept,
    calibration_slope,
)


def stays(n: int = 400, seed: int = 0, slope: float = 1.0, intercept: float = 0.0):
    """Probabilities, and labels whose true log odds are intercept + slope * logit(probability)."""
    random = np.random.default_rng(seed)
    score = expit(random.normal(-1.5, 1.2, n))
    return score, (random.random(n) < expit(intercept + slope * logit(score))).astype(int)


def test_brier_scaled_brier_and_log_loss_are_scikit_learns():
    score, label = stays()
    score[:4], label[:4] = [0, 1, 0, 1], [0, 1, 1, 0]
    assert brier(score, label) == pytest.approx(brier_score_loss(label, score), abs=1e-15)
    assert scaled_brier(score, label) == pytest.approx(d2_brier_score(label, score), abs=1e-12)
    assert log_loss(score, label) == pytest.approx(sklearn_log_loss(label, score), abs=1e-12)


def test_the_prevalence_for_all_has_a_scaled_brier_of_zero():
    label = np.arange(10) < 3
    assert scaled_brier(np.full(10, 0.3), label) == pytest.approx(0, abs=1e-12)
    assert scaled_brier(label.astype(float), label) == 1
    assert observed_minus_expected(np.full(10, 0.1), label) == pytest.approx(0.2)


def test_ece_of_a_case_by_hand():
    score, label = [0.1, 0.2, 0.3, 0.4, 0.6, 0.7], [0, 0, 1, 0, 1, 1]
    # Bins of two: |0 - 0.15|, |0.5 - 0.35|, |1 - 0.65|, a third of the stays each.
    assert ece(score, label, bins=3) == pytest.approx((0.15 + 0.15 + 0.35) / 3)
    assert ece(score, label, bins=1) == pytest.approx(0.5 - 2.3 / 6)


def test_tied_scores_share_a_bin_whatever_the_order_of_rows():
    score, label = np.repeat([0.2, 0.5, 0.9], [50, 30, 20]), np.arange(100) % 3 == 0
    means = [(label[:50].mean(), 0.2, 50), (label[50:80].mean(), 0.5, 30), (label[80:].mean(), 0.9, 20)]
    by_hand = sum(n * abs(observed - p) for observed, p, n in means) / 100
    assert ece(score, label) == pytest.approx(by_hand)
    shuffled = np.random.default_rng(0).permutation(100)
    assert ece(score[shuffled], label[shuffled]) == pytest.approx(by_hand)
    assert ece(np.full(100, 0.4), label) == pytest.approx(abs(label.mean() - 0.4))


def test_curve_and_ece_agree_with_scikit_learns_quantile_bins():
    score, label = stays()
    observed, predicted = sklearn_curve(label, score, n_bins=10, strategy="quantile")
    curve = calibration_curve(score, label)
    assert [item["n"] for item in curve] == [40] * 10
    assert [item["observed"] for item in curve] == pytest.approx(observed.tolist())
    assert [item["probability"] for item in curve] == pytest.approx(predicted.tolist())
    assert sum(item["events"] for item in curve) == label.sum()
    assert ece(score, label) == pytest.approx(np.abs(observed - predicted).mean())


def test_bins_are_equal_where_they_can_be():
    for bins in range(1, 21):
        n = 7 * bins  # 9 / 11 * 77, for one, is a little more than 63 in floats
        curve = calibration_curve(np.linspace(0, 1, n), np.arange(n) % 2, bins=bins)
        assert [item["n"] for item in curve] == [7] * bins


def test_the_curves_interval_is_wilsons():
    item = calibration_curve([0.3] * 20, [1] * 5 + [0] * 15)[0]
    z, p, n = 1.959963984540054, 0.25, 20
    centre, reach = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert item["low"] == pytest.approx((centre - reach) / (1 + z * z / n))
    assert item["high"] == pytest.approx((centre + reach) / (1 + z * z / n))


def test_intercept_is_the_root_of_its_score():
    score, label = stays(intercept=-0.7)
    root = brentq(lambda a: (label - expit(logit(score) + a)).sum(), -5, 5, xtol=1e-13)
    assert calibration_intercept(score, label) == pytest.approx(root, abs=1e-9)


def test_intercept_and_slope_are_scikit_learns_logistic_regression():
    score, label = stays(slope=0.5, intercept=-0.3)
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
    model.fit(logit(score)[:, None], label)
    fit = calibration.refit(score, label.astype(bool), np.ones((1, label.size)))[0]
    assert fit == pytest.approx([model.intercept_[0], model.coef_[0, 0]], abs=1e-7)
    assert calibration_slope(score, label) == fit[1]


def test_slope_and_intercept_find_what_the_labels_were_drawn_from():
    score, label = stays(n=40_000, slope=0.6, intercept=0.4)
    assert calibration_slope(score, label) == pytest.approx(0.6, abs=0.03)
    shifted, label = stays(n=40_000, intercept=0.4)
    assert calibration_intercept(shifted, label) == pytest.approx(0.4, abs=0.03)


def test_the_fit_settles_from_far_away():
    """Probabilities of 0 and 1 that are wrong, and probabilities that hardly differ."""
    score, label = stays(n=60, seed=3)
    score[:6], label[:6] = [0, 1, 0, 1, 0, 1], [1, 0, 0, 1, 1, 0]
    x = logit(np.clip(score, calibration.EDGE, 1 - calibration.EDGE))

    def loss(fit):
        return np.logaddexp(0, -(2 * label - 1) * (fit[0] + fit[1] * x)).sum()

    best = minimize(loss, [0, 0], method="BFGS", options={"gtol": 1e-9}).x
    assert calibration_slope(score, label) == pytest.approx(best[1], abs=1e-6)
    narrow = 0.5 + 1e-7 * (score - 0.5)
    result = calibration_slope(narrow, label)
    slopes = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(score[:, None], label).coef_
    assert result == pytest.approx(slopes[0, 0] / 4e-7, rel=1e-4)
    extreme = np.clip(score, 1e-12, 1e-9)
    assert expit(logit(extreme) + calibration_intercept(extreme, label)).sum() == pytest.approx(label.sum())


def test_no_slope_where_the_classes_do_not_overlap():
    message = "no slope can be fitted: the score is constant, or a threshold separates the classes"
    for score in ([0.1, 0.2, 0.8, 0.9], [0.9, 0.8, 0.2, 0.1], [0.1, 0.5, 0.5, 0.9], [0.3] * 4):
        with pytest.raises(ValueError, match=message):
            calibration_slope(score, [0, 0, 1, 1])
    # All rows overlap; the second resample leaves out what overlaps.
    result = calibration_slope([0.1, 0.6, 0.4, 0.9], [0, 0, 1, 1], [[1, 1, 1, 1], [1, 0, 1, 1]])
    assert np.isnan(result).tolist() == [False, True]


def test_noise_of_the_ece_is_what_right_probabilities_show():
    score, _ = stays(n=500)
    random = np.random.default_rng(7)
    right = [ece(score, random.random(500) < score) for _ in range(100)]
    assert ece_if_calibrated(score) == pytest.approx(np.mean(right), rel=0.1)
    assert ece_if_calibrated(score, seed=1) == ece_if_calibrated(score, seed=1) != ece_if_calibrated(score)
    over = expit(3 * logit(score))
    assert ece(over, random.random(500) < score) > 2 * ece_if_calibrated(over)


def test_intervals_come_from_the_patient_bootstrap():
    score, label = stays(n=300, slope=0.5)
    subject = np.arange(300) // 2
    result = intervals({metric.__name__: metric for metric in METRICS}, score, label, subject, resamples=200)
    for item in result.values():
        assert item.low < item.high
        assert item.patients == 150
    assert result["calibration_slope"].low < 0.5 < result["calibration_slope"].high < 1


def bold_stays(n: int = 2000, seed: int = 0):
    """Probabilities that are too bold and too high."""
    random = np.random.default_rng(seed)
    truth = random.normal(-1.5, 1, n)
    return expit(2 * truth + 1), (random.random(n) < expit(truth)).astype(int)


def test_logistic_is_scikit_learns_regression_on_the_logit():
    score, label = bold_stays()
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(logit(score)[:, None], label)
    fit = fit_logistic(score, label)
    assert (fit.intercept, fit.slope) == pytest.approx((model.intercept_[0], model.coef_[0, 0]), abs=1e-7)
    assert fit(score) == pytest.approx(model.predict_proba(logit(score)[:, None])[:, 1], abs=1e-7)


def test_logistic_undoes_the_distortion_on_other_bold_stays():
    fit = fit_logistic(*bold_stays())
    score, label = bold_stays(n=20_000, seed=1)
    mended = fit(score)
    assert calibration_slope(mended, label) == pytest.approx(1, abs=0.1)
    assert calibration_intercept(mended, label) == pytest.approx(0, abs=0.15)
    assert log_loss(mended, label) < log_loss(score, label)
    assert auroc(mended, label) == auroc(score, label)


def test_temperature_is_the_likeliest_one():
    score, label = bold_stays()
    fit = fit_temperature(score, label)
    result = minimize_scalar(lambda s: log_loss(expit(s * logit(score)), label), bounds=(0.01, 5), method="bounded",
                            options={"xatol": 1e-9})  # fmt: skip
    assert fit.intercept == 0
    assert fit.slope == pytest.approx(result.x, abs=1e-5)
    # Scores that are too timid are sharpened, beyond the first bracket.
    assert fit_temperature(expit(logit(score) / 8), label).slope == pytest.approx(8 * fit.slope)


def test_probabilities_of_zero_and_one_stay_finite():
    fitted = Recalibration(0.5, 0.1)(np.array([0.0, 0.5, 1.0]))
    assert np.isfinite(logit(fitted)).all()
    assert fitted[1] == pytest.approx(expit(0.5))
