"""ICI, E50 and E90: by a naive loess, for a calibrated and a miscalibrated score, and under weights."""

import numpy as np
import pytest

from patientdx.metrics.smooth_calibration import SPAN, smooth_curve, smooth_metrics


def naive(x, y, at):
    """A straight line by weighted least squares around `at`, with tricube weights over the nearest three quarters."""
    apart = np.abs(x - at)
    reach = np.sort(apart)[int(np.ceil(SPAN * x.size)) - 1]
    weight = np.sqrt(np.clip(1 - (apart / reach) ** 3, 0, None) ** 3)
    design = np.stack([np.ones_like(x), x - at], axis=1)
    return np.linalg.lstsq(design * weight[:, None], y * weight, rcond=None)[0][0]


def stays(n: int = 150, seed: int = 0):
    random = np.random.default_rng(seed)
    score = random.beta(1, 3, n)
    return score, random.random(n) < score


def test_the_curve_is_the_loess_of_the_outcome_on_the_probability():
    score, label = stays()
    grid, rate = smooth_curve(np.sort(score), label[np.argsort(score)][None] * 1.0, np.ones((1, score.size)))
    expected = [naive(score, label * 1.0, at) for at in grid]
    np.testing.assert_allclose(rate[0], np.clip(expected, 0, 1), atol=1e-6)


def test_the_metrics_are_mean_and_percentiles_of_the_distance():
    score, label = stays()
    distance = np.abs([np.clip(naive(score, label * 1.0, at), 0, 1) - at for at in score])
    values = {name: metric(score, label) for name, metric in smooth_metrics().items()}
    assert values["ici"] == pytest.approx(distance.mean(), abs=2e-3)  # between grid points the line is straight
    assert values["e50"] == pytest.approx(np.quantile(distance, 0.5), abs=4e-3)
    assert values["e90"] == pytest.approx(np.quantile(distance, 0.9), abs=4e-3)


def test_a_calibrated_score_is_near_zero_and_a_distorted_one_is_as_far_as_it_was_bent():
    score, label = stays(20000)
    calibrated = {name: metric(score, label) for name, metric in smooth_metrics().items()}
    assert max(calibrated.values()) < 0.02
    bent = np.sqrt(score)
    values = {name: metric(bent, label) for name, metric in smooth_metrics().items()}
    assert values["ici"] == pytest.approx(np.abs(bent - score).mean(), abs=0.01)
    # A line over three quarters of the rows smooths the bend a little.
    assert values["e50"] == pytest.approx(np.median(np.abs(bent - score)), abs=0.02)
    assert values["e90"] == pytest.approx(np.quantile(np.abs(bent - score), 0.9), abs=0.02)


@pytest.mark.parametrize("name", smooth_metrics())
def test_weights_are_repeated_rows_and_one_class_has_no_value(name):
    score, label = stays(60)
    times = np.random.default_rng(1).integers(0, 3, (4, 60)).astype(float)
    times[3] = label * 1.0
    metric = smooth_metrics()[name]
    values = metric(score, label, times)
    assert np.isnan(values[3])
    for row in range(3):
        single = smooth_metrics()[name](score, label, times[row])
        assert single == pytest.approx(values[row])
    constant = smooth_metrics()[name](np.full(60, 0.3), label)
    assert constant == pytest.approx(abs(label.mean() - 0.3))
