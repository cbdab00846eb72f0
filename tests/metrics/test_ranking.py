import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from patientdx.metrics.ranking import auprc, auroc, pr_curve, roc_curve

ANCHORS = [(auroc, roc_auc_score), (auprc, average_precision_score)]


def rows(seed: int, n: int = 300, distinct: int | None = None):
    random = np.random.default_rng(seed)
    label = random.random(n) < 0.15
    label[:2] = [True, False]
    score = random.normal(size=n) + label
    if distinct:
        score = np.round(score * distinct / 6)
    return score, label


@pytest.mark.parametrize(("ours", "reference"), ANCHORS)
@pytest.mark.parametrize("distinct", [None, 40, 5, 1])
def test_equals_sklearn_with_and_without_ties(ours, reference, distinct):
    for seed in range(5):
        score, label = rows(seed, distinct=distinct)
        assert ours(score, label) == pytest.approx(reference(label, score), abs=1e-12)


@pytest.mark.parametrize(("ours", "reference"), ANCHORS)
@pytest.mark.parametrize("distinct", [None, 5])
def test_equals_sklearn_with_weights_one_by_one_and_all_at_once(ours, reference, distinct):
    score, label = rows(7, distinct=distinct)
    random = np.random.default_rng(1)
    counts = random.multinomial(score.size, np.full(score.size, 1 / score.size), size=20)  # zeros among them
    for weight in (counts, random.random((20, score.size))):
        expected = [reference(label, score, sample_weight=row) for row in weight]
        np.testing.assert_allclose(ours(score, label, weight), expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose([ours(score, label, row) for row in weight], expected, rtol=0, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 4)), min_size=2, max_size=12).filter(
        lambda drawn: {label for _, label, weight in drawn if weight} == {True, False}
    )
)
def test_equals_a_weighted_row_written_out_that_often(drawn):
    score, label, weight = (np.array(column) for column in zip(*drawn, strict=True))
    written = np.repeat(np.arange(score.size), weight)
    for ours, reference in ANCHORS:
        expected = reference(label[written], score[written])
        assert ours(score, label, weight) == pytest.approx(expected, abs=1e-12)


def test_known_values():
    label = [0, 0, 1, 1]
    assert auroc([0, 1, 2, 3], label) == 1.0
    assert auroc([3, 2, 1, 0], label) == 0.0
    assert auroc([1, 1, 1, 1], label) == 0.5
    assert auprc([0, 1, 2, 3], label) == 1.0
    assert auprc([1, 1, 1, 1], label) == 0.5
    assert auroc([-np.inf, 0, 0, np.inf], label) == 0.875


@pytest.mark.parametrize("distinct", [None, 6])
def test_curves_run_through_sklearns_points(distinct):
    score, label = rows(3, distinct=distinct)
    x, y = np.array(roc_curve(score, label, points=10_000)).T
    false_positive_rate, true_positive_rate, _ = sklearn_roc_curve(label, score)
    np.testing.assert_allclose(np.interp(false_positive_rate[1:-1], x, y)[-1], true_positive_rate[-2])
    assert np.trapezoid(y, x) == pytest.approx(auroc(score, label), abs=1e-12)
    precision, recall, _ = precision_recall_curve(label, score)
    curve = pr_curve(score, label, points=10_000)
    # scikit-learn writes (0, 1) last; a straight piece's inner points are left out of ours.
    points = set(zip(recall.round(12).tolist(), precision.round(12).tolist(), strict=True))
    assert {(round(x, 12), round(y, 12)) for x, y in curve} <= points
    assert curve[0] == (0.0, 1.0)
    assert curve[-1][0] == 1.0


def test_curves_are_thinned_and_keep_their_ends():
    score, label = rows(5, n=20_000)
    for curve in (roc_curve(score, label), pr_curve(score, label)):
        assert 100 < len(curve) <= 200
    thin = roc_curve(score, label)
    assert (thin[0], thin[-1]) == ((0.0, 0.0), (1.0, 1.0))
    x, y = np.array(thin).T
    assert np.trapezoid(y, x) == pytest.approx(auroc(score, label), abs=2e-3)
    assert len(roc_curve(score, label, points=3)) == 3
