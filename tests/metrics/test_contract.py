"""What every declared metric keeps to: weights are repeated rows, a missing class has no value, misfits are errors."""

import inspect
from functools import partial
from importlib import import_module

import numpy as np
import pytest

from patientdx.core.errors import UserError
from patientdx.metrics import accuracy, calibration, decision, prompt_variants, ranking, text_overlap
from patientdx.metrics.bootstrap import interval
from patientdx.metrics.intervals import estimates
from patientdx.metrics.paired import delong, holm, mcnemar
from patientdx.metrics.prompt_variants import VariantScores, variant_spread
from patientdx.metrics.selection_bias import winner
from patientdx.metrics.specification import higher_is_better, metric, metric_spec
from patientdx.metrics.subgroups import subgroups

MODULES = ("accuracy", "calibration", "decision", "ranking", "retrieval", "text_overlap")
METRICS = {
    f"{module}.{name}": function
    for module in MODULES
    for name, function in vars(import_module(f"patientdx.metrics.{module}")).items()
    if hasattr(function, "metric_spec") and function.__module__ == f"patientdx.metrics.{module}"
}
OPTIONS = {"threshold": 0.5, "target": 0.9}
COLUMNS = {"bleu": 5, "chrf": 7}
CLASSES = [name for name, function in METRICS.items() if metric_spec(function).takes in ("scores", "probabilities")]
CLASSES.remove("accuracy.accuracy_at_half")
DIRECTIONS = {
    False: {"brier", "log_loss", "ece", "alerts_per_100", "false_positive_rate", "rate"},
    None: {"observed_minus_expected", "calibration_intercept", "calibration_slope", "ratio"},
}


def callable_of(name: str):
    """The metric with its options set, and rows of 120 that fit it."""
    function, random = METRICS[name], np.random.default_rng(3)
    options = {key: OPTIONS[key] for key in inspect.signature(function).parameters if key in OPTIONS}
    label = random.random(120) < 0.3
    score = np.round(0.6 * random.random(120) + 0.3 * label, 2)
    if metric_spec(function).takes == "answers":
        score, label = random.integers(0, 4, (2, 120))
    elif metric_spec(function).takes == "counts":
        label = random.integers(7, 30, 120)
        columns = COLUMNS.get(function.__name__, 0)
        score = random.integers(0, 7, (120, columns) if columns else 120)
        score = np.concatenate([label[:, None] - 1, score[:, 1:]], axis=1) if columns else score
    return partial(function, **options), score, label


def test_all_metrics_are_declared():
    assert len(METRICS) == 26
    for name, function in METRICS.items():
        spec = metric_spec(function)
        assert spec.name == name.split(".")[1]
        assert spec.verbose_name
        better = next((better for better, names in DIRECTIONS.items() if spec.name in names), True)
        assert spec.greater_is_better is better, name


def test_a_direction_is_declared_or_an_error():
    assert higher_is_better(ranking.auroc) is True
    with pytest.raises(UserError, match="does not declare whether higher is better"):
        metric_spec(test_all_metrics_are_declared)
    with pytest.raises(UserError, match="of ratio neither more nor less is better"):
        higher_is_better(text_overlap.ratio)

    @metric("mine", greater_is_better=False, takes="scores")
    def mine(score, label, weight=None):
        return 0.0

    assert metric_spec(mine).name == "mine"
    assert not higher_is_better(mine)


@pytest.mark.parametrize("name", METRICS)
def test_weights_stand_for_repeated_rows(name):
    function, score, label = callable_of(name)
    weight = np.random.default_rng(1).multinomial(120, np.full(120, 1 / 120), size=20).astype(float)
    values = function(score, label, weight)
    assert values.shape == (20,)
    for value, row in zip(values, weight.astype(int), strict=True):
        rows = np.repeat(np.arange(120), row)
        assert value == pytest.approx(function(score[rows], label[rows]), abs=1e-9)
    assert function(score, label, weight[0]) == pytest.approx(values[0], abs=1e-12)


@pytest.mark.parametrize("name", CLASSES)
def test_a_resample_without_a_class_has_no_value(name):
    function, score, label = callable_of(name)
    weight = np.stack([np.ones(120), label, ~label, np.zeros(120)]).astype(float)
    assert np.isnan(function(score, label, weight)).tolist() == [False, True, True, True]
    with pytest.raises(ValueError, match=r"both classes are needed|no slope can be fitted|nothing to take a share of"):
        function(score, label, weight[1])


SCORE_ERRORS = [
    (([0.1, 0.2], [1, 1]), "2 of 2 rows are events"),
    (([0.1, 0.2], [0, 0]), "0 of 2 rows are events"),
    (([0.1, 0.2], [0, 2]), "labels must be 0 or 1"),
    (([0.1, np.nan], [0, 1]), "1 of 2 scores are not a number"),
    (([0.1, 0.2, 0.3], [0, 1]), r"they are \(3,\) and \(2,\)"),
    (([0.1, 0.2], [0, 1], [1.0]), r"with n = 2; it is \(1,\)"),
    (([0.1, 0.2], [0, 1], [1.0, -1.0]), "not negative"),
]


@pytest.mark.parametrize("name", [*CLASSES, "roc_curve", "pr_curve"])
@pytest.mark.parametrize(("arguments", "message"), SCORE_ERRORS)
def test_scores_that_do_not_fit_are_errors(name, arguments, message):
    function = getattr(ranking, name) if name not in METRICS else callable_of(name)[0]
    with pytest.raises(ValueError, match=message):
        function(*arguments)


FLAT, APART = [0.5] * 4, [0.1, 0.2, 0.8, 0.9]
NO_SLOPE = "no slope can be fitted: the score is constant, or a threshold separates the classes"
NO_TEMPERATURE = "no temperature can be fitted: "
COMMON = {"label": [0, 1, 0, 1], "subject": [1, 2, 3, 4]}
ERRORS = [
    (lambda: accuracy.accuracy([1, 2], [1]), r"score must be \(n,\) and label \(n,\); they are \(2,\) and \(1,\)"),
    (lambda: accuracy.accuracy([], []), "they are"),
    (lambda: accuracy.accuracy([np.nan], [1]), "must be numbers"),
    (lambda: accuracy.accuracy([1], [1], [-1]), "not negative"),
    (lambda: accuracy.share([2], [1]), "0 to `label`"),
    (lambda: accuracy.share([0], [0]), "some row must have parts"),
    (lambda: accuracy.accuracy_at_half([0.3], [2]), "labels are 0 and 1"),
    (lambda: text_overlap.bleu(np.ones((3, 4)), np.ones(3)), r"score must be \(n, 5\) and label \(n,\)"),
    (lambda: text_overlap.mean(np.ones((3, 1)), np.ones(3)), r"score must be \(n,\)"),
    (lambda: text_overlap.chrf(np.full((2, 7), np.nan), np.ones(2)), "must be numbers"),
    (lambda: text_overlap.rate(np.ones(3), np.ones(3), np.ones(2)), r"weight must be \(n,\)"),
    (lambda: calibration.brier([-1, 2], [0, 1]), "calibration takes probabilities; these scores run from -1 to 2"),
    (lambda: calibration.ece([0.1, 0.2], [0, 1], bins=0), "bins=0 is not valid: at least 1 is needed"),
    (lambda: calibration.ece_if_calibrated(np.zeros(10)), "none of 100 drawn outcomes held both classes"),
    (lambda: calibration.fit_logistic(APART, [0, 0, 1, 1]), NO_SLOPE),
    (lambda: calibration.fit_temperature(APART, [0, 0, 1, 1]), NO_TEMPERATURE + "every score is on its label's side"),
    (lambda: calibration.fit_temperature(FLAT, [0, 0, 1, 1]), NO_TEMPERATURE + "every score is on its label's side"),
    (lambda: calibration.fit_temperature([0.9, 0.8, 0.7, 0.3], [0, 0, 1, 1]), NO_TEMPERATURE + "a probability of 0.5"),
    (lambda: decision.decision_curve(APART, [0, 1, 0, 1], [0]), "thresholds of a decision curve must lie between"),
    (lambda: decision.decision_curve(APART, [0, 1, 0, 1], [1]), "thresholds of a decision curve must lie between"),
    (lambda: decision.decision_curve(APART, [0] * 4), "both classes are needed"),
    (lambda: decision.ppv(APART, [0, 1, 0, 1], threshold=0.95), "nothing to take a share of: every row is on the"),
    (lambda: decision.npv(APART, [0, 1, 0, 1], threshold=0.0), "nothing to take a share of: every row is on the"),
    (lambda: decision.youden_threshold(FLAT, [0, 0, 1, 1]), "no threshold does better than chance"),
    (lambda: decision.youden_threshold(APART[::-1], [0, 0, 1, 1]), "no threshold does better than chance"),
    (lambda: decision.threshold_for_sensitivity(APART, [0, 1, 0, 1], 1.5), "a sensitivity of 1.5 is not valid"),
    (lambda: decision.sensitivity_at_specificity(APART, [0, 1, 0, 1], target=90), "a specificity of 90 is not valid"),
    (lambda: ranking.roc_curve(APART, [0, 1, 0, 1], points=1), "at least 2 points"),
    (lambda: mcnemar([1, 0], [1]), "on the same rows"),
    (lambda: mcnemar([1, 2], [1, 0]), r"right \(1\) or wrong \(0\)"),
    (lambda: delong([1, 2, 3, 4], [4, 3, 2, 1], [0, 0, 0, 1]), "two events and two non-events; 1 of 4 rows are events"),
    (lambda: delong([1, 2, 3, 4], [4, 3, 2, 1], [0, 0, 1, 1]), "no answer: both models rank without any spread"),
    (lambda: delong(APART, APART, [0, 1, 0, 1], level=95), "level=95 is not valid"),
    (lambda: holm({"a": 1.2}), r"p-values lie between 0 and 1; a has 1.2"),
    (lambda: interval(ranking.auroc, APART, **COMMON, level=95), "level=95 is not valid"),
    (lambda: interval(ranking.auroc, APART, **COMMON, resamples=0), "resamples=0 is not valid"),
    (lambda: interval(ranking.auroc, APART, COMMON["label"], np.zeros(4)), "at least 2 patients; there are 1"),
    (lambda: interval(lambda *_: 0.5, APART, **COMMON), r"gave shape \(\) for weights \(2000, 4\)"),
    (lambda: interval(ranking.auroc, [0.1, 0.2], [0, 1], [1, 2, 3]), "one shape"),
    (lambda: interval(ranking.auroc, [0.1, 0.2], [0, 0], [1, 2]), "both classes are needed"),
    (lambda: estimates({"": ranking.auroc}, APART, **COMMON, level=95), "level=95 is not valid"),
    (lambda: estimates({"": ranking.auroc}, APART, COMMON["label"], np.zeros(4)), "at least 2 patients"),
    (lambda: estimates({"": ranking.auroc}, APART, COMMON["label"], np.arange(3)), "must be of one shape"),
    (lambda: subgroups(APART, **COMMON, groups={"unit": "abc"}), "unit has 3 values for 4 rows; it needs one per row"),
    (lambda: subgroups(APART, COMMON["label"], np.zeros(4), {"unit": "abab"}), "at least 2 patients; there are 1"),
    (lambda: variant_spread(APART, {"w": VariantScores([0.1])}, **COMMON), "the wording w has 1 scores for 4 rows"),
    (lambda: variant_spread(APART, {"w": VariantScores([-1, 0, 0, 0])}, **COMMON), "calibration takes probabilities"),
    *(
        (lambda mass=mass: prompt_variants.abstention(mass), "must be numbers between 0 and 1, one per row")
        for mass in ([np.nan], [1.1], [-0.1], [])
    ),
    (lambda: winner(ranking.auroc, [APART, [np.nan, 0, 0, 0]], **COMMON, chosen=1), "must have a score on every row"),
    (lambda: winner(ranking.auroc, [APART], **COMMON, level=2), "level=2 is not valid"),
    (lambda: winner(text_overlap.ratio, [APART], **COMMON), "neither more nor less is better"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_what_cannot_be_computed_is_an_error_with_the_reason(call, message):
    with pytest.raises(ValueError, match=message):
        call()
