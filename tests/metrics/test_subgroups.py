import json

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import t

from patientdx.metrics.bootstrap import replicates
from patientdx.metrics.intervals import on_rows
from patientdx.metrics.ranking import auroc
from patientdx.metrics.subgroups import subgroups


def stays(n: int = 900, seed: int = 0):
    """Three units of which C is ranked at random, and patients with two stays that may be in different units."""
    random = np.random.default_rng(seed)
    unit = random.choice(["A", "B", "C"], n)
    risk = random.normal(-1, 1.5, n)
    label = random.random(n) < expit(risk)
    score = np.where(unit == "C", random.random(n), expit(risk))
    return score, label, np.arange(n) // 2, unit


def test_cells_are_the_metrics_of_their_rows():
    score, label, subject, unit = stays()
    result = subgroups(score, label, subject, {"unit": unit}, threshold=0.3, resamples=200)["unit"]
    assert list(result["cells"]) == ["A", "B", "C"]
    for value, cell in result["cells"].items():
        rows = unit == value
        assert (cell["n"], cell["events"]) == (rows.sum(), label[rows].sum())
        assert cell["auroc"]["value"] == auroc(score[rows], label[rows])
        apart = label[rows].mean() - score[rows].mean()
        assert cell["observed_minus_expected"]["value"] == pytest.approx(apart)
        assert cell["sensitivity"]["value"] == pytest.approx((score[rows & label] >= 0.3).mean())
        assert all(cell[key]["low"] < cell[key]["value"] < cell[key]["high"] for key in result["gaps"])
    json.dumps(result, allow_nan=False)


def test_the_largest_gap_is_found_and_its_interval_widened_for_the_pairs():
    score, label, subject, unit = stays()
    result = subgroups(score, label, subject, {"unit": unit}, resamples=400, seed=2)["unit"]
    gap, cells = result["gaps"]["auroc"], result["cells"]
    assert gap["lowest"] == "C"
    assert gap["pairs"] == 3
    highest = gap["highest"]
    assert gap["value"] == cells[highest]["auroc"]["value"] - cells["C"]["auroc"]["value"]
    assert gap["low"] > 0  # a unit ranked at random is found out
    # As both cells through the same draws of all patients, and t as wide as three pairs need.
    metrics = {v: on_rows(auroc, np.flatnonzero(unit == v)) for v in (highest, "C")}
    drawn = replicates(metrics, score, label, subject, resamples=400, seed=2)
    reach = t.ppf(1 - 0.05 / 6, np.unique(subject).size - 1) * np.std(drawn[highest] - drawn["C"])
    assert (gap["low"] + gap["high"]) / 2 == pytest.approx(gap["value"])
    assert (gap["high"] - gap["low"]) / 2 == pytest.approx(reach, rel=0.1)
    assert "sensitivity" not in result["gaps"]


def test_small_cells_are_suppressed_with_the_reason_alone():
    score, label = np.linspace(0.01, 0.99, 60), np.arange(60) % 2 == 0
    group = ["big"] * 30 + ["few events"] * 21 + ["tiny"] * 9
    result = subgroups(score, label, np.arange(60), {"g": group}, min_events=15, resamples=50)["g"]
    assert result["cells"]["few events"] == {"suppressed": "fewer than 15 events"}
    assert result["cells"]["tiny"] == {"suppressed": "fewer than 10 stays"}
    assert result["cells"]["big"]["events"] == 15
    reason = {"value": None, "reason": "fewer than two groups can be compared"}
    assert result["gaps"]["auroc"] == reason
    smallest = subgroups(score, label, np.arange(60), {"g": group}, min_events=1, min_rows=9, resamples=50)["g"][
        "cells"
    ]
    assert smallest["tiny"]["n"] == 9
    by_default = subgroups(score, label, np.arange(60), {"g": group}, resamples=50)["g"]["cells"]
    assert by_default["big"] == {"suppressed": "fewer than 20 events"}


def test_a_group_without_events_is_not_estimable_if_it_is_shown_at_all():
    score, label = np.linspace(0.01, 0.99, 60), np.arange(60) >= 30
    group = ["none"] * 25 + ["both"] * 35
    result = subgroups(score, label, np.arange(60), {"g": group}, threshold=0.5, min_events=0, resamples=50)["g"]
    none = result["cells"]["none"]
    assert (none["n"], none["events"]) == (25, 0)
    for metric in ("auroc", "observed_minus_expected", "sensitivity"):
        assert none[metric] == {"value": None, "reason": "both classes are needed; 0 of 25 rows are events"}
    assert result["cells"]["both"]["auroc"]["value"] == 1


def test_a_patient_in_two_cells_moves_both():
    """With every patient in both units and the same scores there, the gap has no uncertainty at all."""
    random = np.random.default_rng(0)
    score, label = random.random(100), random.random(100) < 0.5
    twice = [np.concatenate([column, column]) for column in (score, label, np.arange(100))]
    result = subgroups(*twice, {"unit": ["A"] * 100 + ["B"] * 100}, resamples=100)["unit"]["gaps"]["auroc"]
    assert (result["value"], result["low"], result["high"]) == (0, 0, 0)
