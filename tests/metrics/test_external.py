"""Inside and outside: what is frozen, what a loss is, and that pairs share their draws."""

import numpy as np
import pytest

from patientdx.metrics import calibration, decision, ranking
from patientdx.metrics.clinical import Scored
from patientdx.metrics.external import COMPARED, compare

OPTIONS = {"resamples": 200, "level": 0.9, "seed": 3}


def scored(n: int, seed: int, *, strength: float = 1.5, shift: float = 0.0) -> Scored:
    """Scores whose logit is that of the outcome times `strength`, for events that are more likely by `shift`."""
    drawn = np.random.default_rng(seed)
    risk = drawn.normal(size=n)
    label = (drawn.random(n) < 1 / (1 + np.exp(1 - 1.5 * risk - shift))).astype(int)
    return Scored(1 / (1 + np.exp(1 - strength * risk)), label, [f"p{i // 2}" for i in range(n)])


@pytest.fixture(scope="module")
def sides() -> dict[str, dict[str, Scored]]:
    return {
        side: {"merged": scored(300, seed, shift=shift), "base": scored(300, seed, strength=0.3, shift=shift)}
        for side, seed, shift in (("inside", 1, 0.0), ("outside", 2, 1.0), ("pilot", 3, 0.0))
    }


@pytest.fixture(scope="module")
def result(sides) -> dict:
    return compare(sides["inside"], sides["outside"], sides["pilot"], **OPTIONS)


def test_both_sides_and_the_loss_are_those_of_the_metrics(sides, result):
    for role in ("merged", "base"):
        measures = result["models"][role]["measures"]
        for name, metric in COMPARED.items():
            values = [metric(sides[side][role].probability, sides[side][role].label) for side in ("inside", "outside")]
            assert [measures[name][side]["value"] for side in ("inside", "outside")] == pytest.approx(values)
            sign = 1 if name in ("auroc", "auprc") else -1
            assert measures[name]["loss"]["value"] == pytest.approx(sign * (values[0] - values[1]))
            assert measures[name]["loss"]["low"] < measures[name]["loss"]["value"] < measures[name]["loss"]["high"]
        assert "loss" not in measures["slope"]
    assert result["cohorts"]["outside"]["prevalence"] > result["cohorts"]["inside"]["prevalence"] + 0.1


def test_recalibration_and_threshold_are_those_of_pilot(sides, result):
    pilot, outside = sides["pilot"]["merged"], sides["outside"]["merged"]
    fit = calibration.fit_logistic(pilot.probability, pilot.label)
    threshold = decision.youden_threshold(pilot.probability, pilot.label)
    model = result["models"]["merged"]
    assert model["threshold"] == threshold
    expected = decision.sensitivity(outside.probability, outside.label, threshold=threshold)
    assert model["measures"]["sensitivity"]["outside"]["value"] == pytest.approx(expected)
    brier = calibration.brier(fit(outside.probability), outside.label)
    assert model["measures"]["recalibrated brier"]["outside"]["value"] == pytest.approx(brier)
    # More patients die outside than the frozen recalibration expects.
    assert model["measures"]["recalibrated observed_minus_expected"]["outside"]["value"] > 0.1
    assert abs(model["measures"]["recalibrated observed_minus_expected"]["inside"]["value"]) < 0.08


def test_nothing_outside_changes_what_is_frozen(sides, result):
    other = {role: scored(100, 9, shift=-1.0) for role in ("merged", "base")}
    again = compare(sides["inside"], other, sides["pilot"], **OPTIONS)
    for role in ("merged", "base"):
        for key in ("threshold", "fit"):
            assert again["models"][role][key] == result["models"][role][key]
        for name, measure in result["models"][role]["measures"].items():
            assert again["models"][role]["measures"][name]["inside"] == measure["inside"]


def test_losses_are_paired(sides, result):
    (pair,) = result["paired"]
    assert (pair["a"], pair["b"]) == ("merged", "base")
    losses = [result["models"][role]["measures"]["auroc"]["loss"]["value"] for role in ("merged", "base")]
    assert pair["auroc"]["value"] == pytest.approx(losses[0] - losses[1])
    same = compare(*({"merged": part["merged"], "copy": part["merged"]} for part in sides.values()), **OPTIONS)
    twin = same["paired"][0]["auroc"]
    assert (twin["value"], twin["low"], twin["high"]) == (0, 0, 0)  # the same draws for both


def test_without_pilot_nothing_is_recalibrated(sides):
    model = compare(sides["inside"], sides["outside"], {}, **OPTIONS)["models"]["merged"]
    assert model["threshold"] is None
    assert model["fit"] is None
    assert not [name for name in model["measures"] if "recalibrated" in name or name == "sensitivity"]
    assert ranking.auroc(sides["inside"]["merged"].probability, sides["inside"]["merged"].label) == pytest.approx(
        model["measures"]["auroc"]["inside"]["value"]
    )
