"""The clinical evaluation as a whole: its dict, what it refuses, and what it says of what cannot be estimated."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from patientdx.core.errors import UserError
from patientdx.metrics import bootstrap, calibration, clinical, decision, paired, ranking
from patientdx.metrics.clinical import Scored, VariantScores, evaluate
from patientdx.metrics.decision import decision_curve
from patientdx.metrics.thresholds import Rule

ROLES = ("merged", "base", "pivot", "tabular_gbm")


def split(name: str, n: int, seed: int, roles=ROLES) -> dict[tuple[str, str], Scored]:
    """Stays of patients who often come back, scored by models of different worth."""
    random = np.random.default_rng(seed)
    risk = random.normal(-1.2, 1.3, n)
    label = (random.random(n) < expit(risk)).astype(int)
    subject = [f"{name}-{number}" for number in random.integers(0, max(2, n * 2 // 3), n)]
    made = {}
    for role in roles:
        noise = {"merged": 0.5, "base": 3.0, "pivot": 1.0, "tabular_gbm": 0.2}[role]
        score = expit(0.5 * (risk + noise * random.normal(size=n)))
        mass = None if role.startswith("tabular") else expit(2 + random.normal(size=n))
        made[role, name] = Scored(score, label, subject, mass)
    return made


def both(n: int = 300, roles=ROLES) -> dict[tuple[str, str], Scored]:
    return split("pilot", n // 2, 1, roles) | split("test", n, 2, roles)


@pytest.fixture(scope="module")
def scored():
    return both()


@pytest.fixture(scope="module")
def found(scored):
    random = np.random.default_rng(5)
    test = scored["merged", "test"]
    groups = {"sex": random.choice(["F", "M"], 300).tolist(), "ward": ["rare"] * 5 + ["usual"] * 295}
    wordings = {"merged": {"survival": VariantScores(1 - test.probability, True)}}
    return evaluate(scored, groups=groups, wordings=wordings, resamples=200)


def test_it_is_plain_json_and_the_same_twice(scored, found):
    assert json.loads(json.dumps(found, allow_nan=False))["models"]["base"]["abstention"]["mean"] > 0
    again = evaluate(scored, resamples=200)
    assert again["models"]["pivot"]["calibration"] == found["models"]["pivot"]["calibration"]
    other = evaluate(scored, resamples=200, seed=1)["models"]["pivot"]
    of_resamples = (one["discrimination"]["sensitivity_at_specificity"] for one in (other, found["models"]["pivot"]))
    assert next(of_resamples) != next(of_resamples)


def test_cohorts_and_models(scored, found):
    label = scored["base", "test"].label
    patients = len(set(scored["base", "test"].subject))
    assert found["cohorts"]["test"] == {
        "n": 300, "patients": patients, "events": label.sum(), "prevalence": label.mean(),
    }  # fmt: skip
    assert list(found["cohorts"]) == ["pilot", "test"]
    assert found["patients_in_both"] == 0
    assert list(found["models"]) == list(ROLES)
    assert found["models"]["tabular_gbm"]["abstention"] is None
    assert [key for key in found["models"] if "wording" in found["models"][key]] == ["merged"]


def test_numbers_are_those_of_the_metrics_with_intervals_by_patient(scored, found):
    one, model = scored["pivot", "test"], found["models"]["pivot"]
    pilot = scored["pivot", "pilot"]
    for name, metric in (("auroc", ranking.auroc), ("auprc", ranking.auprc)):
        same = bootstrap.interval(metric, one.probability, one.label, one.subject, resamples=200)
        got = model["discrimination"][name]
        assert (got["value"], got["low"], got["high"]) == (same.value, same.low, same.high)
    fit = calibration.fit_logistic(pilot.probability, pilot.label)
    logistic = model["calibration"]["logistic"]
    assert logistic["fit"] == {"intercept": fit.intercept, "slope": fit.slope}
    assert logistic["brier"]["value"] == calibration.brier(fit(one.probability), one.label)
    assert logistic["slope"]["value"] == calibration.calibration_slope(fit(one.probability), one.label)
    assert model["calibration"]["raw"]["slope"]["value"] == pytest.approx(logistic["slope"]["value"] * fit.slope)
    cut = decision.youden_threshold(pilot.probability, pilot.label)
    assert (model["threshold"]["value"], model["threshold"]["chosen_on"]) == (cut, "pilot")
    assert model["threshold"]["ppv"]["value"] == decision.ppv(one.probability, one.label, threshold=cut)
    curve = decision_curve(fit(one.probability), one.label)
    assert model["decision_curve"]["logistic"] == curve
    assert list(model["decision_curve"]) == ["raw", "logistic", "temperature"]
    assert sum(model["distribution"]["events"]) == one.label.sum()
    assert sum(model["distribution"]["others"]) == (1 - one.label).sum()


def test_fits_take_fewer_resamples_and_are_the_first_of_all(scored):
    one = scored["base", "test"]
    few = evaluate({("base", "test"): one}, pilot=None, resamples=700)
    assert few["fit_resamples"] == clinical.FIT_RESAMPLES == 500
    raw = few["models"]["base"]["calibration"]["raw"]
    for name, count in (("slope", 500), ("brier", 700)):
        metric = {"slope": calibration.calibration_slope, "brier": calibration.brier}[name]
        same = bootstrap.interval(metric, one.probability, one.label, one.subject, resamples=count)
        assert (raw[name]["low"], raw[name]["high"]) == (same.low, same.high)


def test_comparisons_are_paired_and_corrected(scored, found):
    assert [(one["a"], one["b"]) for one in found["comparisons"]] == [("merged", role) for role in ROLES[1:]]
    a, b = (scored[role, "test"] for role in ("merged", "base"))
    same = paired.paired_estimate(calibration.brier, a.probability, b.probability, a.label, a.subject, resamples=200)
    one = found["comparisons"][0]
    assert {key: one["brier"][key] for key in same} == same
    test = paired.delong(a.probability, b.probability, a.label)
    assert (one["delong"]["p_value"], one["delong"]["rows_independent"]) == (test.p_value, False)
    for name in (*clinical.COMPARED, "delong"):
        raw = {index: pair[name]["p_value"] for index, pair in enumerate(found["comparisons"])}
        assert [pair[name]["p_holm"] for pair in found["comparisons"]] == list(paired.holm(raw).values())


def test_without_a_merged_model_every_pair_is_compared():
    found = evaluate(both(n=120, roles=("base", "pivot", "tabular_gbm")), resamples=50)
    pairs = [(one["a"], one["b"]) for one in found["comparisons"]]
    assert pairs == [("base", "pivot"), ("base", "tabular_gbm"), ("pivot", "tabular_gbm")]


def test_subgroups_and_wordings_are_those_of_the_reported_stays(scored, found):
    cells = found["models"]["base"]["subgroups"]
    assert cells["ward"]["cells"]["rare"] == {"suppressed": "fewer than 10 stays"}
    assert cells["sex"]["cells"]["F"]["n"] + cells["sex"]["cells"]["M"]["n"] == 300
    assert "sensitivity" in cells["sex"]["gaps"]
    assert found["models"]["merged"]["wording"]["wordings"]["survival"]["not_reversed"]["value"] == 0


def test_without_pilot_what_needs_it_is_left_out_and_says_so(scored):
    test_alone = {key: one for key, one in scored.items() if key[1] == "test"}
    found = evaluate(test_alone, pilot=None, resamples=50)
    model = found["models"]["merged"]
    reason = {"value": None, "reason": "no pilot split was given to fit it on"}
    assert model["threshold"] == model["calibration"]["logistic"] == model["calibration"]["temperature"] == reason
    assert (found["pilot"], found["patients_in_both"], list(found["cohorts"])) == (None, None, ["test"])
    some = {key: one for key, one in scored.items() if key != ("base", "pilot")}
    models = evaluate(some, resamples=50)["models"]
    assert models["base"]["threshold"]["reason"] == "there are no scores of this model on the pilot split to fit it on"
    assert models["merged"]["threshold"]["value"] is not None


def test_a_pilot_split_without_events_fits_nothing(scored):
    pilot = scored["base", "pilot"]
    stays = {("base", "test"): scored["base", "test"], ("base", "pilot"): replace(pilot, label=0 * pilot.label)}
    model = evaluate(stays, resamples=20)["models"]["base"]
    reason = "on pilot: both classes are needed; 0 of 150 rows are events"
    for part in (model["threshold"], model["calibration"]["logistic"], model["calibration"]["temperature"]):
        assert part == {"value": None, "reason": reason}


def test_a_target_sensitivity_chooses_the_threshold(scored):
    model = evaluate(scored, resamples=50, rule=Rule(target_sensitivity=0.9))["models"]["merged"]
    pilot = scored["merged", "pilot"]
    cut = decision.threshold_for_sensitivity(pilot.probability, pilot.label, 0.9)
    assert (model["threshold"]["value"], model["threshold"]["rule"]) == (cut, "sensitivity 0.9")


def test_a_budget_of_alerts_chooses_the_threshold_on_pilot(scored):
    rule = Rule(alerts_per_day=3, stays_per_day=30)
    model = evaluate(scored, resamples=50, rule=rule)["models"]["merged"]["threshold"]
    pilot = scored["merged", "pilot"].probability
    assert (model["rule"], model["value"]) == ("3 alerts a day of 30 stays", sorted(pilot)[-(len(pilot) // 10)])
    assert model["alerts_per_day"]["value"] == pytest.approx(0.3 * model["alerts_per_100"]["value"])
    told = evaluate(scored, resamples=50, rule=Rule(stays_per_day=10))["models"]["merged"]["threshold"]
    assert (told["rule"], told["alerts_per_day"]["high"]) == ("youden", told["alerts_per_100"]["high"] / 10)


def test_net_benefit_and_smooth_calibration_have_intervals(scored):
    found = evaluate(scored, resamples=100)["models"]["merged"]
    for kind in ("raw", "logistic", "temperature"):
        curve, benefit = found["decision_curve"][kind], found["net_benefit"][kind]
        assert list(benefit) == ["0.05", "0.10", "0.20", "0.30", "0.50"]
        assert benefit["0.10"]["value"] == pytest.approx(curve["model"][9])
        assert all(one["low"] <= one["value"] <= one["high"] for one in benefit.values())
        smooth = [found["calibration"][kind][name] for name in clinical.SMOOTH]
        assert all(0 <= one["low"] <= one["high"] <= 1 for one in smooth)
        assert smooth[1]["value"] <= smooth[2]["value"]


def test_a_constant_score_and_certainties_stay_honest():
    made = both(n=100, roles=("base",))
    flat = {key: replace(one, probability=np.full(len(one.label), 0.5)) for key, one in made.items()}
    model = evaluate(flat, resamples=50)["models"]["base"]
    assert model["discrimination"]["auroc"]["value"] == 0.5
    assert "reason" in model["calibration"]["raw"]["slope"]
    assert model["threshold"]["reason"].startswith("on pilot: no threshold does better than chance")
    assert model["calibration"]["temperature"]["reason"].startswith("on pilot: no temperature can be fitted")
    certain = {key: replace(one, probability=np.round(one.probability)) for key, one in made.items()}
    found = evaluate(certain, resamples=50)
    assert found["models"]["base"]["at_the_edge"] == 100
    right = {key: replace(one, probability=one.label * 1.0) for key, one in made.items()}
    perfect = evaluate(right, resamples=50)
    assert perfect["models"]["base"]["calibration"]["raw"]["brier"]["value"] == 0
    for one in (model, found, perfect):
        json.dumps(one, allow_nan=False)


def test_few_stays_have_fewer_bins(scored):
    assert evaluate(scored, resamples=20)["bins"] == 10
    few = evaluate(both(n=68, roles=("base",)), resamples=20)
    raw = few["models"]["base"]["calibration"]["raw"]
    assert few["bins"] == len(raw["curve"]) == 6
    one = both(n=68, roles=("base",))["base", "test"]
    assert raw["ece"]["value"] == calibration.ece(one.probability, one.label, bins=6)
    assert raw["ece_if_calibrated"] == calibration.ece_if_calibrated(one.probability, bins=6)
    assert min(bin["n"] for bin in raw["curve"]) >= 10


def test_two_models_without_spread_have_no_delong_answer():
    made = both(n=60, roles=("base",))
    for key, one in list(made.items()):
        made["merged", key[1]] = replace(one, probability=0.2 + 0.5 * one.label)
        made[key] = replace(one, probability=0.7 - 0.5 * one.label)
    found = evaluate(made, resamples=50)["comparisons"][0]
    assert found["auroc"]["value"] == 1
    assert found["delong"]["reason"] == "DeLong's test has no answer: both models rank without any spread"
    assert "p_holm" not in found["delong"]


def test_patients_in_both_splits_are_counted(scored):
    stays = {key: one for key, one in scored.items() if key[0] == "base"}
    test, pilot = stays["base", "test"], stays["base", "pilot"]
    shared = replace(pilot, subject=[test.subject[0], test.subject[0], *pilot.subject[2:]])
    assert evaluate(stays | {("base", "pilot"): shared}, resamples=50)["patients_in_both"] == 1


def test_recalibrated_probabilities_are_better_where_the_pilot_is_alike():
    model = evaluate(both(n=2000, roles=("tabular_gbm",)), resamples=50)["models"]["tabular_gbm"]["calibration"]
    assert model["raw"]["slope"]["low"] > 1.5  # made too timid on purpose
    for kind in ("logistic", "temperature"):
        assert model[kind]["slope"]["low"] < 1 < model[kind]["slope"]["high"]
        assert model[kind]["log_loss"]["value"] < model["raw"]["log_loss"]["value"]


def changed(**parts) -> dict[tuple[str, str], Scored]:
    made = both(n=40, roles=("base", "pivot"))
    return made | {("pivot", "test"): replace(made["pivot", "test"], **parts)}


ONE = Scored(np.array([0.2, 0.4]), np.array([0, 0]), ["a", "b"])
REFUSED = [
    ({"reported": "pilot"}, "cannot be fitted on the pilot split and reported on it"),
    ({"reported": "final"}, "there are no scores of base, pivot on the final split to report"),
    ({"scored": {}}, "there are no scores of any model on the test split to report"),
    ({"wordings": {"merged": {}}}, "there are wordings for merged but no scores on the test split"),
    ({"scored": changed(subject=["x"] * 40)}, "were not scored on the same stays of the test split in the same order"),
    ({"scored": changed(label=np.arange(40) % 2)}, "were not scored on the same stays of the test split"),
    ({"scored": changed(probability=np.ones(39))}, "pivot on test: probabilities, labels and patients must be one a"),
    ({"scored": {("base", "test"): ONE}}, "0 of 2 stays of the test split have the event; an evaluation needs both"),
    (
        {"scored": {("base", "test"): replace(ONE, label=np.array([0, 1]), subject=["a", "a"])}},
        "an interval by patient needs at least 2 patients; there are 1",
    ),
    ({"groups": {"sex": ["F"]}}, "the grouping sex has 1 values for 40 rows; it needs one per row"),
    ({"level": 95}, "level=95 is not valid"),
    ({"resamples": 0}, "resamples=0 is not valid"),
]


@pytest.mark.parametrize(("asked", "message"), REFUSED)
def test_refusals(asked, message):
    with pytest.raises(UserError, match=message):
        evaluate(**{"scored": both(n=40, roles=("base", "pivot")), "resamples": 20} | asked)


def test_scores_that_are_no_probabilities_are_an_error():
    with pytest.raises(ValueError, match="calibration takes probabilities; these scores run from"):
        evaluate(changed(probability=logit(np.linspace(0.1, 0.9, 40))), resamples=20)


def test_five_thousand_stays_and_four_models_take_seconds():
    made = both(n=5000)
    groups = {"sex": np.random.default_rng(0).choice(["F", "M"], 5000).tolist()}
    start = time.process_time()
    evaluate(made, groups=groups, resamples=200)
    assert time.process_time() - start < 10
