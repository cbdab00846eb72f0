"""Severity scores: the published points at their limits, what is missing, and the window that they are read from."""

import os

import numpy as np
import pytest

from patientdx.records import severity
from patientdx.records.features import Features
from patientdx.records.record import Background, Course, Infusion, Record, Word
from patientdx.records.severity import of_features, points, rules, scored, variables
from patientdx.tasks.clinical import ClinicalTask

HIGHEST = {"sofa": 24, "oasis": 75, "news2": 20}  # as published; OASIS: the highest points of its ten components


@pytest.mark.parametrize("score", severity.SCORES)
def test_the_worst_of_every_component_adds_to_the_published_maximum(score):
    highest = [max(rule.points for rule in of_component) for of_component in rules()[score].values()]
    assert sum(highest) == HIGHEST[score]
    assert len(highest) == {"sofa": 6, "oasis": 10, "news2": 7}[score]


LIMITS = [
    ("sofa", "coagulation", "Platelets minimum", {19.9: 4, 20: 3, 49.9: 3, 50: 2, 99: 2, 100: 1, 149: 1, 150: 0}),
    ("sofa", "liver", "Bilirubin maximum", {1.1: 0, 1.2: 1, 1.9: 1, 2: 2, 5.9: 2, 6: 3, 11.9: 3, 12: 4}),
    ("sofa", "consciousness", "Glasgow coma scale minimum", {15: 0, 14: 1, 13: 1, 12: 2, 10: 2, 9: 3, 6: 3, 5: 4}),
    ("sofa", "kidneys", "Creatinine maximum", {1.1: 0, 1.2: 1, 1.9: 1, 2: 2, 3.4: 2, 3.5: 3, 4.9: 3, 5: 4}),
    ("sofa", "kidneys", "urine in 24 h", {199: 4, 200: 3, 499: 3, 500: 0}),
    ("sofa", "cardiovascular", "Mean arterial pressure minimum", {69: 1, 70: 0}),
    ("sofa", "cardiovascular", "Norepinephrine dose maximum", {0.05: 3, 0.1: 3, 0.11: 4}),
    ("sofa", "cardiovascular", "Dopamine dose maximum", {5: 2, 5.1: 3, 15: 3, 15.1: 4}),
    ("sofa", "cardiovascular", "Dobutamine dose maximum", {0.5: 2, 30: 2}),
    ("sofa", "respiration", "PaO2/FiO2 ratio minimum", {400: 0, 399: 1, 299: 2, 199: 2, 99: 2}),
    ("oasis", "age", "age", {18: 0, 23: 0, 24: 3, 53: 3, 54: 6, 77: 6, 78: 9, 89: 9, 90: 7}),
    ("oasis", "time before intensive care", "minutes before intensive care",
     {-5: 5, 10.1: 5, 10.2: 3, 296: 3, 297: 0, 1439: 0, 1440: 2, 18707: 2, 18708: 1}),
    ("oasis", "consciousness", "Glasgow coma scale minimum", {7: 10, 8: 4, 13: 4, 14: 3, 15: 0}),
    ("oasis", "heart rate", "Heart rate maximum", {88: 0, 89: 1, 106: 1, 107: 3, 125: 3, 126: 6}),
    ("oasis", "mean arterial pressure", "Mean arterial pressure minimum", {20: 4, 21: 3, 50.9: 3, 51: 2, 61.4: 0}),
    ("oasis", "respiratory rate", "Respiratory rate maximum", {22: 0, 23: 1, 30: 1, 31: 6, 44: 6, 45: 9}),
    ("oasis", "temperature", "Temperature maximum", {39.9: 6, 39.88: 2, 36.89: 2, 36.5: 0, 35.93: 4, 33.22: 4}),
    ("oasis", "urine", "urine in 24 h", {671: 10, 671.09: 5, 1426.99: 5, 1427: 1, 2544.14: 1, 2545: 0, 6897: 8}),
    ("oasis", "ventilation", "invasive ventilation", {0: 0, 1: 9}),
    ("oasis", "elective surgery", "elective surgery", {1: 0, 0: 6}),
    ("news2", "respiratory rate", "Respiratory rate last", {8: 3, 9: 1, 11: 1, 12: 0, 20: 0, 21: 2, 24: 2, 25: 3}),
    ("news2", "oxygen saturation", "Oxygen saturation last", {91: 3, 92: 2, 93: 2, 94: 1, 95: 1, 96: 0}),
    ("news2", "oxygen", "supplemental oxygen", {0: 0, 1: 2}),
    ("news2", "systolic pressure", "Systolic pressure last",
     {90: 3, 91: 2, 100: 2, 101: 1, 110: 1, 111: 0, 219: 0, 220: 3}),
    ("news2", "pulse", "Heart rate last", {40: 3, 41: 1, 50: 1, 51: 0, 90: 0, 91: 1, 110: 1, 111: 2, 130: 2, 131: 3}),
    ("news2", "consciousness", "Glasgow coma scale last", {15: 0, 14: 3, 3: 3}),
    ("news2", "temperature", "Temperature last", {35: 3, 35.1: 1, 36: 1, 36.1: 0, 38: 0, 38.1: 1, 39: 1, 39.1: 2}),
]  # fmt: skip


@pytest.mark.parametrize(("score", "component", "variable", "expected"), LIMITS)
def test_points_change_where_the_publication_says(score, component, variable, expected):
    assert {value: points(score, {variable: value})[component] for value in expected} == expected


def test_ventilation_is_what_makes_three_and_four_points_of_respiration():
    ventilated = {"invasive ventilation": 1.0}
    ratio = {
        value: points("sofa", ventilated | {"PaO2/FiO2 ratio minimum": value})["respiration"]
        for value in (99, 199, 299)
    }
    assert ratio == {99: 4, 199: 3, 299: 2}


def test_what_is_missing_counts_as_normal_and_is_told_apart():
    nothing = {score: points(score, {}) for score in severity.SCORES}
    assert all(part is None for parts in nothing.values() for part in parts.values())
    assert points("sofa", {"Creatinine maximum": 1.0})["kidneys"] == 0


def record(**fields) -> Record:
    readings = {"Temperature": Course(36.0, 38.0000000031, 35.0, 40.0, 3, 0.5, 20.0)}
    usual = {"readings": tuple((name, 37.0) for name in readings), "courses": tuple(readings.values()), "urine": 900.0}
    return Record(**({"age": 60, "gender": "F"} | usual | fields))


def test_variables_are_scaled_to_a_day_and_free_of_rounding():
    known = variables(record(background=Background("ELECTIVE", hours_before_icu=2.5, surgical=True)), 48)
    assert known["urine in 24 h"] == 450
    assert known["Temperature last"] == 38.0  # 100.4 °F, which is no fever of 38.1 °C
    assert (known["elective surgery"], known["minutes before intensive care"]) == (1, 150)
    unknown = variables(record(urine=None), 24)
    assert not {"urine in 24 h", "elective surgery", "minutes before intensive care"} & unknown.keys()


@pytest.mark.parametrize(
    ("kind", "surgical", "expected"),
    [
        ("ELECTIVE", True, 1), ("ELECTIVE", False, 0), ("ELECTIVE", None, None), ("EW EMER.", None, 0),
        ("URGENT", True, 0), ("SURGICAL SAME DAY ADMISSION", True, 1), (None, True, None),
    ],
)  # fmt: skip
def test_surgery_is_elective_where_admission_and_service_say_so(kind, surgical, expected):
    known = variables(record(background=Background(kind, surgical=surgical)), 24)
    assert known.get("elective surgery") == expected


def infusion(highest: float | None) -> Infusion:
    return Infusion("vasopressor", 100, "mcg/kg/min", highest, highest, highest, False, True, 3.0)


def test_the_dose_of_a_vasopressor_is_the_highest_and_an_unknown_one_the_least():
    drugs = (("Norepinephrine", None), ("Dopamine", None), ("Vasopressin", None))
    given = record(drugs=drugs, infusions=(infusion(0.3), infusion(None), infusion(2.0)))
    known = variables(given, 24)
    assert (known["Norepinephrine dose maximum"], known["Dopamine dose maximum"]) == (0.3, 1e-6)
    assert "Vasopressin dose maximum" not in known
    assert points("sofa", known)["cardiovascular"] == 4
    assert points("sofa", variables(record(drugs=drugs[1:2]), 24))["cardiovascular"] == 2  # revision 1 has no doses


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"words": (Word("Oxygen device", "Nasal cannula", 3.0),)}, 1),
        ({"words": (Word("Oxygen device", "None", 3.0),), "procedures": ("Invasive ventilation",)}, 0),
        ({"procedures": ("Invasive ventilation",)}, 1),
        ({}, None),
    ],
)
def test_oxygen_is_that_of_the_device_last_charted(fields, expected):
    assert variables(record(**fields), 24).get("supplemental oxygen") == expected
    course = {"readings": (("Inspired oxygen", 30.0),), "courses": (Course(40, 21, 21, 40, 2, 0, 9),)}
    assert variables(record(**course), 24)["supplemental oxygen"] == 0


def test_a_task_has_the_scores_of_each_stay_and_counts_what_is_missing(store, ward):
    data = ClinicalTask(
        cache=store, mimic_root=str(ward), outcome="mortality", window_hours=48, gap_hours=6, threads=1
    ).load()
    table = data.severity_points
    assert table.names == ("sofa", "sofa missing", "oasis", "oasis missing", "news2", "news2 missing")
    assert table.values.shape == (len(data.examples), 6)
    for score in severity.SCORES:
        column = table.column(score).values
        assert column.min() >= 0
        assert 0 < column.max() <= HIGHEST[score]
        assert table.column(f"{score} missing").values.max() < len(rules()[score])


def test_no_points_are_counted_before_they_are_needed(store, ward, monkeypatch):
    counted = []
    monkeypatch.setattr(severity, "points", lambda score, known: counted.append(score) or {})
    data = ClinicalTask(
        cache=store, mimic_root=str(ward), outcome="mortality", window_hours=48, gap_hours=6, threads=1, seed=5
    ).load()
    assert counted == []
    assert data.severity_points is data.severity_points
    assert len(counted) == len(severity.SCORES) * len(data.examples)


def test_features_of_another_hospital_are_scored_where_their_units_are_ours():
    names = ("age", "Creatinine maximum", "Platelets minimum", "Heart rate last", "Heart rate mean")
    table = Features(names, np.array([[90.0, 5.1, 140.0, 131.0, 3.0], [30.0, np.nan, 160.0, np.nan, 500.0]]))
    ours = {"Creatinine": "mg/dL", "Platelets": "K/uL", "Heart rate": "bpm"}
    scores = scored(of_features(table, ours))
    assert [scores.column(name).values[:, 0].tolist() for name in severity.SCORES] == [[5, 0], [7, 3], [3, 0]]
    assert scores.column("sofa missing").values[:, 0].tolist() == [4, 5]
    other = scored(of_features(table, ours | {"Creatinine": "umol/L"}))
    assert other.column("sofa").values[:, 0].tolist() == [1, 0]  # platelets alone
    assert other.column("sofa missing").values[:, 0].tolist() == [5, 5]


# Counted by hand from the raw tables of five stays of the open demo, first 24 h: by score the value or extreme that
# decides each component with its points ("–": nothing is charted of it), then their sum and how many are missing.
BY_HAND = {
    # 54 y, emergency, 9389.7 min in hospital before; not ventilated; norepinephrine up to 0.05 mcg/kg/min
    30057454: {
        # PaO2/FiO2 72/0.8: 2; platelets 188: 0; bilirubin –; norepinephrine: 3; GCS 15: 0; creatinine 1.8: 1
        "sofa": (6, 1),
        # before: 2; age: 6; GCS: 0; pulse 114: 3; MAP 50: 3; RR 25: 1; 37.06 °C: 2; urine 1621: 1; no ventilation: 0;
        # not elective: 6
        "oasis": (24, 0),
        # RR 13: 0; SpO2 92: 2; FiO2 0.8: 2; systolic 79: 3; pulse 105: 1; GCS 15: 0; 36.7 °C: 0
        "news2": (8, 0),
    },
    # 89 y, emergency, 57 min before; not ventilated; norepinephrine up to 0.25
    32119961: {
        # gases –; platelets 141: 1; bilirubin 0.4: 0; norepinephrine: 4; GCS 15: 0; urine 30: 4
        "sofa": (9, 1),
        # before: 3; age: 9; GCS: 0; pulse 96: 1; MAP 52: 2; RR 24: 1; 36.39 °C: 2; urine 30: 10; no ventilation: 0;
        # not elective: 6
        "oasis": (34, 0),
        # RR 12, SpO2 100, systolic 118, pulse 76, GCS 15, 36.6 °C: all 0; oxygen 3 L/min: 2
        "news2": (2, 0),
    },
    # 83 y, same-day surgery, service NSURG, 1188.7 min before; not ventilated
    31269608: {
        # gases –; platelets 212: 0; bilirubin –; MAP 68: 1; GCS 13: 1; creatinine 0.7: 0
        "sofa": (2, 2),
        # before: 0; age: 9; GCS 13: 4; pulse 93: 1; MAP 68: 0; RR 26: 1; 36.39 °C: 2; urine 2130: 1; no ventilation: 0;
        # elective: 0
        "oasis": (18, 0),
        # RR 23: 2; SpO2 94: 1; oxygen 2 L/min: 2; systolic 111: 0; pulse 70: 0; GCS 13: 3; 36.8 °C: 0
        "news2": (8, 0),
    },
    # 70 y, emergency, 176 min before; not ventilated; norepinephrine up to 0.03
    34107647: {
        # gases –; platelets 234: 0; bilirubin 0.3: 0; norepinephrine: 3; GCS 15: 0; creatinine 2.5: 2
        "sofa": (5, 1),
        # before: 3; age: 6; GCS: 0; pulse 124: 3; MAP 60: 2; RR 35: 6; 36.56 to 36.889 °C: 0; urine 4070: 0;
        # no ventilation: 0; not elective: 6
        "oasis": (26, 0),
        # RR 27: 3; SpO2 93: 2; oxygen –; systolic 119: 0; pulse 103: 1; GCS 15: 0; 36.8 °C: 0
        "news2": (6, 1),
    },
    # 71 y, emergency, service NSURG, 20 min before; invasively ventilated: verbal response not testable
    32391858: {
        # PaO2/FiO2 143/0.4: 1; platelets 208: 0; bilirubin –; MAP 62: 1; GCS –; creatinine 0.6: 0
        "sofa": (2, 2),
        # before: 3; age: 6; GCS –; pulse 138: 6; MAP 62 to 125: 0; RR 37: 6; 37.67 °C: 2; urine 1470: 1;
        # ventilated: 9; not elective: 6
        "oasis": (39, 1),
        # RR 25: 3; SpO2 97: 0; ventilated: 2; systolic 103: 1; pulse 95: 1; GCS –; 37.3 °C: 0
        "news2": (7, 1),
    },
}


def test_five_stays_of_the_open_demo_have_the_points_that_were_counted_by_hand(store):
    if "PATIENTDX_SHARED" not in os.environ:
        pytest.skip("PATIENTDX_SHARED names no folder with data/mimic-iv-demo")
    root = f"{os.environ['PATIENTDX_SHARED']}/data/mimic-iv-demo"
    data = ClinicalTask(
        cache=store, mimic_root=[root, f"{root}/rebuilt"], outcome="mortality", window_hours=24, gap_hours=0, threads=1,
        template="intervals/2", stepdown="keep",
    ).load()  # fmt: skip
    row_of = {int(example.uid): number for number, example in enumerate(data.examples)}
    table = data.severity_points
    for stay, scores in BY_HAND.items():
        points = dict(zip(table.names, table.values[row_of[stay]].astype(int).tolist(), strict=True))
        assert {score: (points[score], points[f"{score} missing"]) for score in scores} == scores, stay
