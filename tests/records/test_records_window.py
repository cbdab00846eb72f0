"""Nothing after prediction time may reach the text, and what does reach it is what the events say."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opened_stays import opened_stays

from patientdx.core.errors import UserError
from patientdx.records import concepts, features, outliers, templates, window
from patientdx.records.synthetic.hospital import hospital

TIMES = {
    "icu/chartevents": ("charttime", "valuenum"),
    "icu/inputevents": ("starttime", "amount"),
    "icu/procedureevents": ("starttime", None),
    "icu/outputevents": ("charttime", "value"),
}
WINDOW = pd.Timedelta(hours=48)


@pytest.fixture(scope="module")
def small(store: Path) -> Path:
    return hospital(store, stays=15, seed=5)


def records(roots: list[Path], spill: Path, *, diagnoses: str = "none", threads: int = 2, **chosen):
    with opened_stays(roots, spill, diagnoses=diagnoses, threads=threads) as con:
        return window.records(con, diagnoses=diagnoses, **chosen)


def intimes(root: Path) -> pd.Series:
    return pd.read_parquet(root / "icu/icustays.parquet").set_index("stay_id")["intime"]


def everything(roots: list[Path], spill: Path) -> dict:
    """All that a model could be shown of the stays: every template's text, cut and uncut, the features, the limits."""
    with opened_stays(roots, spill, diagnoses="prior", revision=2) as con:
        revised = window.records(con, diagnoses="prior", revision=2)
        belonging = window.records(con, diagnoses="prior", courses=True)
        raw = window.records(con, diagnoses="prior", every_item=True)
        limits = [outliers.limits(con, every_item=every) for every in (False, True)]
        cut = window.records(con, courses=True, limits=limits[0])
    loaded = {"limits": limits, "cut": cut, "records": (belonging, raw)}
    for template in templates.TEMPLATES:
        of = raw if template.every_item else revised if template.revision > 1 else belonging
        for chosen in (None, {"drugs": 20, "person": None, "readings": 400, "diagnoses": 10}):
            write = templates.template(template.id, chosen).write
            loaded[template.id, chosen is None] = {stay: write(record, 48) for stay, record in of.items()}
    for revision, of in ((1, belonging), (2, revised)):
        _, made = features.table(of.items(), revision=revision)
        loaded |= {f"names {revision}": made.names, f"values {revision}": made.values.tobytes()}
    return loaded


def hashed(loaded: dict) -> dict:
    return {key: hashlib.sha256(repr(value).encode()).hexdigest()[:8] for key, value in loaded.items()}


@pytest.fixture(scope="module")
def shown(small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return hashed(everything([small], tmp_path_factory.mktemp("spill")))


def altered_events(frame: pd.DataFrame, time: str, value: str | None, start: pd.Series, rng: np.random.Generator):
    """The events of the window as they are, shuffled, and those before and after it removed, altered and added."""
    start = frame["stay_id"].map(start)
    limit = start + WINDOW
    later, earlier = (frame[time] >= limit).to_numpy(), (frame[time] < start).to_numpy()
    if "endtime" in frame:  # what began before the window and goes on in it is seen
        earlier = earlier & (frame["endtime"] <= start).to_numpy()
    seen = frame[~later & ~earlier].copy()
    if "endtime" in frame:  # what goes on beyond prediction time: its end, length and amount are not known yet
        runs_on = (seen["endtime"] >= limit[seen.index]).to_numpy()
        minutes = rng.integers(0, 3000, runs_on.sum()) * (rng.random(runs_on.sum()) > 0.2)
        seen.loc[runs_on, "endtime"] = limit[seen.index][runs_on] + pd.to_timedelta(minutes, unit="min")
        if value:
            seen.loc[runs_on, value] = rng.uniform(0, 500, runs_on.sum())
    parts = [seen]
    for outside, edge, way in ((later, limit, 1), (np.ones(len(frame), bool), limit, 1), (~later, start, -1)):
        rows = frame[outside & (rng.random(len(frame)) < rng.choice([0.0, 0.1, 1.0]))].copy()
        minutes = rng.integers(0 if way > 0 else 1, 9000, len(rows)) * (rng.random(len(rows)) > 0.2)
        minutes = minutes if way > 0 else np.maximum(minutes, 1)
        rows[time] = edge[rows.index] + way * pd.to_timedelta(minutes, unit="min")
        if "endtime" in rows and way < 0:  # over when the window begins
            rows["endtime"] = rows[time]
        rows["itemid"] = rng.permutation(rows["itemid"].to_list())
        if value:
            rows[value] = rng.uniform(0, 300, len(rows))
        parts.append(rows)
    return pd.concat(parts).sample(frac=1, random_state=int(rng.integers(2**31)))


def altered_codes(codes: pd.DataFrame, admissions: pd.DataFrame, root: Path, rng: np.random.Generator):
    """Codes of admissions that were over before any ICU stay of the patient began stay; all others are made anew."""
    first = pd.read_parquet(root / "icu/icustays.parquet").groupby("subject_id")["intime"].max()
    over = admissions.set_index("hadm_id")
    known = over["dischtime"] <= over["subject_id"].map(first)
    later = codes[~codes["hadm_id"].map(known).to_numpy(bool)].copy()
    later["icd_code"] = rng.permutation(later["icd_code"].to_list())
    kept = later[rng.random(len(later)) < rng.choice([0.0, 0.5, 1.0])]
    return pd.concat([codes[codes["hadm_id"].map(known).to_numpy(bool)], kept, kept])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_no_event_outside_the_window_changes_text_or_features(small, shown, tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    root = tmp_path_factory.mktemp("altered")
    for folder in ("icu", "hosp"):
        (root / folder).mkdir()
    for table, (time, value) in TIMES.items():
        frame = pd.read_parquet(small / f"{table}.parquet")
        altered_events(frame, time, value, intimes(small), rng).to_parquet(root / f"{table}.parquet", index=False)
    admissions = pd.read_parquet(small / "hosp/admissions.parquet")
    codes = altered_codes(pd.read_parquet(small / "hosp/diagnoses_icd.parquet"), admissions, small, rng)
    codes.to_parquet(root / "hosp/diagnoses_icd.parquet", index=False)
    assert hashed(everything([root, small], root / "spill")) == shown
    shutil.rmtree(root)


def test_what_the_property_compares_is_not_empty(small, tmp_path):
    loaded = everything([small], tmp_path)
    belonging, raw = loaded["records"]
    assert any(record.diagnoses for record in belonging.values())
    assert all(record.courses for record in belonging.values())
    assert any(record.drugs for record in raw.values())
    assert {name for name, default in (key for key in loaded if isinstance(key, tuple)) if default} == {
        template.id for template in templates.TEMPLATES
    }


def test_an_event_inside_the_window_changes_every_text_and_the_features(small, shown, tmp_path):
    chart = pd.read_parquet(small / "icu/chartevents.parquet")
    start = chart["stay_id"].map(intimes(small))
    inside = (chart["charttime"] >= start) & (chart["charttime"] < start + WINDOW) & (chart["itemid"] == 220045)
    chart.loc[inside, "valuenum"] += 30
    (tmp_path / "icu").mkdir()
    chart.to_parquet(tmp_path / "icu/chartevents.parquet")
    loaded = hashed(everything([tmp_path, small], tmp_path / "spill"))
    same = [key for key in shown if loaded[key] == shown[key]]
    assert same == ["names 1", "names 2"]


@pytest.mark.parametrize(("seconds", "seen"), [(-1, True), (0, False), (-48 * 3600, True), (-48 * 3600 - 1, False)])
def test_the_window_begins_with_the_stay_and_ends_before_prediction_time(small, tmp_path, seconds, seen):
    for table, (time, _) in TIMES.items():
        frame = pd.read_parquet(small / f"{table}.parquet")
        frame[time] = frame["stay_id"].map(intimes(small)) + WINDOW + pd.Timedelta(seconds=seconds)
        (tmp_path / "icu").mkdir(exist_ok=True)
        frame.to_parquet(tmp_path / f"{table}.parquet")
    for record in records([tmp_path, small], tmp_path / "spill", courses=True).values():
        assert bool(record.readings) == seen
        assert bool(record.courses) == seen
        assert not record.drugs or seen
        assert not record.procedures or seen
        assert (record.urine is None) or seen
        assert bool(record.outputs) == (record.urine is not None)


def test_readings_are_the_means_of_what_was_charted_in_the_window(small, tmp_path):
    chart = pd.read_parquet(small / "icu/chartevents.parquet")
    start = chart["stay_id"].map(intimes(small))
    seen = chart[(chart["charttime"] < start + WINDOW) & (chart["charttime"] >= start)]
    mean = seen.groupby(["stay_id", "itemid"])["valuenum"].mean()
    loaded = records([small], tmp_path)
    assert len(loaded) > 10
    assert list(loaded) == sorted(loaded)
    for stay, record in loaded.items():
        of = dict(record.readings)
        assert of["Heart rate"] == pytest.approx(mean[stay, 220045], rel=1e-9)
        if (stay, 223761) in mean:
            assert of["Temperature"] == pytest.approx((mean[stay, 223761] - 32) / 1.8, rel=1e-6)
        parts = [mean.get((stay, item)) for item in (220739, 223900, 223901)]
        assert ("Glasgow coma scale" in of) == (None not in parts)
        if None not in parts:
            assert of["Glasgow coma scale"] == pytest.approx(sum(parts), rel=1e-9)
        assert [name for name in concepts.readings() if name in of] == list(of)


def test_drugs_procedures_and_urine_are_those_of_the_window(small, tmp_path):
    loaded = records([small], tmp_path, courses=True)
    start = intimes(small)
    limit = start + WINDOW
    urine = pd.read_parquet(small / "icu/outputevents.parquet")
    urine = urine[(urine["charttime"] < urine["stay_id"].map(limit)) & urine["itemid"].isin(concepts.urine())]
    urine = (urine["value"] * urine["itemid"].map(concepts.urine())).groupby(urine["stay_id"]).sum()
    given_ = pd.read_parquet(small / "icu/inputevents.parquet")
    given_ = given_[given_["starttime"] < given_["stay_id"].map(limit)]
    for stay, record in loaded.items():
        assert record.urine == (pytest.approx(urine[stay]) if stay in urine else None)
        mine = given_[given_["stay_id"] == stay]
        assert ("Norepinephrine" in dict(record.drugs)) == (221906 in set(mine["itemid"]))
        counts = [times.count for times in record.drug_times]
        assert counts == sorted(counts, reverse=True)
        assert len(record.procedure_times) == len(record.procedures)
        norepinephrine = mine[mine["itemid"] == 221906]
        if len(norepinephrine):
            location = list(dict(record.drugs)).index("Norepinephrine")
            hours = (norepinephrine["starttime"] - start[stay]) / pd.Timedelta(hours=1)
            assert record.drug_times[location] == (len(hours), pytest.approx(hours.min()), pytest.approx(hours.max()))
        ended = norepinephrine[norepinephrine["endtime"] < limit[stay]]["amount"]
        if len(ended):
            # Amounts are summed to four decimals.
            assert dict(record.drugs)["Norepinephrine"] == pytest.approx(ended.mean(), abs=1e-4)
    names = {name for record in loaded.values() for name, _ in record.drugs}
    assert "NaCl 0.9%" not in names
    assert {"Norepinephrine", "Insulin", "Furosemide"} <= names
    procedures = {name for record in loaded.values() for name in record.procedures}
    assert {"Invasive ventilation", "Arterial line"} <= procedures
    assert not {"20 Gauge", "Chest X-Ray"} & procedures


@pytest.mark.parametrize("table", ["inputevents", "procedureevents"])
def test_an_order_that_was_rewritten_was_never_given(small, tmp_path, table):
    frame = pd.read_parquet(small / f"icu/{table}.parquet")
    replaced = frame.index % 4 > 0
    changed = {
        "marked": frame.assign(statusdescription=np.where(replaced, "Rewritten", "FinishedRunning")),
        "removed": frame[~replaced],
    }
    texts = {}
    for name, rows in changed.items():
        root = tmp_path / name
        (root / "icu").mkdir(parents=True)
        rows.to_parquet(root / f"icu/{table}.parquet")
        texts[name] = records([root, small], tmp_path, courses=True)
    assert texts["marked"] == texts["removed"] != records([small], tmp_path, courses=True)


def test_what_cannot_be_a_reading_is_dropped(small, tmp_path):
    chart = pd.read_parquet(small / "icu/chartevents.parquet")
    spoiled = chart.copy()
    spoiled.loc[chart["itemid"] == 220277, "valuenum"] = [999_999_999.0, float("nan"), -5.0, 1e300] * (
        (chart["itemid"] == 220277).sum() // 4
    ) + [0.0] * ((chart["itemid"] == 220277).sum() % 4)
    (tmp_path / "icu").mkdir()
    spoiled.to_parquet(tmp_path / "icu/chartevents.parquet")
    for record in records([tmp_path, small], tmp_path / "spill", courses=True).values():
        assert "Oxygen saturation" not in dict(record.readings)
        assert "Heart rate" in dict(record.readings)


def test_a_sum_of_parts_needs_every_part(small, tmp_path):
    chart = pd.read_parquet(small / "icu/chartevents.parquet")
    (tmp_path / "icu").mkdir()
    chart[chart["itemid"] != 223900].to_parquet(tmp_path / "icu/chartevents.parquet")
    assert any("Glasgow coma scale" in dict(record.readings) for record in records([small], tmp_path).values())
    for record in records([tmp_path, small], tmp_path / "spill", courses=True).values():
        assert "Glasgow coma scale" not in dict(record.readings)


@pytest.mark.parametrize("every_item", [False, True])
def test_neither_threads_nor_batches_nor_the_order_of_rows_change_a_digit(small, tmp_path, every_item):
    (tmp_path / "icu").mkdir()
    for table in TIMES:
        frame = pd.read_parquet(small / f"{table}.parquet")
        frame.sample(frac=1, random_state=1).to_parquet(tmp_path / f"{table}.parquet")
    chosen = {"diagnoses": "prior", "every_item": every_item, "courses": True}
    example = records([small], tmp_path / "spill", threads=1, **chosen)
    assert example == records([tmp_path, small], tmp_path / "spill", threads=4, **chosen)
    assert example == records([tmp_path, small], tmp_path / "spill", batch=4, **chosen)


def test_a_connection_serves_more_than_one_set_of_records(small, tmp_path):
    with opened_stays([small], tmp_path) as con:
        first = window.records(con, courses=True)
        assert window.records(con, every_item=True) == records([small], tmp_path, every_item=True)
        assert window.records(con, courses=True) == first


def test_two_streams_over_one_connection_do_not_disturb_each_other(small, tmp_path):
    with opened_stays([small], tmp_path) as con:
        two = zip(window.stream(con, courses=True, batch=3), window.stream(con, every_item=True, batch=3), strict=True)
        mixed = list(two)
    assert dict(belonging for belonging, _ in mixed) == records([small], tmp_path, courses=True)
    assert dict(raw for _, raw in mixed) == records([small], tmp_path, every_item=True)


def test_needed_tables_are_united_column_by_column():
    beside = {"hosp/admissions": {"hadm_id": "BIGINT", "race": "VARCHAR"}, "hosp/services": {"hadm_id": "BIGINT"}}
    united = window.needed("prior", beside)
    assert united["hosp/admissions"] == {
        "hadm_id": "BIGINT", "race": "VARCHAR", "subject_id": "BIGINT", "dischtime": "TIMESTAMP",
    }  # fmt: skip
    assert united["hosp/services"] == {"hadm_id": "BIGINT"}
    assert {"hosp/diagnoses_icd", "hosp/d_icd_diagnoses", "icu/chartevents"} <= united.keys()
    assert beside["hosp/admissions"] == {"hadm_id": "BIGINT", "race": "VARCHAR"}
    assert "hosp/diagnoses_icd" not in window.needed("none")
    assert "hosp/admissions" not in window.needed("discharge")


def test_diagnoses_are_off_unless_asked_for(small, tmp_path):
    assert not any(record.diagnoses for record in records([small], tmp_path).values())
    coded = records([small], tmp_path, diagnoses="discharge")
    assert "Essential (primary) hypertension" in {name for record in coded.values() for name in record.diagnoses}
    with pytest.raises(UserError, match=r"^task\.diagnoses='earlier': choose none, prior or discharge\.$"):
        window.needed("earlier")
