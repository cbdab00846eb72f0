"""The labels of the five outcomes equal an independent count in pandas, on generated tables and on the open demo."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from meds_hospital import write_meds
from tasks_by_yaml import outcome

from patientdx.core.errors import UserError
from patientdx.records import cohort, tables
from patientdx.records.cohort import Outcome
from patientdx.records.source import SourceConfig, opened_source

TIMES = ["intime", "outtime", "admittime", "dischtime", "deathtime", "dod"]
HOUR = pd.Timedelta(hours=1)


@pytest.fixture(scope="module")
def demo() -> Path:
    if "PATIENTDX_SHARED" not in os.environ:
        pytest.skip("PATIENTDX_SHARED names no folder with data/mimic-iv-demo")
    return Path(os.environ["PATIENTDX_SHARED"]) / "data/mimic-iv-demo"


@pytest.fixture(params=["ward_csv", "demo"])
def hospital(request) -> Path:
    return request.getfixturevalue(request.param)


def read(root: Path, name: str) -> pd.DataFrame:
    table = pd.read_csv(root / f"{name}.csv.gz", dtype={"icd_code": str}, low_memory=False)
    for column in set(TIMES) & set(table.columns):
        table[column] = pd.to_datetime(table[column])
    return table


def chosen(root: Path, spill: Path, rule: Outcome, **keys) -> cohort.Cohort:
    needed = {**cohort.NEEDED, **rule.needed}
    loaded = tables.find([root], needed)
    with tables.opened(loaded, needed, memory_limit="1GB", threads=1, spill=spill) as con:
        return cohort.select(con, rule, **keys)


def stays(root: Path, window_hours: int, gap_hours: int) -> pd.DataFrame:
    """Adult stays of at least window and gap hours whose patients are alive at their end, with all their columns."""
    patients, admissions = read(root, "hosp/patients"), read(root, "hosp/admissions").drop(columns="subject_id")
    full = read(root, "icu/icustays").merge(patients, on="subject_id").merge(admissions, on="hadm_id")
    end = full["intime"] + (window_hours + gap_hours) * HOUR
    adult = full["anchor_age"] + full["intime"].dt.year - full["anchor_year"] >= 18
    adult &= ~full["first_careunit"].isin(["Neuro Intermediate", "Neuro Stepdown"])
    return full[adult & (full["outtime"] >= end) & ~(full["deathtime"] < end)].sort_values("stay_id")


def triples(kept: pd.DataFrame, label: pd.Series) -> tuple[tuple[int, int, int], ...]:
    kept = kept.assign(label=label.astype(int))
    return tuple(kept[["stay_id", "subject_id", "label"]].itertuples(index=False, name=None))


@pytest.mark.parametrize("window_hours", [24, 48])
def test_death_in_hospital(hospital, tmp_path, window_hours):
    kept = stays(hospital, window_hours, 6)
    result = chosen(hospital, tmp_path, outcome("mortality_hospital"), window_hours=window_hours, gap_hours=6)
    assert result.stays == triples(kept, (kept["hospital_expire_flag"] == 1) | kept["deathtime"].notna())
    icu = chosen(hospital, tmp_path, outcome("mortality"), window_hours=window_hours, gap_hours=6)
    assert {row[0] for row in icu.stays if row[2]} <= {row[0] for row in result.stays if row[2]}


def test_death_in_hospital_by_the_date_of_death(hospital, tmp_path):
    kept = stays(hospital, 48, 0)
    result = chosen(
        hospital, tmp_path, outcome("mortality_hospital", death="dod"), window_hours=48, gap_hours=0, death="dod"
    )
    everyone = {row[0]: row[2] for row in result.stays}
    expected = (kept["dod"] >= kept["intime"]) & (kept["dod"] <= kept["dischtime"])
    assert {stay: everyone[stay] for stay in kept["stay_id"]} == dict(
        zip(kept["stay_id"], expected.astype(int), strict=True)
    )


@pytest.mark.parametrize("days", [3, 7])
def test_a_long_stay(hospital, tmp_path, days):
    kept = stays(hospital, 24, 6)
    result = chosen(hospital, tmp_path, outcome("length_of_stay", days=days), window_hours=24, gap_hours=6)
    assert result.stays == triples(kept, kept["outtime"] - kept["intime"] > 24 * days * HOUR)
    assert 0 < sum(row[2] for row in result.stays) < len(result.stays)


@pytest.mark.parametrize("readmission", ["hospital", "icu"])
@pytest.mark.parametrize(("planned", "observation"), [(False, False), (True, True), (False, True)])
@pytest.mark.parametrize("competing_death", ["exclude", "no_event", "event"])
def test_a_readmission(hospital, tmp_path, readmission, planned, observation, competing_death):
    kept = stays(hospital, 24, 0)
    last = read(hospital, "icu/icustays").sort_values(["intime", "stay_id"]).groupby("hadm_id")["stay_id"].last()
    kept = kept[kept["stay_id"].isin(last) & kept["deathtime"].isna() & (kept["hospital_expire_flag"] == 0)]
    if "discharge_location" in kept:
        kept = kept[~kept["discharge_location"].isin(["HOSPICE", "AGAINST ADVICE", "ACUTE HOSPITAL"])]
    admissions = read(hospital, "hosp/admissions")
    if not planned:
        admissions = admissions[~admissions["admission_type"].isin(["ELECTIVE", "SURGICAL SAME DAY ADMISSION"])]
    if not observation:
        admissions = admissions[~admissions["admission_type"].str.contains("OBSERVATION")]
    beds = read(hospital, "icu/icustays").groupby("hadm_id")["intime"].apply(list)

    def comes_back(stay: pd.Series) -> bool:
        for other in admissions[admissions["subject_id"] == stay["subject_id"]].itertuples():
            begins = [other.admittime] if readmission == "hospital" else beds.get(other.hadm_id, [])
            soon = any(begin - stay["dischtime"] <= pd.Timedelta(days=30) for begin in begins)
            if soon and other.hadm_id != stay["hadm_id"] and other.admittime >= stay["dischtime"]:
                return True
        return False

    back = kept.apply(comes_back, axis=1)
    dead = kept["dod"] <= (kept["dischtime"] + pd.Timedelta(days=30)).dt.normalize()
    if competing_death == "exclude":
        kept, back = kept[back | ~dead], back[back | ~dead]
    elif competing_death == "event":
        back |= dead
    keys = {"readmission": readmission, "planned": planned, "observation": observation}
    rule = outcome("readmission_30d", competing_death=competing_death, **keys)
    result = chosen(hospital, tmp_path, rule, window_hours=24, gap_hours=0)
    assert result.stays == triples(kept, back)
    steps = [row["step"] for row in result.attrition]
    alive, known = steps.index("discharged alive"), steps.index("discharge time known")
    assert known < alive
    assert result.attrition[alive - 1]["stays"] > result.attrition[alive]["stays"]
    assert ("not dead within 30 days without readmission" in steps) == (competing_death == "exclude")
    assert any(step.startswith("an event is any ") for step in steps)


@pytest.mark.parametrize("at", ["icu_discharge", "hospital_discharge", "admission"])
def test_a_readmission_is_predicted_from_the_last_hours_before_discharge(ward_csv, tmp_path, at):
    rule = outcome("readmission_30d", predict_at=at)
    loaded = tables.find([ward_csv], cohort.NEEDED)
    with tables.opened(loaded, cohort.NEEDED, memory_limit="1GB", threads=1, spill=tmp_path) as con:
        cohort.select(con, rule, window_hours=24, gap_hours=0)
        times = con.execute("FROM cohort").df()
    length = times["window_end"] - times["window_start"]
    assert (length == 24 * HOUR).all()
    end = times["intime"] + 24 * HOUR if at == "admission" else times["outtime"]
    assert (times["window_end"] == end).all()
    assert (times["prediction_time"] == (times["dischtime"] if at == "hospital_discharge" else end)).all()


def test_a_prediction_at_discharge_has_no_gap(ward_csv, tmp_path):
    with pytest.raises(UserError, match=r"^task\.gap_hours=6: a prediction at discharge has no gap"):
        chosen(ward_csv, tmp_path, outcome("readmission_30d"), window_hours=24, gap_hours=6)


@pytest.mark.parametrize(
    ("condition", "roots"),
    [
        ("heart_failure", {9: ["428"], 10: ["I50"]}),
        ("kidney_disease", {9: ["585"], 10: ["N18"]}),
        ("copd", {9: ["4912", "4932", "496"], 10: ["J44"]}),
        (
            "coronary_disease",
            {9: ["410", "411", "412", "413", "414", "4292", "42979"], 10: [f"I2{n}" for n in range(6)]},
        ),
    ],
)
def test_a_condition(hospital, tmp_path, condition, roots):
    kept, codes = stays(hospital, 24, 0), read(hospital, "hosp/diagnoses_icd")
    kept = kept[kept["hadm_id"].isin(codes["hadm_id"])]
    hit = codes.apply(lambda row: row["icd_code"].strip().startswith(tuple(roots[row["icd_version"]])), axis=1)
    with_it = set(codes.loc[hit, "hadm_id"])
    result = chosen(hospital, tmp_path, outcome("phenotype", condition=condition), window_hours=24, gap_hours=0)
    assert result.stays == triples(kept, kept["hadm_id"].isin(with_it))
    step = next(row for row in result.attrition if row["step"] == "admission has discharge codes")
    assert step["stays"] >= len(kept)


@pytest.fixture(scope="module")
def meds(ward, store) -> Path:
    """The synthetic hospital as a MEDS folder."""
    return write_meds(ward, store / "meds_outcomes")


@pytest.mark.parametrize(
    "rule",
    [
        outcome("mortality"),
        outcome("mortality_hospital"),
        outcome("readmission_30d"),
        outcome("readmission_30d", readmission="icu", planned=True, competing_death="event"),
        outcome("readmission_30d", predict_at="icu_discharge"),
        outcome("length_of_stay"),
        outcome("phenotype", condition="copd"),
    ],
    ids=[
        "mortality",
        "mortality_hospital",
        "readmission",
        "icu_readmission",
        "icu_discharge",
        "length_of_stay",
        "phenotype",
    ],
)
def test_meds_gives_the_same_stays_and_labels_as_the_tables(ward, meds, store, rule):
    needed = {**cohort.NEEDED, **rule.needed}
    loaded = []
    for source, root in (("mimic", ward), ("meds", meds)):
        with opened_source(SourceConfig(cache=store, source=source, mimic_root=root), needed) as opened:
            gap = 6 if rule.predict_at == "admission" else 0
            loaded.append(cohort.select(opened.con, rule, window_hours=24, gap_hours=gap))
    assert loaded[0].stays == loaded[1].stays
    assert loaded[0].attrition == loaded[1].attrition


def test_the_demo_s_deaths_in_hospital_are_the_known_ones(demo, tmp_path):
    result = chosen(demo, tmp_path, outcome("mortality_hospital"), window_hours=48, gap_hours=6)
    first, last = result.attrition[0], result.attrition[-1]
    assert (first["stays"], first["events"]) == (140, 20)
    assert (last["stays"], last["events"]) == (67, 12)


def died_at_home(root: Path, target: Path) -> int:
    """A copy of a hospital in which the first survivor dies, at home, on the day of discharge; that admission's id."""
    shutil.copytree(root, target)
    admissions = pd.read_parquet(root / "hosp/admissions.parquet")
    patients = pd.read_parquet(root / "hosp/patients.parquet")
    last = admissions.sort_values("admittime").groupby("subject_id").tail(1)
    beds = pd.read_parquet(root / "icu/icustays.parquet").set_index("hadm_id")
    hours = (beds["outtime"] - beds["intime"]) / HOUR
    home = last[(last["hospital_expire_flag"] == 0) & last["hadm_id"].map(hours.groupby(level=0).max() > 60)].iloc[0]
    patients.loc[patients["subject_id"] == home["subject_id"], "dod"] = home["dischtime"].date()
    patients.to_parquet(target / "hosp/patients.parquet")
    # The stay ends with the discharge, so that the day of death lies inside it.
    stays = pd.read_parquet(root / "icu/icustays.parquet")
    of = stays["hadm_id"] == home["hadm_id"]
    stays.loc[of & (stays["outtime"] == stays.loc[of, "outtime"].max()), "outtime"] = home["dischtime"]
    stays.to_parquet(target / "icu/icustays.parquet")
    return int(home["hadm_id"])


@pytest.mark.parametrize("name", ["mortality", "mortality_hospital", "readmission_30d"])
def test_a_death_at_home_on_the_day_of_discharge_is_none_in_hospital(ward, store, tmp_path, name):
    """hospital_expire_flag=0 with a dod on the day of discharge: every task agrees, in tables and in MEDS."""
    hadm = died_at_home(ward, tmp_path / "tables")
    meds = write_meds(tmp_path / "tables", tmp_path / "meds")
    rule = outcome(name, competing_death="no_event") if name == "readmission_30d" else outcome(name)
    for source, root in (("mimic", tmp_path / "tables"), ("meds", meds)):
        config = SourceConfig(cache=tmp_path / "cache", source=source, mimic_root=root)
        with opened_source(config, cohort.NEEDED) as opened:
            cohort.select(opened.con, rule, window_hours=24, gap_hours=0)
            rows = opened.con.execute(
                "SELECT c.hadm_id, c.label, p.dod FROM cohort c JOIN patients p USING (subject_id)"
            )
            labels = {row[0]: row[1:] for row in rows.fetchall()}
        assert labels[hadm][0] == 0
        assert labels[hadm][1] is not None


def test_a_death_with_the_flag_and_no_deathtime_is_one_in_hospital(ward, tmp_path):
    """The flag decides: the death is dated by the discharge, and both tasks count it."""
    admissions = pd.read_parquet(ward / "hosp/admissions.parquet")
    (tmp_path / "hosp").mkdir()
    untimed = admissions.assign(deathtime=pd.Series(pd.NaT, admissions.index, dtype=admissions["deathtime"].dtype))
    untimed.to_parquet(tmp_path / "hosp/admissions.parquet")
    flagged = set(admissions.loc[admissions["hospital_expire_flag"] == 1, "hadm_id"])
    config = SourceConfig(cache=tmp_path, mimic_root=[str(tmp_path), str(ward)])
    labels = {}
    for name in ("mortality", "mortality_hospital"):
        with opened_source(config, cohort.NEEDED) as opened:
            cohort.select(opened.con, outcome(name), window_hours=1, gap_hours=0)
            labels[name] = dict(opened.con.execute("SELECT hadm_id, label FROM cohort").fetchall())
    assert {hadm for hadm, label in labels["mortality_hospital"].items() if label} == flagged & set(labels["mortality"])
    assert 0 < sum(labels["mortality"].values()) < len(flagged)
