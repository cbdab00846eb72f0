"""The data files of the clinical concepts agree with one another, and a user's own file is read or refused."""

import pytest

from patientdx.core.errors import UserError
from patientdx.records import concept_table
from patientdx.records.concept_table import concepts, read_concepts, rows, sources

DERIVED = {"Glasgow coma scale", "PaO2/FiO2 ratio", "Body mass index"}


def test_every_source_belongs_to_a_concept_and_every_concept_has_one():
    assert {source.name for source in sources()} == set(concepts()) - DERIVED
    items = [(source.table, source.itemid, source.scale) for source in sources()]
    assert len(items) == len(set(items))


def test_every_row_names_its_source():
    for file in ("concepts.csv", "interventions.csv", "comorbidities.csv", "rates.csv"):
        assert all(row["source"] for row in rows(file)), file


def test_the_reference_interval_is_that_of_the_sex():
    hemoglobin, creatinine = concepts()["Hemoglobin"], concepts()["Creatinine"]
    assert hemoglobin.interval("F") == (12.0, 16.0)
    assert hemoglobin.interval("M") == hemoglobin.interval(None) == (13.5, 17.5)
    assert creatinine.interval("F") < creatinine.interval("M")
    assert concepts()["Lactate"].interval("F") == concepts()["Lactate"].interval("M")


@pytest.mark.parametrize(
    ("name", "minimum", "maximum", "worst"),
    [
        ("Lactate", 1, 9, 9),
        ("Mean arterial pressure", 48, 90, 48),
        ("Potassium", 2.1, 5.2, 2.1),
        ("Potassium", 3.4, 7.0, 7.0),
        ("Arterial pH", 7.1, 7.6, 7.1),
    ],
)
def test_the_worst_value_is_the_more_harmful_one(name, minimum, maximum, worst):
    assert concepts()[name].worst(minimum, maximum) == worst


def test_organ_support_and_gases_outweigh_glucose_and_magnesium():
    weight = {name: concept.weight for name, concept in concepts().items()}
    routine = max(weight["Glucose"], weight["Magnesium"])
    for name in ("Lactate", "Arterial pH", "PaO2/FiO2 ratio", "Arterial PO2", "Arterial PCO2", "Albumin"):
        assert weight[name] > routine
    by_item = concept_table.interventions("drug", [(221906, "Norepinephrine", "Medications")])
    assert by_item[221906].weight == 100


def test_a_category_names_what_no_row_does_and_a_dash_leaves_out():
    dictionary = [
        (225152, "Heparin Sodium", "Medications"), (225975, "Heparin Sodium (Prophylaxis)", "Medications"),
        (999, "Newdrug (Brand)", "Medications"), (226372, "OR Cell Saver Intake", "Blood Products/Colloids"),
        (5, "Soup", "Food"),
    ]  # fmt: skip
    named = concept_table.interventions("drug", dictionary)
    assert {itemid: drug.name for itemid, drug in named.items()} == {
        225152: "Heparin infusion", 225975: "Heparin prophylaxis", 999: "Newdrug",
    }  # fmt: skip


OWN = {"name": "CRP", "unit": "mg/L", "low": "0", "high": "5"}


def test_a_concept_of_another_hospital_needs_four_columns():
    (concept,) = read_concepts([OWN], "own.csv").values()
    assert (concept.unit, concept.interval("F"), concept.decimals, concept.weight) == ("mg/L", (0, 5), 1, 50)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "own.csv, line 2: a concept needs a name."),
        ({"low": "low"}, "own.csv, line 2, column low: 'low' is no number."),
        ({"high": ""}, "own.csv, line 2, column high: '' is no number."),
        ({"minimum": "3"}, "own.csv, line 2: minimum <= low <= high <= maximum is needed, of 'CRP'."),
        ({"worse": "up"}, "own.csv, line 2, column worse: 'up' is none of low, high, both."),
    ],
)
def test_a_row_that_makes_no_sense_is_refused_with_file_line_and_column(changes, message):
    with pytest.raises(UserError) as refused:
        read_concepts([OWN | changes], "own.csv")
    assert str(refused.value) == message


def test_a_repeated_concept_and_an_empty_file_are_refused():
    with pytest.raises(UserError, match=r"^own\.csv, line 3: the concept 'CRP' occurs before"):
        read_concepts([OWN, OWN], "own.csv")
    with pytest.raises(UserError, match=r"^own\.csv has no concept"):
        read_concepts([], "own.csv")
