import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patientdx.records.groups import age_band, groups


def test_words_of_a_clerk_become_coarse_groups():
    people = [
        (18, "F", "WHITE - RUSSIAN", "Medicare"),
        (44, "M", "BLACK/CAPE VERDEAN", "Medicaid"),
        (45, None, "hispanic/latino - cuban ", None),
        (64, "F", "ASIAN - KOREAN", ""),
        (65, "X", "SOMETHING NEW", " Other "),
        (79, "M", "UNABLE TO OBTAIN", "Private"),
        (80, "F", None, "Medicare"),
    ]
    assert groups(people) == {
        "age": ("18-44", "18-44", "45-64", "45-64", "65-79", "65-79", "80 or over"),
        "sex": ("female", "male", "unknown", "female", "unknown", "male", "female"),
        "race": ("White", "Black", "Hispanic", "Asian", "other", "unknown", "unknown"),
        "insurance": ("Medicare", "Medicaid", "unknown", "unknown", "Other", "Private", "Medicare"),
    }
    assert groups([]) == {"age": (), "sex": (), "race": (), "insurance": ()}


@given(st.integers(18, 120))
def test_every_adult_age_has_a_band(age):
    assert age_band(age) in ("18-44", "45-64", "65-79", "80 or over")
    assert sorted([age_band(age), age_band(age + 1)]) == [age_band(age), age_band(age + 1)]


def test_every_race_of_the_demo_is_listed():
    if "PATIENTDX_SHARED" not in os.environ:
        pytest.skip("PATIENTDX_SHARED names no folder with data/mimic-iv-demo")
    path = Path(os.environ["PATIENTDX_SHARED"]) / "data/mimic-iv-demo/hosp/admissions.csv.gz"
    races = sorted(set(pd.read_csv(path)["race"]))
    loaded = dict(zip(races, groups([(50, "F", race, None) for race in races])["race"], strict=True))
    assert [race for race, group in loaded.items() if group == "other"] == ["OTHER"]
