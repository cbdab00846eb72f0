import numpy as np
import pytest

from patientdx.core.errors import UserError
from patientdx.records import concepts, features
from patientdx.records.window import Course, Record, Times

FULL = Record(
    age=61,
    gender="F",
    readings=(("Heart rate", 90.5), ("Lactate", 2.5)),
    courses=(Course(80, 100, 75, 110, 12, 0.5, 47.0), Course(2.5, 2.5, 2.5, 2.5, 1, 3.0, 3.0)),
    drugs=(("Insulin", 4.0), ("Heparin", None)),
    drug_times=(Times(3, 1.0, 9.0), Times(1, 2.0, 2.0)),
    procedures=("Arterial line",),
    procedure_times=(Times(1, 0.5, 0.5),),
    urine=800.0,
    diagnoses=("Essential hypertension",),
)
BARE = Record(age=45, gender=None)


def table(records, **rest):
    """The features of records by stay."""
    stays, made = features.table(iter(records.items()), **rest)
    assert stays == list(records)
    return made


def row(made, location: int) -> dict[str, float]:
    return dict(zip(made.names, made.values[location], strict=True))


def test_a_row_is_what_the_record_says():
    made = table({7: FULL, 3: BARE})
    assert made.values.dtype == np.float64
    assert made.values.shape == (2, len(made.names))
    assert len(set(made.names)) == len(made.names)
    full, bare = row(made, 0), row(made, 1)
    assert {name: full[name] for name in ("age", "male", "urine", "drugs", "procedures")} == {
        "age": 61, "male": 0, "urine": 800, "drugs": 2, "procedures": 1,
    }  # fmt: skip
    assert [full[f"Heart rate {statistic}"] for statistic in features.STATISTICS] == [90.5, 80, 100, 75, 110, 12]
    assert [full[f"Lactate {statistic}"] for statistic in features.STATISTICS] == [2.5, 2.5, 2.5, 2.5, 2.5, 1]
    named = ("drug Insulin", "drug Heparin", "procedure Arterial line", "diagnosis Essential hypertension")
    assert [full[name] for name in named] == [1, 1, 1, 1]
    assert [bare[name] for name in named] == [0, 0, 0, 0]
    assert bare["age"] == 45
    assert all(np.isnan(bare[name]) for name in ("male", "urine", "Heart rate mean", "Lactate last"))
    assert bare["Heart rate count"] == bare["drugs"] == 0


def test_every_reading_has_columns_whether_it_was_read_or_not():
    made = table({3: BARE})
    assert [name for name in made.names if name.endswith(" mean")] == [f"{name} mean" for name in concepts.readings()]
    assert made.names == table({3: BARE, 4: BARE}).names


def test_common_names_are_counted_on_the_stays_fitted_on_alone():
    rare = Record(age=50, gender="M", drugs=(("Rare", 1.0),), drug_times=(Times(1, 1.0, 1.0),))
    stays = dict.fromkeys(range(1, 10), FULL) | dict.fromkeys(range(10, 30), rare)
    drugs = [name for name in table(stays, fit_on=range(1, 11), common=0.2).names if "drug " in name]
    assert drugs == ["drug Heparin", "drug Insulin"]
    assert "drug Rare" in table(stays, common=0.2).names
    assert "drug Rare" in table(stays, fit_on=range(1, 11), common=0.1).names  # just the share asked for
    assert "drug Insulin" not in table(stays, fit_on=range(10, 40)).names


def test_rows_are_in_the_order_of_the_records_and_columns_do_not_depend_on_it():
    example, other = table({1: FULL, 2: BARE}), table({2: BARE, 1: FULL})
    assert example.names == other.names
    assert np.array_equal(example.values, other.values[::-1], equal_nan=True)


@pytest.mark.parametrize(
    "record",
    [
        Record(age=50, gender="M", readings=(("Heart rate", 80.0),)),
        Record(age=50, gender="M", readings=(("Heart Rate", 80.0),), courses=(Course(80, 80, 80, 80, 1, 1, 1),)),
    ],
)
def test_records_made_otherwise_are_refused(record):
    with pytest.raises(
        UserError,
        match=r"^Features need records with the readings of items\.csv and their courses: courses=True alone\.$",
    ):
        table({1: record})


@pytest.mark.parametrize(("records", "fit_on"), [({}, None), ({1: FULL}, [2])])
def test_nothing_to_fit_on_is_refused(records, fit_on):
    with pytest.raises(
        UserError, match=r"^Features need at least one record among the stays that they are fitted on\.$"
    ):
        table(records, fit_on=fit_on)
