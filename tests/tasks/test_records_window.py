"""Nothing after prediction time may reach the text, and what does reach it is what the events say."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patientdx.refusal import Refusal
from patientdx.tasks.records import cohort, tables, text, window
from patientdx.tasks.records.synthetic import hospital

TIMES = {
    "icu/chartevents": ("charttime", "valuenum"),
    "icu/inputevents": ("starttime", "amount"),
    "icu/procedureevents": ("starttime", None),
    "icu/outputevents": ("charttime", "value"),
}


@pytest.fixture(scope="module")
def small(store: Path) -> Path:
    return hospital(store, stays=15, seed=5)


def records(roots: list[Path], spill: Path, *, every_item: bool = False, diagnoses: str = "none", hours: int = 48):
    needed = dict(cohort.NEEDED) | window.needed(diagnoses)
    found = tables.find(roots, needed)
    with tables.opened(found, needed, memory_limit="1GB", threads=2, spill=spill) as con:
        cohort.mortality(con, window_hours=hours, gap_hours=6, death="deathtime")
        return window.records(con, diagnoses=diagnoses, every_item=every_item)


def in_words(roots: list[Path], spill: Path, name: str) -> dict[int, str]:
    template = text.template(name)
    return {
        stay: template.write(record, 48)
        for stay, record in records(roots, spill, every_item=template.every_item).items()
    }


def prediction_times(root: Path) -> pd.Series:
    stays = pd.read_parquet(root / "icu/icustays.parquet")
    return stays.set_index("stay_id")["intime"] + pd.Timedelta(hours=48)


@pytest.mark.parametrize("name", ["intervals", "paper"])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_no_event_after_prediction_time_changes_the_text(small, tmp_path_factory, name, seed):
    rng = np.random.default_rng(seed)
    root = tmp_path_factory.mktemp("altered")
    (root / "icu").mkdir()
    for table, (time, value) in TIMES.items():
        frame = pd.read_parquet(small / f"{table}.parquet")
        limit = frame["stay_id"].map(prediction_times(small))
        later = frame[time] >= limit
        assert later.any()
        if "endtime" in frame:  # what goes on beyond prediction time: its end, length and amount are not known yet
            runs_on = (~later & (frame["endtime"] >= limit)).to_numpy()
            frame.loc[runs_on, "endtime"] += pd.Timedelta(hours=int(rng.integers(1, 50)))
            if value:
                frame.loc[runs_on, value] = rng.uniform(0, 500, runs_on.sum())
        after = frame[later.to_numpy()].copy()
        after[time] = limit[later] + pd.to_timedelta(rng.integers(0, 9000, len(after)), unit="min")
        after["itemid"] = rng.permutation(after["itemid"].to_numpy())
        if value:
            after[value] = rng.uniform(0, 300, len(after))
        kept = after[rng.random(len(after)) < rng.choice([0.0, 0.5, 1.0])]
        changed = pd.concat([frame[~later.to_numpy()], kept]).sample(frac=1, random_state=seed % 2**31)
        changed.to_parquet(root / f"{table}.parquet", index=False)
    before, after = (in_words(roots, root / "spill", name) for roots in ([small], [root, small]))
    assert before == after
    shutil.rmtree(root)


@pytest.mark.parametrize(("seconds", "seen"), [(-1, True), (0, False), (-48 * 3600, True), (-48 * 3600 - 1, False)])
def test_the_window_begins_with_the_stay_and_ends_before_prediction_time(small, tmp_path, seconds, seen):
    for table, (time, _) in TIMES.items():
        frame = pd.read_parquet(small / f"{table}.parquet")
        frame[time] = frame["stay_id"].map(prediction_times(small)) + pd.Timedelta(seconds=seconds)
        (tmp_path / "icu").mkdir(exist_ok=True)
        frame.to_parquet(tmp_path / f"{table}.parquet")
    for record in records([tmp_path, small], tmp_path / "spill").values():
        assert bool(record.readings) == seen
        assert not record.drugs or seen
        assert not record.procedures or seen
        assert (record.urine is None) or seen
        assert bool(record.outputs) == (record.urine is not None)


def test_readings_are_the_means_of_what_was_charted_in_the_window(small, tmp_path):
    chart = pd.read_parquet(small / "icu/chartevents.parquet")
    limit = chart["stay_id"].map(prediction_times(small))
    seen = chart[(chart["charttime"] < limit) & (chart["charttime"] >= limit - pd.Timedelta(hours=48))]
    mean = seen.groupby(["stay_id", "itemid"])["valuenum"].mean()
    found = records([small], tmp_path)
    assert len(found) > 10
    for stay, record in found.items():
        of = dict(record.readings)
        assert of["Heart rate"] == pytest.approx(mean[stay, 220045], rel=1e-9)
        if (stay, 223761) in mean:
            assert of["Temperature"] == pytest.approx((mean[stay, 223761] - 32) / 1.8, rel=1e-6)
        parts = [mean.get((stay, item)) for item in (220739, 223900, 223901)]
        assert ("Glasgow coma scale" in of) == (None not in parts)
        if None not in parts:
            assert of["Glasgow coma scale"] == pytest.approx(sum(parts), rel=1e-9)
        assert [name for name in text.items.readings() if name in of] == list(of)


def test_drugs_procedures_and_urine_are_those_of_the_window(small, tmp_path):
    found = records([small], tmp_path)
    limit = prediction_times(small)
    urine = pd.read_parquet(small / "icu/outputevents.parquet")
    urine = urine[urine["charttime"] < urine["stay_id"].map(limit)].groupby("stay_id")["value"].sum()
    given_ = pd.read_parquet(small / "icu/inputevents.parquet")
    given_ = given_[given_["starttime"] < given_["stay_id"].map(limit)]
    for stay, record in found.items():
        assert record.urine == (pytest.approx(urine[stay]) if stay in urine else None)
        mine = given_[given_["stay_id"] == stay]
        assert ("Norepinephrine" in dict(record.drugs)) == (221906 in set(mine["itemid"]))
        counts = [(mine["itemid"] == {"Norepinephrine": 221906, "Propofol": 222168}[name]).sum()
                  for name, _ in record.drugs if name in ("Norepinephrine", "Propofol")]  # fmt: skip
        assert counts == sorted(counts, reverse=True)
        ended = mine[(mine["itemid"] == 221906) & (mine["endtime"] < limit[stay])]["amount"]
        if len(ended):
            assert dict(record.drugs)["Norepinephrine"] == pytest.approx(ended.mean(), rel=1e-6)
    names = {name for record in found.values() for name, _ in record.drugs}
    assert "NaCl 0.9%" not in names
    assert {"Norepinephrine", "Insulin", "Furosemide"} <= names
    procedures = {name for record in found.values() for name in record.procedures}
    assert {"Invasive ventilation", "Arterial line"} <= procedures
    assert not {"20 Gauge", "Chest X-Ray"} & procedures


def test_what_cannot_be_a_reading_is_dropped(small, tmp_path):
    chart = pd.read_parquet(small / "icu/chartevents.parquet")
    spoiled = chart.copy()
    spoiled.loc[chart["itemid"] == 220277, "valuenum"] = [999_999_999.0, float("nan"), -5.0, 1e300] * (
        (chart["itemid"] == 220277).sum() // 4
    ) + [0.0] * ((chart["itemid"] == 220277).sum() % 4)
    (tmp_path / "icu").mkdir()
    spoiled.to_parquet(tmp_path / "icu/chartevents.parquet")
    for record in records([tmp_path, small], tmp_path / "spill").values():
        assert "Oxygen saturation" not in dict(record.readings)
        assert "Heart rate" in dict(record.readings)


def test_a_sum_of_parts_needs_every_part(small, tmp_path):
    chart = pd.read_parquet(small / "icu/chartevents.parquet")
    (tmp_path / "icu").mkdir()
    chart[chart["itemid"] != 223900].to_parquet(tmp_path / "icu/chartevents.parquet")
    assert any("Glasgow coma scale" in dict(record.readings) for record in records([small], tmp_path).values())
    for record in records([tmp_path, small], tmp_path / "spill").values():
        assert "Glasgow coma scale" not in dict(record.readings)


def test_neither_threads_nor_the_order_of_rows_change_a_digit(small, tmp_path):
    chart = pd.read_parquet(small / "icu/chartevents.parquet")
    (tmp_path / "icu").mkdir()
    chart.sample(frac=1, random_state=1).to_parquet(tmp_path / "icu/chartevents.parquet")
    assert records([small], tmp_path / "spill") == records([tmp_path, small], tmp_path / "spill")


def test_diagnoses_are_off_unless_asked_for(small, tmp_path):
    assert not any(record.diagnoses for record in records([small], tmp_path).values())
    coded = records([small], tmp_path, diagnoses="discharge")
    assert "Essential (primary) hypertension" in {name for record in coded.values() for name in record.diagnoses}
    with pytest.raises(Refusal, match=r"^task\.diagnoses='prior': choose none or discharge\.$"):
        window.needed("prior")
