"""Courses, earlier diagnoses and outlier limits, against hand-made stays and slow, plain counts."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opened_stays import opened_stays

from patientdx.core.errors import UserError
from patientdx.records import concepts, outliers, window
from patientdx.records.synthetic.hospital import hospital

ADMITTED = pd.Timestamp("2150-03-01 10:00")
EYE, VERBAL, MOTOR = 220739, 223900, 223901


@pytest.fixture(scope="module")
def small(store: Path) -> Path:
    return hospital(store, stays=15, seed=5)


@pytest.fixture(scope="module")
def chart(small: Path) -> pd.DataFrame:
    """What was charted in the windows of the small hospital, with hours since intime."""
    frame = pd.read_parquet(small / "icu/chartevents.parquet")
    start = frame["stay_id"].map(pd.read_parquet(small / "icu/icustays.parquet").set_index("stay_id")["intime"])
    frame["hours"] = (frame["charttime"] - start) / pd.Timedelta(hours=1)
    return frame[(frame["hours"] >= 0) & (frame["hours"] < 48)]


def write(root: Path, table: str, columns: str, rows: list[tuple]) -> None:
    path = root / f"{table}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=columns.split()).to_parquet(path)


def one_stay(root: Path, rows: list[tuple[float, int, float]]) -> None:
    """A hospital with one stay, number 30; rows are (hours since intime, itemid, value)."""
    write(root, "hosp/patients", "subject_id gender anchor_age anchor_year dod", [(1, "F", 60, 2150, None)])
    write(root, "hosp/admissions", "subject_id hadm_id race insurance dischtime",
          [(1, 20, "WHITE", "Other", ADMITTED + pd.Timedelta(days=9))])  # fmt: skip
    write(root, "icu/icustays", "subject_id hadm_id stay_id intime outtime",
          [(1, 20, 30, ADMITTED, ADMITTED + pd.Timedelta(days=8))])  # fmt: skip
    charted = [(30, ADMITTED + pd.Timedelta(hours=hours), item, value) for hours, item, value in rows]
    write(root, "icu/chartevents", "stay_id charttime itemid valuenum", charted)


def courses(roots: list[Path], spill: Path, **chosen) -> dict[int, dict[str, window.Course]]:
    with opened_stays(roots, spill) as con:
        loaded = window.records(con, courses=True, **chosen)
    return {
        stay: dict(zip([name for name, _ in record.readings], record.courses, strict=True))
        for stay, record in loaded.items()
    }


def test_courses_are_those_of_what_was_charted_in_the_window(small, chart, tmp_path):
    loaded = courses([small], tmp_path)
    compared, several = 0, Counter(item.name for item in concepts.items())
    for stay, of in loaded.items():
        for item in concepts.items():
            rows = chart[(chart["stay_id"] == stay) & (chart["itemid"] == item.itemid)].sort_values("hours")
            if item.parts > 1 or rows.empty or several[item.name] > 1:
                continue
            values = rows["valuenum"].to_numpy() * item.scale + item.offset
            expected = (values[0], values[-1], values.min(), values.max(), len(values))
            assert of[item.name][:5] == pytest.approx(expected, rel=1e-12)
            assert of[item.name][5:] == pytest.approx((rows["hours"].iloc[0], rows["hours"].iloc[-1]), rel=1e-12)
            compared += 1
    assert compared > 200


def test_a_sum_holds_each_part_until_it_is_charted_again(small, chart, tmp_path):
    loaded = courses([small], tmp_path)
    for stay, of in loaded.items():
        rows = chart[(chart["stay_id"] == stay) & chart["itemid"].isin((EYE, VERBAL, MOTOR))]
        parts, sums = {}, []
        for hours, at in rows.groupby("hours"):
            parts |= dict(zip(at["itemid"], at["valuenum"], strict=True))
            if len(parts) == 3:
                sums.append((sum(parts.values()), hours))
        if not sums:
            assert "Glasgow coma scale" not in of
            continue
        values, hours = [value for value, _ in sums], [hour for _, hour in sums]
        assert of["Glasgow coma scale"] == pytest.approx(
            (values[0], values[-1], min(values), max(values), len(values), hours[0], hours[-1]), rel=1e-12
        )


def test_a_sum_charted_part_by_part(small, tmp_path):
    one_stay(
        tmp_path, [(1, EYE, 4), (2, VERBAL, 5), (3, MOTOR, 6), (4, VERBAL, 1), (4, EYE, 1), (6, EYE, 2), (48, EYE, 4)]
    )
    loaded = courses([tmp_path, small], tmp_path / "spill")[30]
    assert loaded == {"Glasgow coma scale": (15, 9, 8, 15, 3, 3, 6)}


@pytest.mark.parametrize("turned", [False, True])
def test_of_values_at_one_time_the_first_item_of_the_dictionary_counts_then_the_lower_value(small, tmp_path, turned):
    # 220052 (arterial line) stands before 220181 (cuff); both are mean arterial pressure.
    rows = [(1, 220181, 50), (1, 220052, 60), (1, 220052, 62), (5, 220181, 90), (5, 220052, 81), (5, 220052, 80)]
    one_stay(tmp_path, rows[::-1] if turned else rows)
    loaded = courses([tmp_path, small], tmp_path / "spill")[30]
    assert loaded == {"Mean arterial pressure": (60, 80, 50, 90, 6, 1, 5)}


def slow(rows: list[tuple[float, int, float]]) -> dict[str, tuple]:
    """Mean and course of each reading, counted one value at a time."""
    location = {item.itemid: number for number, item in enumerate(concepts.items())}
    loaded = {}
    for name, item in concepts.readings().items():
        of = {one.itemid: one for one in concepts.items() if one.name == name}
        read = [
            (hour, location[number], value * of[number].scale + of[number].offset, of[number].part)
            for hour, number, value in rows
            if number in of and 0 <= hour < 48
        ]
        ranges = {one.part: (one.minimum, one.maximum) for one in of.values()}
        read = [row for row in read if ranges[row[3]][0] <= row[2] <= ranges[row[3]][1]]
        parts = {part: [row[2] for row in read if row[3] == part] for part in range(item.parts)}
        if not all(parts.values()):
            continue
        mean = sum(sum(values) / len(values) for values in parts.values())
        if item.parts == 1:
            first = min(read)[2]
            last = min(read, key=lambda row: (-row[0], row[1], row[2]))[2]
            texts = [(row[2], row[0]) for row in read]
        else:
            held, texts = {}, []
            for hour in sorted({row[0] for row in read}):
                at = [row for row in read if row[0] == hour]
                held |= {part: min(row[1:3] for row in at if row[3] == part)[1] for part in {row[3] for row in at}}
                if len(held) == item.parts:
                    texts.append((sum(held.values()), hour))
            first, last = texts[0][0], texts[-1][0]
        values, hours = [value for value, _ in texts], [hour for _, hour in texts]
        loaded[name] = (mean, first, last, min(values), max(values), len(values), min(hours), max(hours))
    return loaded


CHARTED = st.tuples(
    st.integers(-3, 51),
    st.sampled_from((220045, 220052, 220181, 223761, 223762, EYE, VERBAL, MOTOR)),
    st.sampled_from((-1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 36.7, 60.5, 98.6, 120.0, 1e7)),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(CHARTED, min_size=1, max_size=40))
def test_any_chart_is_read_as_a_slow_count_reads_it(small, tmp_path_factory, rows):
    root = tmp_path_factory.mktemp("one")
    one_stay(root, rows)
    with opened_stays([root, small], root / "spill") as con:
        record = window.records(con, courses=True)[30]
    loaded = {name: (mean, *course) for (name, mean), course in zip(record.readings, record.courses, strict=True)}
    expected = slow(rows)
    assert loaded.keys() == expected.keys()
    for name, origins_of in expected.items():
        assert loaded[name] == pytest.approx(origins_of, rel=1e-4)  # means are of values to four decimals


def test_courses_are_read_only_when_asked_for(small, tmp_path):
    with opened_stays([small], tmp_path) as con:
        loaded = window.records(con)
    assert not any(record.courses or record.drug_times or record.procedure_times for record in loaded.values())


def test_prior_diagnoses_are_those_of_admissions_that_were_over(small, tmp_path):
    one_stay(tmp_path, [(1, 220045, 80)])
    days = {10: -400, 11: -30, 12: 0, 13: 0.001, 20: 9, 21: 60}  # when each admission ends; 20 is this one
    ends = [(1, hadm, ADMITTED + pd.Timedelta(days=end)) for hadm, end in days.items()]
    ends += [(2, 90, ADMITTED - pd.Timedelta(days=30)), (1, 22, pd.NaT)]  # another patient's; one without an end
    rows = [(subject, hadm, "WHITE", "Other", end) for subject, hadm, end in ends]
    write(tmp_path, "hosp/admissions", "subject_id hadm_id race insurance dischtime", rows)
    codes = [(10, 1, "A1"), (10, 2, "A2"), (11, 2, "B2"), (11, 1, "A2"), (11, 3, "X9"), (12, 1, "C1 "), (13, 1, "D1"),
             (20, 1, "E1"), (21, 1, "F1"), (22, 1, "G1"), (90, 1, "H1")]  # fmt: skip
    write(tmp_path, "hosp/diagnoses_icd", "hadm_id seq_num icd_code icd_version", [(*row, 10) for row in codes])
    titles = [(code, 10, f"Title {code}") for code in ("A1", "A2", "B2", "C1", "D1", "E1", "F1", "G1", "H1")]
    write(tmp_path, "hosp/d_icd_diagnoses", "icd_code icd_version long_title", [*titles, ("A1", 9, "Of ICD-9")])

    def diagnoses(which: str) -> tuple[str, ...]:
        with opened_stays([tmp_path, small], tmp_path / "spill", diagnoses=which) as con:
            return window.records(con, diagnoses=which)[30].diagnoses

    assert diagnoses("prior") == ("Title C1", "Title A2", "Title B2", "Title A1")
    assert diagnoses("discharge") == ("Title E1",)
    assert diagnoses("none") == ()


@pytest.mark.parametrize("percentile", [98, 50, 100])
def test_limits_cut_what_lies_above_the_percentile_of_each_item(small, chart, tmp_path, percentile):
    with opened_stays([small], tmp_path) as con:
        loaded = outliers.limits(con, percentile=percentile)
        everyone = {row[0] for row in con.execute("SELECT stay_id FROM cohort").fetchall()}
        kept = window.records(con, courses=True, limits=loaded)
    chart = chart[chart["stay_id"].isin(everyone)]
    assert len(loaded) > 20
    for item, limit in loaded.items():
        values = chart[chart["itemid"] == item]["valuenum"]
        assert set(values[values <= limit]) == set(values[values <= np.percentile(values, percentile)])
    for stay, record in kept.items():
        rates = chart[(chart["stay_id"] == stay) & (chart["itemid"] == 220045)]["valuenum"]
        rates = rates[rates <= loaded[220045]]
        of = dict(zip([name for name, _ in record.readings], record.courses, strict=True))
        assert ("Heart rate" in of) == bool(len(rates))
        if len(rates):
            assert (of["Heart rate"].maximum, of["Heart rate"].count) == (rates.max(), len(rates))
            assert dict(record.readings)["Heart rate"] == pytest.approx(rates.mean(), rel=1e-12)


def test_limits_fitted_on_train_do_not_see_the_other_stays(small, tmp_path):
    frame = pd.read_parquet(small / "icu/chartevents.parquet")
    with opened_stays([small], tmp_path) as con:
        stays = [row[0] for row in con.execute("SELECT stay_id FROM cohort ORDER BY stay_id").fetchall()]
        train, full = outliers.limits(con, stays=stays[:8]), outliers.limits(con)
    frame.loc[frame["stay_id"].isin(stays[8:]) & (frame["itemid"] == 220045), "valuenum"] = 290.0
    (tmp_path / "icu").mkdir()
    frame.to_parquet(tmp_path / "icu/chartevents.parquet")
    with opened_stays([tmp_path, small], tmp_path / "spill") as con:
        assert outliers.limits(con, stays=stays[:8]) == train
        assert outliers.limits(con)[220045] == 290.0 > full[220045]
        assert outliers.limits(con, stays=[*stays[:8], 5]) == train  # a stay outside the cohort has no say


def test_impossible_values_have_no_say_in_the_limits(small, tmp_path):
    one_stay(
        tmp_path, [(1, 220045, 80), (2, 220045, 90), (3, 220045, 9999), (4, 220045, float("nan")), (50, 220045, 200)]
    )
    with opened_stays([tmp_path, small], tmp_path / "spill") as con:
        assert outliers.limits(con, percentile=100) == {220045: 90.0}


def test_limits_that_make_no_sense_are_refused(small, tmp_path):
    with opened_stays([small], tmp_path) as con:
        for wrong in (0, 101, 97.5, True):
            with pytest.raises(UserError, match=rf"^percentile={wrong}: a whole number from 1 to 100 is needed\.$"):
                outliers.limits(con, percentile=wrong)
        with pytest.raises(UserError, match=r"^Outlier limits need at least one stay of the cohort to be fitted on\.$"):
            outliers.limits(con, stays=[5])
